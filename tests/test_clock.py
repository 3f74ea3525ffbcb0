"""Clocks: the machine's, and the one that stands still."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


async def test_the_system_clock_never_wakes_early() -> None:
    clock = SystemClock()
    start = clock.now_us()
    await clock.sleep(0.005)
    assert clock.now_us() - start >= 5_000


async def test_the_system_clock_does_not_go_back() -> None:
    moments = [SystemClock().now_us() for _ in range(1_000)]
    assert moments == sorted(moments)


async def test_a_manual_clock_stands_still_and_counts_whole_microseconds() -> None:
    clock = ManualClock(start=100.0)
    assert clock.now_us() == 100_000_000
    clock.advance(0.0000014)
    assert clock.now_us() == 100_000_001
    assert clock.wall() == 100.000001
    clock.advance(-100)
    assert clock.now_us() == 1


async def test_sleepers_wake_when_they_are_due_and_in_order() -> None:
    clock = ManualClock()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2, 0)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert woken == [0]
    clock.advance(2.5)
    await asyncio.gather(*tasks[1:3])
    assert woken == [0, 1, 2]
    clock.advance(0.5)
    await asyncio.gather(*tasks)
    assert woken == [0, 1, 2, 3]


async def test_a_cancelled_timer_does_not_fire() -> None:
    clock = ManualClock()
    fired: list[int] = []
    clock.call_later(1, lambda: fired.append(1)).cancel()
    clock.call_later(1, lambda: fired.append(2))
    clock.advance(1)
    await asyncio.sleep(0)
    assert fired == [2]
