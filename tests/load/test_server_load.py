"""server_load, and the timer that measures it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.load import LoadShedMiddleware, server_load
from asgi_ratelimit.load.loop_lag import EVERY_S, LoopLag, Loops
from tests.load.conftest import HeldApp
from tests.support.asgi import ask
from tests.support.virtual_loop import VirtualLoop


def noted(*samples: tuple[float, float]) -> LoopLag:
    lag = LoopLag()
    for elapsed, worked in samples:
        lag.note(elapsed, worked)
    return lag


def test_a_loop_that_has_nothing_to_do() -> None:
    lag = noted(*[(EVERY_S + 0.001, 0.0)] * 100)
    assert (lag.load, lag.seconds, lag.latest) == (0.0, 0.0, 0.0)


def test_a_loop_that_works_half_of_the_time() -> None:
    assert noted(*[(EVERY_S, EVERY_S / 2)] * 200).load == pytest.approx(0.5, abs=0.001)


def test_a_loop_that_is_late_is_busy_though_it_does_not_work() -> None:
    lag = noted(*[(EVERY_S + 0.1, 0.0)] * 50)
    assert lag.load > 0.99
    assert lag.seconds == pytest.approx(0.0985, abs=0.001)


@given(st.lists(st.tuples(st.floats(0, 1_000), st.floats(-1, 1_000)), max_size=50))
def test_it_is_from_0_to_1(samples: list[tuple[float, float]]) -> None:
    lag = noted(*samples)
    assert 0.0 <= lag.load <= 1.0
    assert lag.seconds >= 0.0


def test_a_loop_that_is_kept_busy_is_measured_without_a_middleware() -> None:
    loop, loops, loads = VirtualLoop(), Loops(), list[float]()

    async def work() -> None:
        for _ in range(200):
            loads.append(loops.of(loop).load)
            loop.work(0.03)
            await asyncio.sleep(0.001)

    loop.run(work())
    assert loads[0] == 0.0
    assert loads[-1] > 0.9


def test_the_timer_ends_if_the_load_is_no_longer_wanted() -> None:
    loop, loops = VirtualLoop(), Loops()

    async def forget() -> None:
        lag = loops.of(loop)
        loop.work(0.5)
        await asyncio.sleep(1.0)
        assert lag.is_running
        await asyncio.sleep(2.5)
        assert not lag.is_running
        assert lag.load == 0.0
        loops.of(loop)
        assert lag.is_running

    loop.run(forget())


@pytest.mark.anyio
async def test_one_value_for_all_callers_of_a_loop() -> None:
    assert server_load() == server_load()
    assert 0.0 <= server_load() <= 1.0


@pytest.mark.anyio
async def test_it_is_1_while_requests_are_shed(held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, priority=lambda conn: 3)
    tasks = [asyncio.ensure_future(ask(app)) for _ in range(40)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server_load() < 1.0
    store.clock.advance(0.1)  # type: ignore[attr-defined]
    assert (await ask(app)).status == 503
    assert server_load() == 1.0
    held.release()
    await asyncio.gather(*tasks)


def test_a_thread_without_a_loop_gets_the_value_of_the_busiest_one() -> None:
    found: list[float] = []

    async def main() -> None:
        server_load()
        thread = threading.Thread(target=lambda: found.append(server_load()))
        thread.start()
        thread.join()

    asyncio.run(main())
    assert 0.0 <= found[0] <= 1.0
