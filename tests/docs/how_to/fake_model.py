"""A language model behind an address: it streams its pieces, and reports what it has used at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from threading import Event

from starlette.types import Message, Receive, Scope, Send

__all__ = ["FakeModel"]


class FakeModel:
    """An ASGI app.

    used: the tokens that it reports; None: it reports nothing
    pieces: how many it streams
    status: of its answers
    may_answer: it does not answer before this is true
    breaks_off: its connection is lost after its pieces
    stays_silent: after its pieces it says no more, and stays connected until the client goes away
    """

    def __init__(self, used: int | None = 1500, *, pieces: int = 3) -> None:
        self.used, self.pieces, self.status, self.stays_silent = used, pieces, 200, False
        self.breaks_off = False
        self.calls = 0
        self.may_answer: Callable[[], bool] = lambda: True
        self.was_left = Event()  # the client has gone away in the middle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.calls += 1
        while (await receive()).get("more_body"):
            pass
        while not self.may_answer():
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        if self.status == 200:
            await self._answer(receive, send)
        await send({"type": "http.response.body"})

    async def _answer(self, receive: Receive, send: Send) -> None:
        for _ in range(self.pieces):
            await send(_line({"text": "word"}))
        if self.breaks_off:
            raise ConnectionError("the model has crashed")
        if self.stays_silent:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.was_left.set()
        elif self.used is not None:
            await send(_line({"usage": {"total_tokens": self.used}}))


def _line(event: dict[str, object]) -> Message:
    return {"type": "http.response.body", "body": f"data: {json.dumps(event)}\n\n".encode(), "more_body": True}
