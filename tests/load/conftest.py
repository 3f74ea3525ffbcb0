"""A middleware around an app of which the test holds every request."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.events import Event
from tests.support.asgi import respond


class HeldApp:
    """Its requests wait until `release` is called; those of /fails raise then."""

    def __init__(self) -> None:
        self.started = 0
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    def hold(self) -> None:
        """Let further requests wait again."""
        self._released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started += 1
        await self._released.wait()
        if scope["path"] == "/fails":
            raise RuntimeError("the app has failed")
        await respond(send, 200, b"done")


@pytest.fixture
def held() -> HeldApp:
    return HeldApp()


@pytest.fixture
def events(store: MemoryStore) -> list[Event]:
    events: list[Event] = []
    store.observers.add(events.append)
    return events
