"""How a limited route is documented: the 429 and its headers in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from asgi_ratelimit.fastapi.dependency import RateLimit
from asgi_ratelimit.fastapi.exemption import exempt
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.inbound.middleware import RateLimitMiddleware
from asgi_ratelimit.inbound.own_limit import dependency_calls, every_route
from asgi_ratelimit.inbound.request_filter import RequestFilter

__all__ = ["document_limits"]


def document_limits(app: FastAPI) -> None:
    """Put the 429 of every limited route into the app's OpenAPI document.

    A route is limited if it has a RateLimit, or if a RateLimitMiddleware of the app counts its path. In FastAPI's own
    way of extending the document: `app.openapi` is replaced by a function that calls the former one.
    """
    former = app.openapi

    def openapi() -> dict[str, Any]:
        schema = former()
        middleware = list(_middleware_filters(app))
        for route in every_route(app.routes):
            path, calls = (
                str(getattr(route, "path_format", "")),
                list(dependency_calls(getattr(route, "dependant", None))),
            )
            operations = schema.get("paths", {}).get(path, {})
            for method in getattr(route, "methods", None) or ():
                responses = operations.get(method.lower(), {}).get("responses")
                if responses is not None and _is_limited(calls, middleware, method, path):
                    responses.setdefault("429", documented_429(_unit(calls)))
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _unit(calls: list[Any]) -> str | None:
    """The unit of the limits of a route, if they have one unit."""
    units = {call.unit for call in calls if isinstance(call, RateLimit)}
    return units.pop() if len(units) == 1 else None


def _is_limited(calls: list[Any], middleware: list[RequestFilter], method: str, path: str) -> bool:
    if any(isinstance(call, RateLimit) and call.may_count(method, path) for call in calls):
        return True
    return any(one.may_count(method, path) and not (one.default and exempt in calls) for one in middleware)


def _middleware_filters(app: FastAPI) -> Iterator[RequestFilter]:
    """The requests that the app's middleware count."""
    for entry in app.user_middleware:
        options: dict[str, Any] = dict(entry.kwargs)
        if isinstance(entry.cls, type) and issubclass(entry.cls, RateLimitMiddleware) and options.get("limit"):
            names = ("exempt", "only", "methods", "default")
            yield RequestFilter(**{name: options[name] for name in names if name in options})
