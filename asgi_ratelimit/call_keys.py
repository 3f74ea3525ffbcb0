"""The key of a call: one for all limits of a list, or one for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from asgi_ratelimit.shown import shown

__all__ = ["CallKey", "StoreKey", "distinct", "fitting_key", "of_key", "per_limit"]

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


def fitting_key(keys: tuple[object, ...], count: int, owner: str) -> CallKey:
    """The key of a call to so many limits. Raises ValueError for another number of keys, TypeError for no strings."""
    texts = tuple([key for key in keys if isinstance(key, str)])
    if len(texts) < len(keys):
        wrong = next(key for key in keys if not isinstance(key, str))
        raise TypeError(f'each key of a tuple is a string such as "user:1", not {shown(wrong)}')
    if len(texts) != count:
        example = ("203.0.113.7", "account:alice", *[f"key {i}" for i in range(3, count + 1)])[:count]
        raise ValueError(
            f"{owner} has {count} limit{'s' * (count > 1)}, so a tuple has as many keys, e.g. {example!r}, "
            f"not {len(texts)}; a string is the key of all limits"
        )
    return texts if count > 1 else texts[0]
