"""The frames that one open WebSocket may send: as Discord's gateway does it, too many close it with 4008."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Receive, Send

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.inbound.responses import RATE_LIMITED
from asgi_ratelimit.limits import Limit, State

__all__ = ["LimitedSocket"]

_CLOSE = {"code": RATE_LIMITED, "reason": "rate limited"}


class LimitedSocket:
    """A WebSocket's `receive` and `send`, counting the frames that come in.

    The bucket lives and dies with the socket, so it needs no store. Once the socket is closed, the app's later
    messages are dropped: it learns of the end from its next `receive`.
    """

    def __init__(
        self, limits: tuple[Limit, ...], clock: Clock, receive: Receive, send: Send, on_too_many: Callable[[], bool]
    ) -> None:
        self._on_too_many = on_too_many  # whether to close it
        self._limits = limits
        self._states: list[State] = [None] * len(limits)
        self._clock = clock
        self._receive = receive
        self._send = send
        self._closed = False

    async def receive(self) -> Message:
        if self._closed:
            return {"type": "websocket.disconnect", **_CLOSE}
        message = await self._receive()
        if message["type"] != "websocket.receive" or self._take() or not self._on_too_many():
            return message
        self._closed = True
        await self._send({"type": "websocket.close", **_CLOSE})
        return {"type": "websocket.disconnect", **_CLOSE}

    async def send(self, message: Message) -> None:
        if not self._closed:
            await self._send(message)

    def _take(self) -> bool:
        now_us = self._clock.now_us()
        after = [limit.take(state, now_us, 1) for limit, state in zip(self._limits, self._states, strict=True)]
        if None in after:
            return False
        self._states = after
        return True
