"""The kinds of limit, as pure arithmetic on integers: no clock, no store, no rounding.

A limit is a frozen value. A *state* is the use that one key has made of it. The store keeps the state, and only the
limit understands it. None is a full bucket, so an expired state may be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from asgi_ratelimit.limits.base import LATEST_US, MOST_COST, OUTAGES, Limit, Measure, Outage, Scope, State
from asgi_ratelimit.limits.buckets import LeakyBucket, TokenBucket
from asgi_ratelimit.limits.concurrency import Concurrency
from asgi_ratelimit.limits.quota import Quota
from asgi_ratelimit.limits.windows import FixedWindow, SlidingWindow
from asgi_ratelimit.rate import number_hint
from asgi_ratelimit.shown import shown

__all__ = [
    "LATEST_US", "MOST_COST", "OUTAGES", "Concurrency", "FixedWindow", "LeakyBucket", "Limit", "LimitSpec", "Measure",
    "Outage", "Quota", "Scope", "SlidingWindow", "State", "TokenBucket", "as_limits",
]  # fmt: skip

_MOST_LIMITS = 100  # in one list
_DEEPEST = 10  # lists within each other

LimitSpec = str | Limit | Iterable[str | Limit]  # one limit or several; a string is a TokenBucket


def as_limits(value: object) -> tuple[Limit, ...]:
    """One limit or several, as a tuple. Raises ValueError for anything else."""
    limits = tuple(islice(_each(value, _DEEPEST), _MOST_LIMITS + 1))
    if not limits:
        raise ValueError('an empty list limits nothing; give at least one limit such as "5/5s"')
    if len(limits) > _MOST_LIMITS:
        raise ValueError(f"a list has at most {_MOST_LIMITS} limits; this one has more: {shown(value)}")
    if len({limit.identity for limit in limits}) < len(limits):
        raise ValueError(
            f"two limits of {list(limits)!r} have the same kind and period, so they would share a bucket; "
            'name one of them if both are meant, e.g. TokenBucket("10/s", name="burst")'
        )
    return limits


def _each(value: object, depth: int) -> Iterator[Limit]:
    if isinstance(value, Limit):
        yield value
    elif isinstance(value, str):
        yield TokenBucket(value)
    elif not isinstance(value, Iterable) or isinstance(value, (bytes, dict)) or not depth:
        hint = number_hint(value)
        raise ValueError(f'a limit is a string such as "5/5s", a limit, or a list of them, not {shown(value)}{hint}')
    else:
        for item in value:
            yield from _each(item, depth - 1)
