"""A store that records when it is started and closed."""

from __future__ import annotations

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.clock import Clock

__all__ = ["EventStore"]


class EventStore:
    """Not a MemoryStore, so the middleware starts it before the app and closes it after the app."""

    shared = True

    def __init__(self, clock: Clock, events: list[str]) -> None:
        memory = MemoryStore(clock=clock)
        self.clock, self.open, self.clear, self._events = memory.clock, memory.open, memory.clear, events

    async def start(self) -> None:
        self._events.append("store started")

    async def aclose(self) -> None:
        self._events.append("store closed")
