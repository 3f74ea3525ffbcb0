"""The `send` of a request, which puts the headers on the start of its response.

The state of the request does not refer to it: a server's `send` refers to the scope, and the scope to the state. It is
no coroutine itself, but returns the server's: one less for each message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

from asgi_ratelimit.inbound.request_state import RequestState

__all__ = ["reporting", "reporting_of_socket"]

_REFUSED_SOCKET = 403  # the server's answer if a WebSocket is closed before it is accepted
_BODIES = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})


def reporting(send: Send, state: RequestState, wall: Callable[[], float]) -> Send:
    """The `send` of an HTTP request. `wall`: now in epoch seconds."""

    def write(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            if state.slots:
                state.has_trailers = bool(message.get("trailers"))
            if state.refunds:
                return _refund_and_send(message, send, state, wall)
            message = state.start(message, wall())
        elif state.slots and _ends(message, state):
            return _release_and_send(message, send, state)
        return send(message)

    return write


def _ends(message: Message, state: RequestState) -> bool:
    """Whether a response ends with this message."""
    if state.has_trailers:
        return message["type"] == "http.response.trailers" and not message.get("more_trailers")
    return message["type"] in _BODIES and not message.get("more_body")


async def _release_and_send(message: Message, send: Send, state: RequestState) -> None:
    """The slots are free before the client has the end of its response: its next request may come at once."""
    await state.release()
    await send(message)


async def _refund_and_send(message: Message, send: Send, state: RequestState, wall: Callable[[], float]) -> None:
    await state.refund_by(message["status"])
    await send(state.start(message, wall()))


def reporting_of_socket(send: Send, state: RequestState, wall: Callable[[], float]) -> Send:
    """The `send` of a WebSocket. Accepted, it has the status 101."""

    async def write(message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.close":
            state.is_open = False
            await state.refund_by(_REFUSED_SOCKET)  # if it has not been accepted
            await state.release()
        elif kind in ("websocket.accept", "websocket.http.response.start"):
            await state.refund_by(message.get("status", 101))
            message = state.start(message, wall())
            state.is_open = kind == "websocket.accept"
        elif kind == "websocket.http.response.body" and not message.get("more_body"):
            await state.release()
        await send(message)

    return write
