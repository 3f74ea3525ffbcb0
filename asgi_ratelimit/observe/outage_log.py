"""OutageLog: the last outages of servers."""

from __future__ import annotations

from typing import Final

from asgi_ratelimit.events import Event
from asgi_ratelimit.observe.counts import Outage
from asgi_ratelimit.observe.merging import MOST_OUTAGES, latest

__all__ = ["OutageLog"]

_MOST_DOWN: Final = 100  # servers
_LONGEST: Final = 200  # characters of a cause


class OutageLog:
    """Outages that last, and the last of those that have ended. Not thread-safe."""

    def __init__(self) -> None:
        self._down: dict[str, Outage] = {}
        self._ended: list[Outage] = []

    def note(self, event: Event) -> None:
        """A server is "down", or it has "recovered"."""
        cause = event.cause[:_LONGEST]
        if event.kind == "down":
            if len(self._down) < _MOST_DOWN:
                self._down.setdefault(event.node, Outage(event.node, event.time, None, cause, event.checks))
            return
        began = self._down.pop(event.node, None)
        start = event.time - event.seconds if began is None else began.start
        cause = began.cause if began and began.cause else cause
        self._ended = [*self._ended, Outage(event.node, start, event.seconds, cause, event.checks)][-MOST_OUTAGES:]

    def latest(self) -> tuple[Outage, ...]:
        """The last ones, oldest first."""
        return latest(sorted([*self._ended, *self._down.values()], key=lambda outage: outage.start))
