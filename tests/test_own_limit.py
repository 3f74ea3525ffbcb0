"""A kind of limit of one's own, from public names alone: in memory it works like any other, in Redis it is an error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from asgi_ratelimit import Limit, Limiter, MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock


@dataclass(frozen=True, init=False, repr=False)
class Cooldown(Limit):
    """One call of any cost, then none for a period. The state is the end of the pause."""

    def take(self, state: int | None, now_us: int, cost: int) -> int | None:
        return now_us + self.rate.period_us if state is None or self.is_full(state, now_us) else None

    def give_back(self, state: int | None, now_us: int, cost: int, charged: int, charged_at: int) -> int | None:
        return None if state == charged else state

    def measure(self, state: int | None, now_us: int, cost: int) -> tuple[int, int, int]:
        if state is None or self.is_full(state, now_us):
            return self.capacity, 0, 0
        return 0, state - now_us, state - now_us

    def is_full(self, state: int, now_us: int) -> bool:
        return state <= now_us


@pytest.mark.anyio
async def test_it_limits_alone_and_in_a_list(store: MemoryStore, clock: ManualClock) -> None:
    limiter = Limiter([Cooldown("1/10s"), "100/minute"], store=store)
    first = await limiter.try_acquire("a")
    assert (first.allowed, first.limit, first.remaining) == (True, 1, 0)
    refused = await limiter.try_acquire("a")
    assert (refused.allowed, refused.retry_after) == (False, 10.0)
    assert (await limiter.try_acquire("b")).allowed
    await limiter.refund(first)
    assert (await limiter.try_acquire("a")).allowed
    clock.advance(10)
    assert (await limiter.try_acquire("a")).allowed


def test_limits_of_a_new_kind_are_values() -> None:
    assert Cooldown("1/10s") == Cooldown("1/10s") != Cooldown("1/20s")
    assert repr(Cooldown("1/10s", name="slow")) == "Cooldown(\"1/10s\", name='slow')"


def test_redis_cannot_keep_it_and_says_so_when_the_limiter_is_made() -> None:
    with pytest.raises(ValueError, match=r"Cooldown\(\"1/10s\"\) cannot be kept in Redis"):
        Limiter(Cooldown("1/10s"), store=RedisStore("redis://localhost:6379"))
