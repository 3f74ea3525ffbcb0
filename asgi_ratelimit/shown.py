"""Foreign values in a message: whatever their `repr` does, and whatever characters they have."""

from __future__ import annotations

__all__ = ["one_line", "shown"]


def shown(value: object) -> str:
    """Its repr, at most 80 characters, or its type if the repr fails: a lazy object may be without its database."""
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"a {type(value).__name__}"


def one_line(text: object) -> str:
    """A foreign text without line ends, and without the characters that a terminal obeys."""
    return "".join([char if char.isprintable() else "\ufffd" for char in str(text)])
