"""The key of a call: one for all limits of a list, or one for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["CallKey", "StoreKey", "distinct", "of_key", "per_limit"]

CallKey = str | tuple[str, ...]  # a tuple has one key for each limit, in their order
StoreKey = Any  # the same, as a store gets it: one that takes nothing but strings is a store, too

Value = TypeVar("Value")


def per_limit(key: CallKey, count: int) -> Sequence[str]:
    """The key of each of so many limits."""
    return key if isinstance(key, tuple) else [key] * count


def distinct(key: CallKey) -> Sequence[str]:
    """Each key of a call once. A block of one of them refuses the call."""
    return tuple(dict.fromkeys(key)) if isinstance(key, tuple) else (key,)


def of_key(values: Sequence[Value], key: CallKey, one: str) -> Sequence[Value]:
    """The values of the limits that have this one of the call's keys, out of one value for each limit."""
    if not isinstance(key, tuple):
        return values
    return [value for value, own in zip(values, key, strict=False) if own == one] or values
