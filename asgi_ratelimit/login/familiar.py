"""The addresses and devices from which an account has been logged in to before."""

from __future__ import annotations

from typing import Final

from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import TokenBucket
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Store

__all__ = ["Familiar"]

_NEW_PLACES: Final = "20/day"  # of one account that are remembered


class Familiar:
    """Marks in the store. A mark lasts `seconds` to twice as long after the last log-in.

    It is a token bucket of two tokens, of which each log-in takes one if it is there: it is full again when the mark
    has ended, and no log-in makes a moment without it.
    """

    def __init__(self, seconds: float, *, store: Store, name: str) -> None:
        self._marks = Limiter(TokenBucket(Rate(2, round(2 * seconds * 1e6))), store=store, name=f"{name}:familiar")
        self._newcomers = Limiter(_NEW_PLACES, store=store, name=f"{name}:newcomers")

    async def knows(self, mark: str) -> bool:
        """Whether there is such a mark. In an outage that fails closed there is none."""
        try:
            decision = await self._marks.peek(mark)
        except StoreUnavailable:  # the limits themselves will say so
            return False
        return decision.remaining < decision.limit

    async def remember(self, account: str, mark: str, *, is_new: bool) -> None:
        """Set or renew a mark. An account has no more than twenty new ones a day."""
        if not is_new or (await self._newcomers.check(account)).allowed:
            await self._marks.check(mark)
