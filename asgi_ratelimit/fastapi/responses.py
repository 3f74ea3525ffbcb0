"""The 429 as OpenAPI describes it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

__all__ = ["documented_429"]

_HEADERS = {
    "Retry-After": ("integer", "Seconds until the next request is allowed, rounded up"),
    "X-RateLimit-Limit": ("integer", "How many {unit} the full bucket holds"),
    "X-RateLimit-Remaining": ("integer", "How many are left"),
    "X-RateLimit-Reset": ("number", "Epoch seconds at which the bucket is full again"),
    "X-RateLimit-Reset-After": ("number", "Seconds until the bucket is full again"),
    "X-RateLimit-Bucket": ("string", "The limit's identity"),
    "X-RateLimit-Scope": ("string", "user, global or shared"),
}
_DOCUMENTED: dict[str, Any] = {
    "description": "Too Many Requests",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "title": "RateLimited",
                "required": ["message", "retry_after", "global"],
                "properties": {
                    "message": {"type": "string"},
                    "retry_after": {"type": "number", "description": "Seconds"},
                    "global": {"type": "boolean"},
                },
            },
            "example": {"message": "You are being rate limited.", "retry_after": 1.337, "global": False},
        }
    },
}


def documented_429(unit: str | None = None) -> dict[str, Any]:
    """A copy of the response object, for a route's `responses`. `unit`: the unit of the limits, requests by default."""
    headers = {
        name: {"description": text.replace("{unit}", unit or "requests"), "schema": {"type": kind}}
        for name, (kind, text) in _HEADERS.items()
    }
    return {"headers": headers, **deepcopy(_DOCUMENTED)}
