"""Clocks: the machine's, and the one that stands still."""

from __future__ import annotations

import asyncio
import time

import pytest

from asgi_ratelimit.clock import SystemClock, _steady_clock
from asgi_ratelimit.redis.fallback import ServerClock
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


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_the_system_clock_goes_on_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now = SystemClock().now_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_system_without_such_a_clock_uses_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(time, "clock_gettime_ns", refuse)
    assert _steady_clock() is time.monotonic_ns
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert _steady_clock() is time.monotonic_ns


@pytest.mark.parametrize("clock", [SystemClock(), ServerClock()], ids=["system", "server"])
async def test_what_a_suspended_machine_has_slept_through_is_not_slept_again(
    clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop's clock stands still meanwhile. The store's does not."""
    now_ns, pauses = [10**15], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now_ns[0] += 3_600_000_000_000  # the machine is suspended for an hour

    monkeypatch.setattr(SystemClock, "now_ns", staticmethod(lambda: now_ns[0]))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await clock.sleep(1_800)
    assert len(pauses) == 1
    assert pauses[0] <= 10
