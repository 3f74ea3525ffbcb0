"""The headers of a request, as pairs of bytes."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["headers_of"]


def headers_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The list of headers. ASGI allows any iterable: here it becomes a list, as it is read more than once."""
    headers = scope.get("headers")
    if type(headers) is not list:
        headers = scope["headers"] = list(headers or ())
    return headers
