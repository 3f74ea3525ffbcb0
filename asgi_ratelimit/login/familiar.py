"""The addresses and devices from which an account has been logged in to before."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import Limit, TokenBucket
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Buckets, Store

__all__ = ["Familiar"]

_NEW_PLACES: Final = "20/day"  # of one account that are remembered


class Familiar:
    """Marks in the store. A mark lasts `seconds` to twice as long after the last log-in.

    It is a token bucket of two tokens, of which each log-in takes one if it is there: it is full again when the mark
    has ended, and no log-in makes a moment without it. The buckets belong to no limiter: an operator has no use for it.
    """

    def __init__(self, seconds: float, *, store: Store, name: str) -> None:
        self._marks = _open(TokenBucket(Rate(2, round(2 * seconds * 1e6))), store, f"{name}:familiar")
        self._newcomers = _open(TokenBucket(_NEW_PLACES), store, f"{name}:newcomers")

    async def knows(self, mark: str) -> bool:
        """Whether there is such a mark. In an outage that fails closed there is none."""
        try:
            decision = await _decided(self._marks.peek(mark, 1, ""))
        except StoreUnavailable:  # the limits themselves will say so
            return False
        return decision.remaining < decision.limit

    async def remember(self, account: str, mark: str, *, is_new: bool) -> None:
        """Set or renew a mark. An account has no more than twenty new ones a day."""
        if not is_new or (await _decided(self._newcomers.decide(account, 1, ""))).allowed:
            await _decided(self._marks.decide(mark, 1, ""))


def _open(limit: Limit, store: Store, name: str) -> Buckets:
    return store.open(name, (Policy(name, limit),))


async def _decided(pending: Decision | Awaitable[Decision]) -> Decision:
    return pending if isinstance(pending, Decision) else await pending
