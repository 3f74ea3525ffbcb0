"""The kinds of limit, as pure arithmetic on integers: no clock, no store, no rounding.

A limit is a frozen value. A *state* is the use that one key has made of it. The store keeps the state, and only the
limit understands it. None is a full bucket, so an expired state may be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Iterable

from asgi_ratelimit.limits.base import OUTAGES, Limit, Measure, Outage, Scope, State
from asgi_ratelimit.limits.buckets import LeakyBucket, TokenBucket
from asgi_ratelimit.limits.windows import FixedWindow, SlidingWindow

__all__ = [
    "OUTAGES", "FixedWindow", "LeakyBucket", "Limit", "LimitSpec", "Measure", "Outage", "Scope", "SlidingWindow",
    "State", "TokenBucket", "as_limits",
]  # fmt: skip

LimitSpec = str | Limit | Iterable[str | Limit]  # one limit or several; a string is a TokenBucket


def as_limits(value: object) -> tuple[Limit, ...]:
    """One limit or several, as a tuple. Raises ValueError for anything else."""
    if isinstance(value, Limit):
        return (value,)
    if isinstance(value, str):
        return (TokenBucket(value),)
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise ValueError(f'a limit is a string such as "5/5s", a limit, or a list of them, not {value!r:.80}')
    limits = tuple(limit for item in value for limit in as_limits(item))
    if not limits:
        raise ValueError('an empty list limits nothing; give at least one limit such as "5/5s"')
    if len({limit.identity for limit in limits}) < len(limits):
        raise ValueError(f"the same limit stands twice in {list(limits)!r}; name one of them if both are meant")
    return limits
