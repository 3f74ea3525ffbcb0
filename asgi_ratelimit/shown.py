"""A value in a message, whatever its `repr` does."""

from __future__ import annotations

__all__ = ["shown"]


def shown(value: object) -> str:
    """Its repr, at most 80 characters, or its type if the repr fails: a lazy object may be without its database."""
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"a {type(value).__name__}"
