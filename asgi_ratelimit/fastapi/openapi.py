"""How a limited route is documented: the 429 and its headers in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from asgi_ratelimit.fastapi.dependency import RateLimit
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.fastapi.route_names import every_route

__all__ = ["document_limits"]


def document_limits(app: FastAPI) -> None:
    """Put the 429 of every route with a RateLimit into the app's OpenAPI document.

    In FastAPI's own way of extending it: `app.openapi` is replaced by a function that calls the former one.
    """
    former = app.openapi

    def openapi() -> dict[str, Any]:
        schema = former()
        for route in every_route(app.routes):
            if _is_limited(getattr(route, "dependant", None)):
                operations = schema.get("paths", {}).get(getattr(route, "path_format", None), {})
                for method in getattr(route, "methods", None) or ():
                    responses = operations.get(method.lower(), {}).get("responses")
                    if responses is not None:
                        responses.setdefault("429", documented_429())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _is_limited(dependant: Any) -> bool:
    if dependant is None:
        return False
    return isinstance(dependant.call, RateLimit) or any(_is_limited(inner) for inner in dependant.dependencies)
