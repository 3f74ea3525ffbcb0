"""A queue serves by priority, then by arrival. A waiter that leaves, at whatever moment, delays no other."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit import FixedWindow, Limit, Limiter, MemoryStore, SlidingWindow, TokenBucket
from asgi_ratelimit.testing import ManualClock
from asgi_ratelimit.waiting import Waiter, WaitQueue
from tests.support.asgi import settle

pytestmark = pytest.mark.anyio

SLOT_US = 1_000


def new_queue() -> WaitQueue[int]:
    """Its replies are microseconds to wait; every waiter takes a slot."""
    return WaitQueue(ManualClock(), lambda wait_us, ahead: wait_us + ahead * SLOT_US)


def queue_of(count: int) -> tuple[WaitQueue[int], list[Waiter]]:
    queue = new_queue()
    return queue, [queue.enter((0, number), None) for number in range(count)]


def is_called(waiter: Waiter) -> bool:
    return waiter.turn.done() and waiter.turn.result()


async def test_the_first_waiter_is_called_at_once_and_the_rest_by_rank() -> None:
    queue, waiters = queue_of(3)
    waiters += [queue.enter((-5, 3), None), queue.enter((-5, 4), None)]
    order = []
    while len(queue):
        head = next(each for each in waiters if is_called(each) and each not in order)
        order.append(head)
        queue.leave(head)
    assert [waiters.index(each) for each in order] == [0, 3, 4, 1, 2]


async def test_a_waiter_that_leaves_before_its_turn_leaves_the_others_in_place() -> None:
    queue, waiters = queue_of(4)
    queue.leave(waiters[2])
    assert [queue.position(each) for each in (waiters[0], waiters[1], waiters[3])] == [0, 1, 2]
    queue.leave(waiters[2])
    assert len(queue) == 3, "a second time is nothing"


async def test_cancelled_and_late_waiters_are_passed_over() -> None:
    queue, waiters = queue_of(4)
    waiters[1].turn.cancel()
    waiters[2].turn.set_result(False)
    queue.leave(waiters[0])
    assert is_called(waiters[3])
    for each in waiters:
        queue.leave(each)
    assert len(queue) == 0


async def test_a_waiter_that_leaves_right_after_its_call_calls_the_next() -> None:
    queue, waiters = queue_of(3)
    queue.leave(waiters[0])
    queue.leave(waiters[1])
    assert is_called(waiters[2])


async def test_each_position_has_an_earliest_moment_once_a_reply_shows_it() -> None:
    queue, _ = queue_of(1)
    assert queue.earliest_us(3, 0) == 0
    queue.note(500, 0)
    assert [queue.earliest_us(ahead, 0) for ahead in range(3)] == [500, 1_500, 2_500]
    assert queue.earliest_us(0, 10**9) == 10**9, "never in the past"


async def test_waiters_that_will_be_too_late_are_called_off_as_soon_as_a_reply_shows_it() -> None:
    queue = new_queue()
    waiters = [queue.enter((0, number), due) for number, due in enumerate((None, 900, 2_000, None, 2_400))]
    queue.note(500, 0)
    assert [each.turn.done() for each in waiters] == [True, True, True, False, True]
    assert not any(is_called(waiters[place]) for place in (1, 2, 4))


async def test_without_an_estimate_only_the_deadline_itself_ends_a_wait() -> None:
    clock = ManualClock()
    queue: WaitQueue[int] = WaitQueue(clock)
    queue.enter((0, 0), None)
    waiter = queue.enter((0, 1), clock.now_us())
    queue.note(500, clock.now_us())
    assert not waiter.turn.done()
    waiting = queue.wait_turn(waiter)
    waiter.turn.get_loop().call_soon(clock.advance, 0.001)
    assert await waiting is False


async def test_dismissed_waiters_each_get_an_error_of_their_own() -> None:
    queue, waiters = queue_of(3)
    queue.dismiss("over")
    errors = [each.turn.exception() for each in waiters[1:]]
    assert [str(error) for error in errors] == ["over", "over"]
    assert errors[0] is not errors[1]


LIMITS = [TokenBucket("5/10s"), TokenBucket("5/10s", burst=2), SlidingWindow("3/10s"), FixedWindow("3/10s")]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@pytest.mark.parametrize("timeout", [4.0, 10.0, 25.0])
async def test_whoever_is_refused_at_once_would_have_been_too_late(limit: Limit, timeout: float) -> None:
    clock = ManualClock()
    limiter, patient = (Limiter(limit, store=MemoryStore(clock=clock)) for _ in range(2))
    for _ in range(limit.capacity):
        for one in (limiter, patient):
            await one.acquire("a")
        clock.advance(0.5)
    served: list[float] = []

    async def wait_for_ever() -> None:
        await patient.acquire("a")
        served.append(clock.now_us() / 1e6 - start)

    start = clock.now_us() / 1e6
    everybody = [asyncio.create_task(wait_for_ever()) for _ in range(30)]
    waiters = [asyncio.create_task(limiter.acquire("a", timeout=timeout)) for _ in range(30)]
    await settle()
    refused_at_once = sum(task.done() and task.exception() is not None for task in waiters)
    for _ in range(400):
        clock.advance(0.25)
        await settle()
    in_time = sum(moment <= timeout for moment in served)
    assert refused_at_once <= 30 - in_time
    assert sum(task.exception() is None for task in waiters) == in_time
    assert len(served) == 30
    assert refused_at_once >= 30 - in_time - limit.capacity
    del everybody


async def test_a_soft_limit_makes_nobody_wait() -> None:
    clock = ManualClock()
    limiter = Limiter(["1/s", TokenBucket("1/hour", enforce=False)], store=MemoryStore(clock=clock))
    assert (await limiter.try_acquire("a")).over == ()
    waiting = [asyncio.create_task(limiter.acquire("a", timeout=5)) for _ in range(3)]
    for _ in range(3):
        for _ in range(20):
            await asyncio.sleep(0)
        clock.advance(1)
    decisions = [await task for task in waiting]
    assert all(decision.allowed and decision.over for decision in decisions)
