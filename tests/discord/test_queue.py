"""A queue serves by priority, then by arrival; who leaves, at whatever moment, holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit.discord.permits.bucket import FIXED, SLIDING
from asgi_ratelimit.discord.permits.memory import AWAIT_RESPONSE, SECOND_US, Wait, WaitCause
from asgi_ratelimit.discord.queue import Queue, Turn

pytestmark = pytest.mark.anyio


def turn(number: int, priority: int = 0, due_us: int | None = None) -> Turn:
    return Turn((-priority, number), due_us, asyncio.get_running_loop().create_future())


def told(why: WaitCause, wait_us: int, kind: int = 0, limit: int = 2, slot_us: int = 1_000) -> Wait:
    return Wait("bucket", limit, 0, 0, kind, slot_us, 0, why, wait_us)


def queue_of(*turns: Turn, per_second: int = 50) -> Queue:
    queue = Queue(per_second)
    for each in turns:
        queue.enter(each)
    return queue


def is_called(turn: Turn) -> bool:
    return turn.called.done() and turn.called.result()


async def test_the_first_to_come_is_called_at_once_and_the_rest_in_their_order() -> None:
    turns = [turn(0), turn(1), turn(2), turn(3, priority=5), turn(4, priority=5)]
    queue = queue_of(*turns)
    order = []
    while len(queue):
        head = next(each for each in turns if is_called(each) and each not in order)
        order.append(head)
        queue.leave(head)
    assert [turns.index(each) for each in order] == [0, 3, 4, 1, 2]


async def test_one_who_leaves_before_his_turn_leaves_the_others_in_place() -> None:
    turns = [turn(number) for number in range(4)]
    queue = queue_of(*turns)
    queue.leave(turns[2])
    assert [queue.place_of(each) for each in (turns[0], turns[1], turns[3])] == [0, 1, 2]
    queue.leave(turns[2])
    assert len(queue) == 3, "a second time is nothing"


async def test_the_cancelled_and_the_late_are_passed_over() -> None:
    turns = [turn(number) for number in range(4)]
    queue = queue_of(*turns)
    turns[1].called.cancel()
    turns[2].called.set_result(False)
    queue.leave(turns[0])
    assert is_called(turns[3])
    for each in turns:
        queue.leave(each)
    assert len(queue) == 0


async def test_one_who_leaves_right_after_being_called_calls_the_next() -> None:
    turns = [turn(number) for number in range(3)]
    queue = queue_of(*turns)
    queue.leave(turns[0])
    queue.leave(turns[1])
    assert is_called(turns[2])


@pytest.mark.parametrize(
    ("lease", "earliest"),
    [
        (told("bucket", 500, FIXED), [500, 500, 1_500, 1_500, 2_500]),
        (told("bucket", 500, SLIDING), [500, 1_500, 2_500, 3_500, 4_500]),
        (told("bucket", 500), [500] * 5),
        (told("stopped", 500, SLIDING), [500] * 5),
        (told("global", 500), [500, 500, 500 + SECOND_US, 500 + SECOND_US, 500 + 2 * SECOND_US]),
        (told("answer", AWAIT_RESPONSE), [0] * 5),
    ],
)
async def test_each_place_has_an_earliest_moment_as_far_as_it_is_known(lease: Wait, earliest: list[int]) -> None:
    queue = queue_of(turn(0), per_second=2)
    assert queue.earliest_us(3, 0) == 0
    queue.heard(lease, 0)
    assert [queue.earliest_us(ahead, 0) for ahead in range(5)] == earliest
    assert queue.earliest_us(0, 10**9) == 10**9, "never in the past"


async def test_those_who_will_be_too_late_are_told_as_soon_as_that_is_known() -> None:
    turns = [turn(0), turn(1, due_us=900), turn(2, due_us=2_000), turn(3), turn(4, due_us=2_400)]
    queue = queue_of(*turns)
    queue.heard(told("bucket", 500, SLIDING), 0)
    assert [each.called.done() for each in turns] == [True, True, True, False, True]
    assert not any(is_called(turns[place]) for place in (1, 2, 4))


async def test_dismissed_waiters_each_get_an_error_of_their_own() -> None:
    turns = [turn(number) for number in range(3)]
    queue = queue_of(*turns)
    queue.dismiss("over")
    errors = [each.called.exception() for each in turns[1:]]
    assert [str(error) for error in errors] == ["over", "over"]
    assert errors[0] is not errors[1]
