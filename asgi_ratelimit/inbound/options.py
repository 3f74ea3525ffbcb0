"""The types of the options that the doors share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from starlette.requests import HTTPConnection
from starlette.responses import Response

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limits import LimitSpec

__all__ = ["ASGIApplication", "CostSource", "ExemptSource", "Key", "KeyFunction", "LimitSource", "LimitedHandler"]

ASGIApplication = Callable[[Any, Any, Any], Awaitable[None]]  # frameworks type scope, receive and send differently
Key = str | None
KeyFunction = Callable[[HTTPConnection], Key | Awaitable[Key]]
ChosenLimit = LimitSpec | Literal[0, False] | None  # 0 and False allow nothing, None anything
LimitSource = LimitSpec | Callable[[HTTPConnection], ChosenLimit | Awaitable[ChosenLimit]] | None
CostSource = int | Callable[[HTTPConnection], int | Awaitable[int]]
ExemptSource = Iterable[str] | Callable[[HTTPConnection], bool | Awaitable[bool]]
LimitedHandler = Callable[[HTTPConnection, Decision], Response | Awaitable[Response]]
