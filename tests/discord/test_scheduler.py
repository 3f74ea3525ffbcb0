"""The pacer: one asks for all who stand in line, higher priorities first, and nobody waits for what comes too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordEvent, DiscordRateLimited, WebhookGone
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import Granted, Permit, Wait, local_permits
from asgi_ratelimit.discord.routes import Route, route_of
from asgi_ratelimit.discord.scheduler import Call, Pace, Pacer
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import all_of, calls_in_flight, held, passing, rid_of, settled, taken

pytestmark = pytest.mark.anyio

START_US = round(1_700_000_000 * 1e6)


def message(channel: int = 1) -> Route:
    return route_of("POST", f"/channels/{channel}/messages")


CALLBACK = route_of("POST", "/interactions/1/token/callback")


class Desk:
    """A pacer, how often it asked, and what it told."""

    def __init__(self, clock: ManualClock, store: MemoryStore, per_second: int = 50) -> None:
        self.clock, self.store, self.asks, self.told, self.gone = clock, store, 0, list[DiscordEvent](), set[str]()
        self.permits = local_permits(store, "bot")
        self.pacer = Pacer(self, clock, Pace(per_second), self.told.append, self.check)

    def check(self, route: Route) -> None:
        if route.major in self.gone:
            raise WebhookGone(route)

    def take(self, name: str, route: str, major: str, per_second: int) -> Granted | Wait:
        self.asks += 1
        return self.permits.take(name, route, major, per_second)

    def settle(self, permit: Permit, report: CallReport) -> None:
        self.permits.settle(permit, report)

    def sweep(self) -> bool:
        return self.permits.sweep()

    def go(self, call: Call) -> asyncio.Task[Permit]:
        return asyncio.create_task(self.pacer.permit(call))

    def answered(self, permit: Permit, remaining: int = 0, reset_s: float = 1.0, limit: int = 1) -> None:
        self.pacer.settle(permit, CallReport("answered", "bucket", limit, remaining, round(reset_s * 1e6)))

    async def empty(self, route: Route, reset_s: float = 1.0, limit: int = 1) -> None:
        """Use up the bucket of a route."""
        for remaining in reversed(range(limit)):
            self.answered(await self.pacer.permit(Call(route)), remaining, reset_s, limit)


@pytest.fixture
async def desk(clock: ManualClock, store: MemoryStore) -> AsyncIterator[Desk]:
    desk = Desk(clock, store)
    yield desk
    await desk.pacer.aclose()


async def in_turn(desk: Desk, calls: list[Call], step: float = 0.01) -> list[Call]:
    """Let calls have their permits one after the other, each answered at once: in which order they went."""
    order = []

    async def one(call: Call) -> None:
        permit = await desk.pacer.permit(call)
        order.append(call)
        desk.answered(permit)

    await passing(desk.clock, all_of(map(one, calls)), step)
    return order


async def test_calls_go_in_the_order_in_which_they_came(desk: Desk) -> None:
    await desk.empty(message())
    calls = [Call(message()) for _ in range(5)]
    assert await in_turn(desk, calls) == calls


async def test_higher_priorities_go_before_those_that_wait_already(desk: Desk) -> None:
    await desk.empty(message())
    low, urgent, usual = (Call(message(), priority) for priority in (-1, 5, 0))
    first = Call(message())
    assert await in_turn(desk, [first, low, usual, urgent]) == [first, urgent, usual, low]


async def test_a_second_attempt_has_the_place_of_the_first(desk: Desk) -> None:
    again, head, later = (Call(message()) for _ in range(3))
    desk.answered(await desk.pacer.permit(again))
    assert await in_turn(desk, [head, later, again]) == [head, again, later]


async def test_only_the_first_of_a_line_asks(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    before = desk.asks
    waiting = [desk.go(Call(message())) for _ in range(1000)]
    await settled()
    assert desk.asks == before + 1
    for _ in range(9):
        desk.clock.advance(1.0)
        await settled()
    assert desk.asks == before + 1
    await rid_of(*waiting)


async def test_an_answer_wakes_who_waits_for_it_and_without_one_asking_is_bounded(desk: Desk) -> None:
    probe = await desk.pacer.permit(Call(message()))
    before, waiting = desk.asks, [desk.go(Call(message())) for _ in range(100)]
    await settled()
    for _ in range(1000):
        desk.clock.advance(0.01)
        await settled()
    assert desk.asks - before <= 10 / 0.32 + 6, "0.02, 0.04, ... 0.32 s apart, by the first one only"
    desk.answered(probe, remaining=3, limit=4)
    await settled()
    assert sum(task.done() for task in waiting) == 3, "without time passing"
    await rid_of(*waiting)


async def test_what_cannot_be_in_time_is_refused_at_once(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    with pytest.raises(DiscordRateLimited) as refused:
        await desk.pacer.permit(Call(message(), due_us=desk.clock.now_us() + 9_000_000))
    assert (refused.value.cause, refused.value.scope, refused.value.bucket) == ("bucket", "user", "bucket")
    assert refused.value.retry_after == pytest.approx(10.001)
    assert refused.value.route == message()
    assert "POST /channels/{channel_id}/messages" in str(refused.value)


async def test_of_a_line_those_are_refused_whose_turn_comes_too_late(desk: Desk) -> None:
    """A sliding bucket that gives one every second, learned from two answers."""
    for _ in range(2):
        for remaining in (1, 0):
            permit = await passing(desk.clock, desk.pacer.permit(Call(message())))
            desk.answered(permit, remaining, reset_s=1.0 if remaining else 2.0, limit=2)
        desk.clock.advance(1.5)
    due_us = desk.clock.now_us() + 3_500_000
    waiting = [desk.go(Call(message(), due_us=due_us)) for _ in range(20)]
    await settled()
    refused = [task for task in waiting if task.done() and task.exception()]
    assert len(refused) >= 10, "long before their deadline"
    assert all(isinstance(task.exception(), DiscordRateLimited) for task in refused)
    assert refused == waiting[-len(refused) :], "the last ones"
    await rid_of(*waiting)


async def test_who_waits_for_an_answer_that_does_not_come_gives_up_at_his_deadline(desk: Desk) -> None:
    await desk.pacer.permit(Call(message()))
    due_us = desk.clock.now_us() + 500_000
    waiting = all_of(desk.pacer.permit(Call(message(), due_us=due_us)) for _ in range(3))
    with pytest.raises(DiscordRateLimited, match="answers to calls in flight"):
        await passing(desk.clock, waiting)
    assert desk.clock.now_us() <= due_us + 20_000


async def test_other_resources_do_not_wait(desk: Desk) -> None:
    await desk.empty(message(1), reset_s=100.0)
    behind = desk.go(Call(message(1)))
    await settled()
    assert await desk.pacer.permit(Call(message(2)))
    await rid_of(behind)


async def test_the_global_limit_lets_just_so_many_go_in_any_second(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=5)
    at: list[int] = []

    async def one(channel: int) -> None:
        permit = await desk.pacer.permit(Call(message(channel)))
        at.append(clock.now_us())
        desk.answered(permit, remaining=4, limit=5)

    await passing(clock, all_of(map(one, range(23))))
    assert len(at) == 23
    assert all(later - earlier > 1_000_000 for earlier, later in zip(at, at[5:], strict=False))
    assert at[-1] - at[0] < 4_100_000
    await desk.pacer.aclose()


async def test_under_the_global_limit_priorities_hold_across_resources(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    calls = [Call(message(channel), priority) for channel, priority in enumerate((0, 0, 0, 9, 5))]
    order = await in_turn(desk, calls)
    assert [call.priority for call in order] == [0, 0, 9, 5, 0], "the first goes, the second was asking already"
    await desk.pacer.aclose()


async def test_only_one_asks_while_the_global_limit_is_used_up(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    await desk.pacer.permit(Call(message(0)))
    before = desk.asks
    waiting = [desk.go(Call(message(channel))) for channel in range(1, 200)]
    await settled()
    assert desk.asks - before <= 2
    await rid_of(*waiting)
    await desk.pacer.aclose()


async def test_callbacks_go_past_the_global_limit(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    desk.answered(await desk.pacer.permit(Call(message())))
    behind = desk.go(Call(message(2)))
    await settled()
    for number in range(5):
        assert await desk.pacer.permit(Call(route_of("POST", f"/interactions/{number}/token/callback")))
    assert not behind.done()
    await rid_of(behind)
    await desk.pacer.aclose()


async def test_a_global_refusal_stops_everything_for_just_as_long_as_told(desk: Desk) -> None:
    desk.pacer.settle(await desk.pacer.permit(Call(message(1))), CallReport("stopped", retry_us=2_000_000))
    assert await desk.pacer.permit(Call(CALLBACK)), "but not what is exempt"
    assert await taken(desk.clock, desk.pacer.permit(Call(message(2)))) == pytest.approx(2.0, abs=0.011)


async def test_a_wait_is_told_once_however_often_it_is_prolonged(desk: Desk) -> None:
    await desk.empty(message(), reset_s=1.0)
    call = Call(message())
    for _ in range(3):
        permit = await passing(desk.clock, desk.pacer.permit(call))
        desk.pacer.settle(permit, CallReport("limited", "bucket", 1, 0, 1_000_000, 1_000_000))
    waits = [event for event in desk.told if event.kind == "wait" and event.route.endswith("[channels/1]")]
    assert [(event.cause, event.bucket) for event in waits] == [("bucket", "bucket")]
    assert waits[0].seconds == pytest.approx(1.001)


async def test_the_view_of_who_waits_says_for_what(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    waiting = [desk.go(Call(message())) for _ in range(3)]
    await settled()
    (line,) = desk.pacer.waiting
    assert line.route == "POST /channels/{channel_id}/messages [channels/1]"
    assert (line.calls, line.cause, line.bucket, line.limit, line.remaining) == (3, "bucket", "bucket", 1, 0)
    assert line.seconds == pytest.approx(10.001)
    await rid_of(*waiting)
    assert desk.pacer.waiting == []


async def test_those_who_wait_in_vain_are_told_when_they_are_woken(desk: Desk) -> None:
    await desk.empty(message(1), reset_s=100.0)
    await desk.empty(message(2), reset_s=100.0)
    waiting = [desk.go(Call(message(1))) for _ in range(3)]
    others = [desk.go(Call(message(2))) for _ in range(3)]
    await settled()
    desk.gone.add("channels/1")
    desk.pacer.wake("channels/1")
    await settled()
    assert [type(task.exception()) for task in waiting] == [WebhookGone] * 3
    assert not any(task.done() for task in others)
    await rid_of(*others)


async def test_closing_ends_every_wait(desk: Desk) -> None:
    await desk.empty(message(), reset_s=100.0)
    waiting = [desk.go(Call(message())) for _ in range(3)]
    await settled()
    await desk.pacer.aclose()
    await settled()
    assert [str(task.exception()) for task in waiting] == ["Cannot send a request, as the client has been closed."] * 3
    with pytest.raises(RuntimeError, match="closed"):
        await desk.pacer.permit(Call(message()))


async def test_nothing_is_swept_when_nothing_is_left(desk: Desk, clock: ManualClock, store: MemoryStore) -> None:
    await desk.empty(message())
    assert not desk.pacer.is_idle
    for _ in range(10):
        clock.advance(30.0)
        await settled()
    assert desk.pacer.is_idle
    assert (calls_in_flight(store), held(store)) == (0, 0)
    assert not clock._timers
    await desk.pacer.permit(Call(message()))
    assert not desk.pacer.is_idle
