"""A quota in memory goes by the calendar, though the store's clock counts from the start of the machine."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.limits import Quota
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()


class BootClock(ManualClock):
    """As the system's clock: it counts from another moment than the epoch. The system's time may be set."""

    def __init__(self) -> None:
        super().__init__(13_000.0)
        self.epoch = NOON - 13_000.0

    def wall(self) -> float:
        return self.epoch + super().wall()


async def test_the_wait_ends_at_midnight() -> None:
    clock = BootClock()
    limiter = Limiter(Quota("2/day"), store=MemoryStore(clock=clock))
    first = await limiter.try_acquire("a", 2)
    refused = await limiter.try_acquire("a")
    assert (first.reset_after, refused.retry_after) == (43_200.0, 43_200.0)
    clock.advance(43_199.999999)
    assert not (await limiter.try_acquire("a")).allowed
    clock.advance(0.000001)
    assert (await limiter.try_acquire("a")).reset_after == 86_400.0


async def test_the_systems_time_may_be_set() -> None:
    clock = BootClock()
    limiter = Limiter(Quota("2/day"), store=MemoryStore(clock=clock))
    await limiter.try_acquire("a", 2)
    clock.epoch += 3_600
    assert (await limiter.try_acquire("a")).retry_after == 39_600.0
    clock.advance(39_600.0)
    assert (await limiter.try_acquire("a")).allowed


async def test_a_small_error_of_the_measurement_moves_no_boundary() -> None:
    clock = BootClock()
    limiter = Limiter(Quota("2/day"), store=MemoryStore(clock=clock))
    await limiter.try_acquire("a", 2)
    clock.epoch += 0.25
    assert (await limiter.try_acquire("a")).retry_after == 43_200.0


async def test_the_systems_own_clock() -> None:
    limiter = Limiter(Quota("2/day"), store=MemoryStore())
    await limiter.try_acquire("a", 2)
    refused = await limiter.try_acquire("a")
    boundary = SystemClock().wall() + refused.retry_after
    assert boundary % 86_400 == pytest.approx(0, abs=60) or boundary % 86_400 == pytest.approx(86_400, abs=60)


async def test_a_decision_keeps_its_numbers_in_another_process() -> None:
    limiter = Limiter(Quota("2/day"), store=MemoryStore(clock=BootClock()))
    decision = pickle.loads(pickle.dumps(await limiter.try_acquire("a")))
    assert (decision.remaining, decision.reset_after) == (1, 43_200.0)
