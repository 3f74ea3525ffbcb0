"""The scheduler: only the head of a queue checks, higher priorities go first, and late calls are refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordEvent, DiscordRateLimited, WebhookGone
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, FIXED, SLIDING, CallReport
from asgi_ratelimit.discord.permits.memory import SECOND_US, Granted, Permit, Wait, WaitCause, local_permits
from asgi_ratelimit.discord.routes import Route, route_of
from asgi_ratelimit.discord.scheduler import Call, CallLimits, Scheduler, estimate_us
from asgi_ratelimit.discord.scopes import Scopes
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import all_of, calls_in_flight, held, passing, rid_of, settled, taken

pytestmark = pytest.mark.anyio

START_US = round(1_700_000_000 * 1e6)


def message(channel: int = 1) -> Route:
    return route_of("POST", f"/channels/{channel}/messages")


CALLBACK = route_of("POST", "/interactions/1/token/callback")


class Desk:
    """A scheduler, the number of its checks, and its events."""

    def __init__(self, clock: ManualClock, store: MemoryStore, per_second: int = 50) -> None:
        self.clock, self.store, self.checks, self.events, self.gone = clock, store, 0, list[DiscordEvent](), set[str]()
        self.permits = local_permits(store, "bot")
        self.scheduler = Scheduler(self, clock, CallLimits(per_second), self.events.append, self.check, Scopes())

    def check(self, route: Route) -> None:
        if route.major in self.gone:
            raise WebhookGone(route)

    def take(
        self, name: str, route: str, major: str, per_second: int, spare: int = 0, together: bool = False
    ) -> Granted | Wait:
        self.checks += 1
        return self.permits.take(name, route, major, per_second, spare, together)

    def settle(self, permit: Permit, report: CallReport) -> None:
        self.permits.settle(permit, report)

    def sweep(self) -> float | None:
        return self.permits.sweep()

    def go(self, call: Call) -> asyncio.Task[Permit]:
        return asyncio.create_task(self.scheduler.permit(call))

    def answered(self, permit: Permit, remaining: int = 0, reset_s: float = 1.0, limit: int = 1) -> None:
        self.scheduler.settle(permit, CallReport("answered", "bucket", limit, remaining, round(reset_s * 1e6)))

    async def empty(self, route: Route, reset_s: float = 1.0, limit: int = 1) -> None:
        """Use up the bucket of a route."""
        for remaining in reversed(range(limit)):
            self.answered(await self.scheduler.permit(Call(route)), remaining, reset_s, limit)


@pytest.fixture
async def desk(clock: ManualClock, store: MemoryStore) -> AsyncIterator[Desk]:
    desk = Desk(clock, store)
    yield desk
    await desk.scheduler.aclose()


async def in_turn(desk: Desk, calls: list[Call], step: float = 0.01) -> list[Call]:
    """Let calls have their permits one after the other, each answered at once: in which order they went."""
    order = []

    async def one(call: Call) -> None:
        permit = await desk.scheduler.permit(call)
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
    desk.answered(await desk.scheduler.permit(again))
    assert await in_turn(desk, [head, later, again]) == [head, again, later]


async def test_only_the_head_of_a_queue_checks(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    before = desk.checks
    waiting = [desk.go(Call(message())) for _ in range(1000)]
    await settled()
    assert desk.checks == before + 1
    for _ in range(9):
        desk.clock.advance(1.0)
        await settled()
    assert desk.checks == before + 1
    await rid_of(*waiting)


async def test_a_response_wakes_waiting_calls_and_without_one_the_checks_are_bounded(desk: Desk) -> None:
    probe = await desk.scheduler.permit(Call(message()))
    before, waiting = desk.checks, [desk.go(Call(message())) for _ in range(100)]
    await settled()
    for _ in range(1000):
        desk.clock.advance(0.01)
        await settled()
    assert desk.checks - before <= 10 / 0.32 + 6, "0.02, 0.04, ... 0.32 s apart, by the first one only"
    desk.answered(probe, remaining=3, limit=4)
    await settled()
    assert sum(task.done() for task in waiting) == 3, "without time passing"
    await rid_of(*waiting)


async def test_a_call_that_cannot_be_in_time_is_refused_at_once(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    with pytest.raises(DiscordRateLimited) as refused:
        await desk.scheduler.permit(Call(message(), due_us=desk.clock.now_us() + 9_000_000))
    assert (refused.value.cause, refused.value.scope, refused.value.bucket) == ("bucket", "user", "bucket")
    assert refused.value.retry_after == pytest.approx(10.001)
    assert refused.value.route == message()
    assert "POST /channels/{channel_id}/messages" in str(refused.value)


async def test_calls_of_a_queue_are_refused_if_their_turn_comes_too_late(desk: Desk) -> None:
    """A sliding bucket that gives one every second, learned from two answers."""
    for _ in range(2):
        for remaining in (1, 0):
            permit = await passing(desk.clock, desk.scheduler.permit(Call(message())))
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


async def test_a_call_waiting_for_a_response_that_does_not_come_gives_up_at_its_deadline(desk: Desk) -> None:
    await desk.scheduler.permit(Call(message()))
    due_us = desk.clock.now_us() + 500_000
    waiting = all_of(desk.scheduler.permit(Call(message(), due_us=due_us)) for _ in range(3))
    with pytest.raises(DiscordRateLimited, match="answers to calls in flight"):
        await passing(desk.clock, waiting)
    assert desk.clock.now_us() <= due_us + 20_000


async def test_other_resources_do_not_wait(desk: Desk) -> None:
    await desk.empty(message(1), reset_s=100.0)
    behind = desk.go(Call(message(1)))
    await settled()
    assert await desk.scheduler.permit(Call(message(2)))
    await rid_of(behind)


async def test_the_global_limit_lets_just_so_many_go_in_any_second(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=5)
    at: list[int] = []

    async def one(channel: int) -> None:
        permit = await desk.scheduler.permit(Call(message(channel)))
        at.append(clock.now_us())
        desk.answered(permit, remaining=4, limit=5)

    await passing(clock, all_of(map(one, range(23))))
    assert len(at) == 23
    assert all(later - earlier > 1_000_000 for earlier, later in zip(at, at[5:], strict=False))
    assert at[-1] - at[0] < 4_100_000
    await desk.scheduler.aclose()


async def test_under_the_global_limit_priorities_hold_across_resources(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    calls = [Call(message(channel), priority) for channel, priority in enumerate((0, 0, 0, 9, 5))]
    order = await in_turn(desk, calls)
    assert [call.priority for call in order] == [0, 0, 9, 5, 0], "the first goes, the second was asking already"
    await desk.scheduler.aclose()


async def test_only_one_call_checks_while_the_global_limit_is_used_up(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    await desk.scheduler.permit(Call(message(0)))
    before = desk.checks
    waiting = [desk.go(Call(message(channel))) for channel in range(1, 200)]
    await settled()
    assert desk.checks - before <= 2
    await rid_of(*waiting)
    await desk.scheduler.aclose()


async def test_callbacks_go_past_the_global_limit(clock: ManualClock, store: MemoryStore) -> None:
    desk = Desk(clock, store, per_second=1)
    desk.answered(await desk.scheduler.permit(Call(message())))
    behind = desk.go(Call(message(2)))
    await settled()
    for number in range(5):
        assert await desk.scheduler.permit(Call(route_of("POST", f"/interactions/{number}/token/callback")))
    assert not behind.done()
    await rid_of(behind)
    await desk.scheduler.aclose()


async def test_a_global_refusal_stops_everything_for_exactly_its_retry_after(desk: Desk) -> None:
    desk.scheduler.settle(await desk.scheduler.permit(Call(message(1))), CallReport("stopped", retry_us=2_000_000))
    assert await desk.scheduler.permit(Call(CALLBACK)), "but not what is exempt"
    assert await taken(desk.clock, desk.scheduler.permit(Call(message(2)))) == pytest.approx(2.0, abs=0.011)


async def test_a_wait_is_one_event_however_often_it_is_prolonged(desk: Desk) -> None:
    await desk.empty(message(), reset_s=1.0)
    call = Call(message())
    for _ in range(3):
        permit = await passing(desk.clock, desk.scheduler.permit(call))
        desk.scheduler.settle(permit, CallReport("limited", "bucket", 1, 0, 1_000_000, 1_000_000))
    waits = [event for event in desk.events if event.kind == "wait" and event.route.endswith("[channels/1]")]
    assert [(event.cause, event.bucket) for event in waits] == [("bucket", "bucket")]
    assert waits[0].seconds == pytest.approx(1.001)


async def test_the_view_of_waiting_calls_shows_the_cause(desk: Desk) -> None:
    await desk.empty(message(), reset_s=10.0)
    waiting = [desk.go(Call(message())) for _ in range(3)]
    await settled()
    (line,) = desk.scheduler.waiting
    assert line.route == "POST /channels/{channel_id}/messages [channels/1]"
    assert (line.calls, line.cause, line.bucket, line.limit, line.remaining) == (3, "bucket", "bucket", 1, 0)
    assert line.seconds == pytest.approx(10.001)
    await rid_of(*waiting)
    assert desk.scheduler.waiting == []


def refusal(cause: WaitCause, wait_us: int, kind: int = 0) -> Wait:
    return Wait("bucket", 2, 0, 0, kind, 1_000, 0, cause, wait_us)


@pytest.mark.parametrize(
    ("wait", "earliest"),
    [
        (refusal("bucket", 500, FIXED), [500, 500, 1_500, 1_500, 2_500]),
        (refusal("bucket", 500, SLIDING), [500, 1_500, 2_500, 3_500, 4_500]),
        (refusal("bucket", 500), [500] * 5),
        (refusal("stopped", 500, SLIDING), [500] * 5),
        (refusal("global", 500), [500, 500, 500 + SECOND_US, 500 + SECOND_US, 500 + 2 * SECOND_US]),
        (refusal("answer", AWAIT_RESPONSE), [0] * 5),
    ],
)
def test_a_reply_shows_the_earliest_moment_of_each_place_in_the_queue(wait: Wait, earliest: list[int]) -> None:
    assert [estimate_us(2, wait, ahead) for ahead in range(5)] == earliest


async def test_calls_that_wait_in_vain_end_when_they_are_woken(desk: Desk) -> None:
    await desk.empty(message(1), reset_s=100.0)
    await desk.empty(message(2), reset_s=100.0)
    waiting = [desk.go(Call(message(1))) for _ in range(3)]
    others = [desk.go(Call(message(2))) for _ in range(3)]
    await settled()
    desk.gone.add("channels/1")
    desk.scheduler.wake("channels/1")
    await settled()
    assert [type(task.exception()) for task in waiting] == [WebhookGone] * 3
    assert not any(task.done() for task in others)
    await rid_of(*others)


async def test_closing_ends_every_wait(desk: Desk) -> None:
    await desk.empty(message(), reset_s=100.0)
    waiting = [desk.go(Call(message())) for _ in range(3)]
    await settled()
    await desk.scheduler.aclose()
    await settled()
    assert [str(task.exception()) for task in waiting] == ["Cannot send a request, as the client has been closed."] * 3
    with pytest.raises(RuntimeError, match="closed"):
        await desk.scheduler.permit(Call(message()))


async def test_nothing_is_swept_when_nothing_is_left(desk: Desk, clock: ManualClock, store: MemoryStore) -> None:
    await desk.empty(message())
    assert not desk.scheduler.is_idle
    for _ in range(10):
        clock.advance(30.0)
        await settled()
    assert desk.scheduler.is_idle
    assert (calls_in_flight(store), held(store)) == (0, 0)
    assert not clock._timers
    await desk.scheduler.permit(Call(message()))
    assert not desk.scheduler.is_idle
