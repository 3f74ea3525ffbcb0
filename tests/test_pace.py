"""Bulk work at a steady pace."""

from __future__ import annotations

import asyncio
import builtins
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore, StoreUnavailable, pace
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


async def double(number: int) -> int:
    return 2 * number


async def drive(clock: ManualClock, work: Any) -> Any:
    """Run a coroutine to its end, advancing the clock whenever it waits."""
    task = asyncio.ensure_future(work)
    while not task.done():
        for _ in range(10):
            await asyncio.sleep(0)
        clock.advance(0.25)
    return await task


async def collect(outcomes: AsyncIterator[Any]) -> list[Any]:
    return [outcome async for outcome in outcomes]


async def test_every_item_has_an_outcome() -> None:
    outcomes = await collect(pace(range(5), double, limit="1000/s"))
    assert [(o.item, o.result, o.error, o.ok) for o in outcomes] == [(i, 2 * i, None, True) for i in range(5)]


async def test_it_keeps_to_the_limit() -> None:
    clock = ManualClock()
    start, moments = clock.wall(), []

    async def note(_: int) -> None:
        moments.append(clock.wall() - start)

    await drive(clock, collect(pace(range(10), note, limit="2/s", store=MemoryStore(clock=clock))))
    assert moments == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


async def test_each_key_has_a_bucket_of_its_own_and_its_items_keep_their_order() -> None:
    clock = ManualClock()
    start, moments = clock.wall(), []

    async def note(item: str) -> None:
        moments.append((item, clock.wall() - start))

    items = ["a1", "a2", "a3", "b1", "b2"]
    await drive(
        clock,
        collect(
            pace(items, note, limit="1/s", concurrency=5, key=lambda item: item[0], store=MemoryStore(clock=clock))
        ),
    )
    assert moments == [("a1", 0), ("b1", 0), ("a2", 1.0), ("b2", 1.0), ("a3", 2.0)]


async def test_an_item_whose_key_cannot_be_told_is_an_outcome() -> None:
    channels = {1: "one", 3: "three"}
    outcomes = await collect(pace([1, 2, 3], double, limit="1000/s", key=channels.__getitem__))
    assert [(outcome.result, type(outcome.error)) for outcome in outcomes] == [
        (2, type(None)),
        (None, KeyError),
        (6, type(None)),
    ]


async def test_what_is_done_is_told_while_the_next_item_waits_for_its_turn() -> None:
    clock = ManualClock()
    outcomes = pace(range(3), double, limit="1/h", concurrency=2, store=MemoryStore(clock=clock))
    async with asyncio.timeout(5):
        assert (await anext(outcomes)).result == 0
    await outcomes.aclose()


async def test_without_a_limit_only_the_concurrency_bounds_it() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    outcomes = await collect(pace(range(2000), work, limit=None, concurrency=7))
    assert sorted(outcome.result for outcome in outcomes) == list(range(2000))
    assert most == 7


async def test_a_store_that_fails_ends_the_run() -> None:
    limiter = Limiter("1000/s")

    async def acquire(key: str) -> None:
        raise StoreUnavailable("gone")

    limiter.acquire = acquire  # type: ignore[assignment, method-assign]
    with pytest.raises(StoreUnavailable):
        await collect(pace(range(3), double, limit=limiter, concurrency=2))


async def test_a_failing_item_is_an_outcome_and_not_the_end() -> None:
    async def fail_on_two(number: int) -> int:
        if number == 2:
            raise LookupError("no such channel")
        return number

    outcomes = await collect(pace(range(5), fail_on_two, limit="1000/s"))
    assert [o.ok for o in outcomes] == [True, True, False, True, True]
    assert isinstance(outcomes[2].error, LookupError)


async def test_as_many_run_at_a_time_as_asked_for() -> None:
    running = most = 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await collect(pace(range(20), work, limit="1000/s", concurrency=4))
    assert most == 4


async def test_endless_and_asynchronous_items_are_taken_one_by_one() -> None:
    taken: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    outcomes = pace(numbers(), double, limit="1000/s")
    assert [(await anext(outcomes)).result for _ in range(3)] == [0, 2, 4]
    await outcomes.aclose()
    assert taken == [0, 1, 2]


async def test_leaving_the_loop_cancels_what_is_under_way() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> None:
        try:
            if number:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    outcomes = pace(range(9), work, limit="1000/s", concurrency=3)
    await anext(outcomes)
    await outcomes.aclose()
    assert sorted(cancelled) == [1, 2]


async def test_a_limiter_is_shared_with_others() -> None:
    clock = ManualClock()
    limiter = Limiter("3/h", store=MemoryStore(clock=clock))
    await limiter.acquire("me")
    outcomes = pace(range(2), double, limit=limiter, key="me")
    assert len(await collect(outcomes)) == 2
    assert (await limiter.peek("me")).remaining == 0


async def test_it_draws_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    await collect(pace([1, 2, 3], double, limit="1000/s", progress=True))
    assert "3/3" in capsys.readouterr().err


async def test_without_tqdm_it_says_which_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tqdm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'asgi-ratelimit-discord\[progress\]'"):
        await collect(pace([1], double, limit="1000/s", progress=True))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None])
async def test_a_bad_concurrency_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="concurrency must be a whole number of at least 1"):
        await collect(pace([1], double, limit="1/s", concurrency=bad))
