"""The refusals of a dependency. They are answered with the package's own responses, unless the app answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import isawaitable
from typing import Any

from fastapi import HTTPException, Response
from fastapi.exception_handlers import http_exception_handler
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.inbound.headers import RawHeaders
from asgi_ratelimit.inbound.options import Connection, LimitedHandler
from asgi_ratelimit.inbound.request_state import merge_headers, state_of
from asgi_ratelimit.inbound.responses import VIA, LimitedResponse, UnavailableResponse, can_only_close

__all__ = ["refusal", "unavailable"]


def refusal(
    conn: HTTPConnection,
    decision: Decision,
    headers: RawHeaders,
    on_limited: LimitedHandler | None,
    on_nonsense: Callable[[object], None],
) -> Exception:
    """The exception that refuses a request, with the headers of its response.

    `on_nonsense` is called with what `on_limited` has returned in place of a response.
    """
    if on_limited is not None:
        return _prepared(conn, _RefusedOnce(decision, headers, on_limited, on_nonsense))
    return _prepared(conn, _Refused(decision, headers))


def unavailable(conn: HTTPConnection) -> Exception:
    """The exception of an outage that fails closed."""
    return _prepared(conn, _Unavailable())


class _Refused(RateLimited, HTTPException):
    """A refusal. It is both, so that a handler for either of them, or for 429, gets it."""

    status_code = 429
    detail = "You are being rate limited."

    def __init__(self, decision: Decision, headers: RawHeaders) -> None:
        RateLimited.__init__(self, decision)
        self.status_code = decision.policy.limit.status
        self.raw_headers = headers

    @cached_property
    def headers(self) -> dict[str, str]:  # type: ignore[override]
        """The headers of its response, for a handler of the app's."""
        return {name.decode("ascii"): value.decode("ascii") for name, value in [VIA, *self.raw_headers]}

    async def respond(self, conn: HTTPConnection) -> Response:
        return _with_headers(conn, LimitedResponse(self.decision), self.raw_headers)


class _RefusedOnce(RateLimited):
    """A refusal with a response of its own, which comes before every handler of the app."""

    def __init__(
        self, decision: Decision, headers: RawHeaders, on_limited: LimitedHandler, on_nonsense: Callable[[object], None]
    ) -> None:
        super().__init__(decision)
        self.raw_headers, self.on_limited, self.on_nonsense = headers, on_limited, on_nonsense

    def __reduce__(self) -> tuple[Any, ...]:
        return RateLimited, (self.decision,)  # a function of the app's may not be pickled

    async def respond(self, conn: Connection) -> Response:
        response: Any = None
        if not can_only_close(conn.scope):
            response = self.on_limited(conn, self.decision)
            response = await response if isawaitable(response) else response
            if not isinstance(response, Response):
                self.on_nonsense(response)
        if not isinstance(response, Response):
            response = LimitedResponse(self.decision)
        return _with_headers(conn, response, self.raw_headers)


class _Unavailable(StoreUnavailable, HTTPException):
    """An outage that fails closed. It is both, so that a handler for either of them, or for 503, gets it."""

    def __init__(self) -> None:
        HTTPException.__init__(self, 503, detail="The rate limiter cannot answer.", headers={"retry-after": "1"})

    async def respond(self, conn: HTTPConnection) -> Response:
        return UnavailableResponse()


def _prepared(conn: HTTPConnection, error: Any) -> Exception:
    """The exception, which will be answered with its own response unless the app has a handler for it."""
    handlers, status_handlers = conn.scope.get("starlette.exception_handlers", ({}, {}))
    kind = type(error)
    if kind is _RefusedOnce or (error.status_code not in status_handlers and not _has_handler(conn, kind, handlers)):
        handlers[kind] = _respond
    exception: Exception = error
    return exception


def _has_handler(conn: HTTPConnection, kind: type, handlers: Mapping[Any, Any]) -> bool:
    """Whether the app itself has a handler for this kind of exception. Tools for tracing wrap FastAPI's default one."""
    declared = getattr(conn.scope.get("app"), "exception_handlers", handlers)
    handler = next((declared[one] for one in kind.__mro__ if one in declared and one is not Exception), None)
    while handler is not None and handler is not http_exception_handler and hasattr(handler, "__wrapped__"):
        handler = handler.__wrapped__
    default = ExceptionMiddleware.http_exception
    return handler not in (None, http_exception_handler) and getattr(handler, "__func__", None) is not default


async def _respond(conn: HTTPConnection, error: Any) -> Response:
    response: Response = await error.respond(conn)
    return response


def _with_headers(conn: HTTPConnection, response: Response, headers: RawHeaders) -> Response:
    if state_of(conn.scope).style is None:  # else the middleware writes them
        response.raw_headers = merge_headers(response.raw_headers, headers)
    return response
