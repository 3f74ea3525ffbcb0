"""The types of the options that the doors share, and the connection that their functions get.

A function of the connection may be annotated with HTTPConnection or with Request: `def key(request: Request) -> str`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limits import LimitSpec

__all__ = [
    "ASGIApplication",
    "Connection",
    "CostSource",
    "ExemptSource",
    "Key",
    "KeyFunction",
    "LimitSource",
    "LimitedHandler",
    "connection",
]

ASGIApplication = Callable[[Any, Any, Any], Awaitable[None]]  # frameworks type scope, receive and send differently
Connection = Any  # a Request, a WebSocket or, for a WebSocket's handshake in the middleware, an HTTPConnection
Key = str | None
# A function of an HTTPConnection is a function of a Request, too.
KeyFunction = Callable[[Request], Key | Awaitable[Key]]
ChosenLimit = LimitSpec | Literal[0, False] | None  # 0 and False allow nothing, None anything
LimitSource = LimitSpec | Callable[[Request], ChosenLimit | Awaitable[ChosenLimit]] | None
CostSource = int | Callable[[Request], int | Awaitable[int]]
ExemptSource = Iterable[str] | Callable[[Request], bool | Awaitable[bool]]
LimitedHandler = Callable[[Request, Decision], Response | Awaitable[Response]]


def connection(scope: Scope) -> Connection:
    """The argument of the users' functions: a Request, or for a WebSocket's handshake an HTTPConnection."""
    return Request(scope) if scope["type"] == "http" else HTTPConnection(scope)
