"""The types of the options that the doors share, and the connection that their functions get.

A function of the connection may be annotated with HTTPConnection or with Request: `def key(request: Request) -> str`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from asgi_ratelimit.decision import Decision

__all__ = [
    "ASGIApplication",
    "Choice",
    "Connection",
    "CostSource",
    "ExemptSource",
    "Key",
    "KeyFunction",
    "LimitedHandler",
    "check_call",
    "check_responders",
    "connection",
]

ASGIApplication = Callable[[Any, Any, Any], Awaitable[None]]  # frameworks type scope, receive and send differently
Connection = Any  # a Request, a WebSocket or, for a WebSocket's handshake in the middleware, an HTTPConnection
Key = str | None
# A function of an HTTPConnection is a function of a Request, too.
KeyFunction = Callable[[Request], Key | Awaitable[Key]]
CostSource = int | Callable[[Request], int | Awaitable[int]]
Choice = Callable[[Request], bool | Awaitable[bool]]
ExemptSource = Iterable[str | Choice] | Choice
LimitedHandler = Callable[[Request, Decision], Response | Awaitable[Response]]


def connection(scope: Scope) -> Connection:
    """The argument of the users' functions: a Request, or for a WebSocket's handshake an HTTPConnection."""
    return Request(scope) if scope["type"] == "http" else HTTPConnection(scope)


def check_call(option: str, function: Any, *arguments: str) -> None:
    """Raises ValueError if a function of the user's cannot be called with these arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those that are written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        right = f"def {option}({', '.join(arguments)})"
        raise ValueError(f"{option} is a function such as `{right}`, but {function!r} takes {signature}") from None
    if option == "limit" and "key" in signature.parameters:
        raise ValueError(f"a limit function gets the connection, as in `def limit(conn)`, not the key: {function!r}")


def check_responders(refund: object, on_limited: object, settle: object = None) -> None:
    """Raises ValueError if one of these options is no function of its arguments."""
    if refund is not None and settle is not None:
        raise ValueError(
            "a request is either given back or settled: leave out refund= and let settle= return 0, as in "
            "`def settle(served): return 0 if served.status < 400 else 1`"
        )
    for option, function, arguments in (
        ("refund", refund, ("status",)),
        ("settle", settle, ("served",)),
        ("on_limited", on_limited, ("conn", "decision")),
    ):
        if function is None:
            continue
        if not callable(function):
            raise ValueError(f"{option} must be a function or None, not {function!r}")
        check_call(option, function, *arguments)
