"""A kind of limit of one's own, from public names alone: in memory it works like any other, in Redis it is an error."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.typing.user_code.extensions import Cooldown


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


class Every(Cooldown):
    """A kind with a field of its own, set as in any class."""

    def __init__(self, rate: str, weekday: int) -> None:
        super().__init__(rate)
        self.weekday = weekday


def test_a_field_of_ones_own_is_part_of_the_limit() -> None:
    assert Every("1/10s", 1) == Every("1/10s", 1) != Every("1/10s", 2)
    assert Every("1/10s", 1).identity != Every("1/10s", 2).identity
    assert len({Every("1/10s", day) for day in (1, 2, 1)}) == 2
    Limiter([Every("1/10s", 1), Every("1/10s", 2)])


@pytest.mark.parametrize("capacity", [0, -3, "x", 1.5, True])
def test_its_capacity_is_checked(capacity: Any) -> None:
    with pytest.raises(ValueError, match="capacity must be a whole number of at least 1"):
        Cooldown("1/10s", capacity)


def test_redis_cannot_keep_it_and_says_so_when_the_limiter_is_made() -> None:
    with pytest.raises(ValueError, match=r"Cooldown\(\"1/10s\"\) cannot be kept in Redis"):
        Limiter(Cooldown("1/10s"), store=RedisStore("redis://localhost:6379"))
