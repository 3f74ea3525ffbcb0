"""A dependency for routes that a default limit is not for."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["exempt"]


def exempt() -> None:
    """Leave a route alone: `dependencies=[Depends(exempt)]`, with `RateLimitMiddleware(default=True)` in the app."""


def _replaces_default(scope: Scope) -> bool:
    return True


exempt.replaces_default = _replaces_default  # type: ignore[attr-defined]
