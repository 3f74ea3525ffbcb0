"""Whether a server receives checks: after a failure only probes reach it, until one of them succeeds."""

from __future__ import annotations

import logging
import time

from asgi_ratelimit.store_events import EventHook, StoreEvent, emit

__all__ = ["Breaker", "EventHook", "StoreEvent"]

logger = logging.getLogger("asgi_ratelimit")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two probes
_STEADY = 5.0  # seconds without a failure, after which the next one is not the same trouble again


class Breaker:
    """The state of one server: closed while it answers, open from a failure until a probe has succeeded."""

    def __init__(self, node: str, on_event: EventHook | None) -> None:
        self.node = node
        self.is_open = False
        self.cause = ""  # why it is open
        self._on_event = on_event
        self._opened_at = self._next_probe = 0.0
        self._steady_at = 0.0
        self._pause = _FIRST_PAUSE

    def trip(self, error: BaseException) -> None:
        """A call has failed."""
        if self.is_open:
            return
        self.is_open = True
        self.cause = " ".join(str(error).split()) or type(error).__name__  # one line, also of an error with several
        self._opened_at = self._next_probe = time.monotonic()
        if self._opened_at < self._steady_at:  # probes get through, and calls do not
            self._wait()
        else:
            self._pause = _FIRST_PAUSE
        logger.warning("%s is unavailable: %s", self.node, self.cause)
        self._emit(StoreEvent("down", self.node, self.cause, 0.0))

    def may_probe(self) -> bool:
        """Whether it is time for another probe."""
        return self.is_open and time.monotonic() >= self._next_probe

    def record_probe(self, error: BaseException | None) -> None:
        """A probe has succeeded, or failed with this error."""
        if error is not None:
            self._wait()
            return
        self._close("answers again")

    def retire(self) -> None:
        """The server receives no more checks: another has its place in the cluster."""
        if self.is_open:
            self._close("has been replaced")

    def _close(self, change: str) -> None:
        cause, self.cause = self.cause, ""
        self.is_open = False
        now = time.monotonic()
        self._steady_at = now + _STEADY
        logger.warning("%s %s after %.3f s", self.node, change, now - self._opened_at)
        self._emit(StoreEvent("up", self.node, cause, now - self._opened_at))

    def _wait(self) -> None:
        self._next_probe = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _emit(self, event: StoreEvent) -> None:
        emit(self._on_event, event)
