"""Turns: the line of requests, and how many of them begin in each turn of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit.load.turns import Turn, TurnLine

pytestmark = pytest.mark.anyio


class Two:
    per_turn = 2


def line(turns: TurnLine, *classes: int) -> list[Turn]:
    return [turns.wait(asyncio.get_running_loop(), one) for one in classes]


def begun(line: list[Turn]) -> list[int]:
    return [place for place, turn in enumerate(line) if turn.done() and not turn.cancelled() and turn.result()]


def shed(line: list[Turn]) -> list[int]:
    return [place for place, turn in enumerate(line) if turn.done() and not turn.cancelled() and not turn.result()]


async def test_so_many_begin_in_each_turn_in_their_order() -> None:
    waiting = line(TurnLine(Two()), 1, 3, 2, 1, 1)
    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append(begun(waiting))
    assert seen == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


async def test_no_request_passes_those_in_the_line_unless_it_is_important() -> None:
    turns, loop = TurnLine(Two()), asyncio.get_running_loop()
    assert [turns.begins(loop) for _ in range(3)] == [True, True, False]
    waiting = line(turns, 1)
    assert not turns.begins(loop)
    assert turns.begins(loop, at_once=True)
    await asyncio.sleep(0)
    assert begun(waiting) == [0]
    for _ in range(3):
        await asyncio.sleep(0)
    assert turns.begins(loop)


async def test_what_begins_at_once_counts_for_the_next_turns() -> None:
    turns, loop = TurnLine(Two()), asyncio.get_running_loop()
    for _ in range(4):
        turns.begins(loop, at_once=True)
    waiting = line(turns, 1)
    await asyncio.sleep(0)
    assert begun(waiting) == []
    await asyncio.sleep(0)
    assert begun(waiting) == [0]


async def test_the_least_important_are_shed_first_and_of_those_the_oldest() -> None:
    turns = TurnLine(Two())
    waiting = line(turns, 1, 2, 3, 2, 3)
    turns.shed(3)
    assert shed(waiting) == [1, 2, 4]
    turns.shed(-5)
    await asyncio.sleep(0)
    assert begun(waiting) == [0, 3]


async def test_a_client_that_has_left_takes_no_turn() -> None:
    turns = TurnLine(Two())
    waiting = line(turns, 1, 1, 1, 3)
    waiting[0].cancel()
    waiting[3].cancel()
    turns.shed(1)
    await asyncio.sleep(0)
    assert begun(waiting) == [1, 2]
