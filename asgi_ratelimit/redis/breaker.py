"""Whether a server receives checks: after a failure only probes reach it, until one of them succeeds."""

from __future__ import annotations

import logging
import time

from redis.exceptions import AuthenticationError, NoPermissionError

from asgi_ratelimit.store_events import EventHook, StoreEvent, emit

__all__ = ["Breaker", "EventHook", "StoreEvent", "line_of"]

logger = logging.getLogger("asgi_ratelimit")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two probes
_STEADY = 5.0  # seconds without a failure, after which the next one is not the same trouble again


def line_of(error: BaseException) -> str:
    """One line, also of an error with several or none."""
    return " ".join(str(error).split()) or type(error).__name__


class Breaker:
    """The state of one server: closed while it answers, open from a failure until a probe has succeeded."""

    def __init__(self, node: str, on_event: EventHook | None) -> None:
        self.node = node
        self.is_open = False
        self.cause = ""  # why it is open
        self.missed = 0  # checks that were decided without the server, and not reported yet
        self._on_event = on_event
        self._opened_at = self._next_probe = 0.0
        self._steady_at = 0.0
        self._pause = _FIRST_PAUSE

    @staticmethod
    def now() -> float:
        """The moment, in seconds of the clock that pauses go by."""
        return time.monotonic()

    def trip(self, error: BaseException) -> None:
        """A call has failed."""
        if self.is_open:
            self._note_refusal(error)
            return
        self.is_open = True
        self.cause = line_of(error)
        self._opened_at = self._next_probe = self.now()
        if self._opened_at < self._steady_at:  # probes get through, and calls do not
            self._wait(self._opened_at)
        else:
            self._pause = _FIRST_PAUSE
        logger.warning("%s is unavailable: %s", self.node, self.cause)
        self._emit(StoreEvent("down", self.node, self.cause, 0.0))

    def may_probe(self) -> bool:
        """Whether it is time for another probe."""
        return self.is_open and self.now() >= self._next_probe

    def record_probe(self, error: BaseException | None, started_at: float | None = None) -> None:
        """A probe has succeeded, or failed with this error. The pause counts from its start."""
        if error is not None:
            self._note_refusal(error)
            self._wait(self.now() if started_at is None else started_at)
            return
        self._close("answers again")

    def retire(self) -> None:
        """The server receives no more checks: another has its place in the cluster."""
        if self.is_open:
            self._close("has been replaced")

    def report_missed(self, cause: str) -> None:
        """Report the checks that were decided without the server, though it is up."""
        if self.is_open or not self.missed:  # those of an outage are reported at its end
            return
        missed, self.missed = self.missed, 0
        logger.warning("%s is up; checks decided without it: %d (%s)", self.node, missed, cause)
        self._emit(StoreEvent("missed", self.node, cause, 0.0, missed))

    def _note_refusal(self, error: BaseException) -> None:
        """Log that the server runs, and does not let us work: that does not mend itself."""
        cause = line_of(error)
        if isinstance(error, (AuthenticationError, NoPermissionError)) and cause != self.cause:
            self.cause = cause
            logger.warning("%s is still unavailable: %s", self.node, cause)

    def _close(self, change: str) -> None:
        cause, self.cause = self.cause, ""
        missed, self.missed = self.missed, 0
        self.is_open = False
        now = self.now()
        self._steady_at = now + _STEADY
        seconds = now - self._opened_at
        logger.warning("%s %s after %.3f s; checks decided without it: %d", self.node, change, seconds, missed)
        self._emit(StoreEvent("up", self.node, cause, seconds, missed))

    def _wait(self, since: float) -> None:
        self._next_probe = since + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _emit(self, event: StoreEvent) -> None:
        emit(self._on_event, event)
