"""Responses in place of the endpoint's own: errors, the PONG, and replies to users whose interaction may not pass."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from asgi_ratelimit.inbound.headers import RawHeaders
from asgi_ratelimit.interactions.keys import Interaction

__all__ = ["AUTOCOMPLETE", "EarlyResponse", "closing", "error", "is_event", "is_ping", "pong", "reply", "respond"]

_PING, AUTOCOMPLETE = 1, 4  # types of interaction
_EVENT_PING, _EVENT = 0, 1  # types of webhook event, which have the interactions' signature and key
_PONG, _MESSAGE, _CHOICES = 1, 4, 8  # types of answer
_EPHEMERAL = 64  # flag: shown to the user only


class EarlyResponse(Exception):
    """A response in place of the endpoint's. Not an HTTPException, so that no handler for these changes it."""

    def __init__(self, content: dict[str, Any] | None, status: int = 200, headers: RawHeaders | None = None) -> None:
        super().__init__(status)
        body = b"" if content is None else json.dumps(content).encode("ascii")
        self.response = Response(body, status, media_type="application/json")
        self.response.raw_headers += headers or ()


def error(status: int, message: str, headers: RawHeaders | None = None) -> EarlyResponse:
    """An error, as Discord's own API words one."""
    return EarlyResponse({"message": message}, status, headers)


def closing(scope: Scope) -> RawHeaders:
    """The headers of a response to a request whose body is not read. HTTP/2 has no such header, and needs none."""
    return [(b"connection", b"close")] if str(scope.get("http_version", "1.1")).startswith("1") else []


def is_event(body: Interaction) -> bool:
    """Whether it is one of Discord's webhook events: no interaction has an `event`."""
    return body["type"] == _EVENT and isinstance(body.get("event"), dict)


def is_ping(body: Interaction) -> bool:
    """Whether it is the PING of interactions or of webhook events."""
    return body["type"] == _EVENT_PING or (body["type"] == _PING and not is_event(body))


def pong(body: Interaction) -> EarlyResponse:
    """The answer to a PING. Webhook events want a 204 without a body."""
    return EarlyResponse(None, 204) if body["type"] == _EVENT_PING else EarlyResponse({"type": _PONG})


def reply(interaction: Interaction, content: str) -> EarlyResponse:
    """A reply in place of the endpoint's own. Discord wants a 200."""
    if interaction["type"] == AUTOCOMPLETE:
        return EarlyResponse({"type": _CHOICES, "data": {"choices": []}})
    return EarlyResponse({"type": _MESSAGE, "data": {"content": content, "flags": _EPHEMERAL}})


async def respond(_: object, early: Exception) -> Response:
    """The exception handler of FastAPI and Starlette for an EarlyResponse."""
    assert isinstance(early, EarlyResponse)
    return early.response
