"""Attempts whose results are not known yet: they make others wait, but not be refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore, RateLimited
from asgi_ratelimit.login import LoginGuard
from asgi_ratelimit.observe import Event
from asgi_ratelimit.testing import ManualClock
from tests.support.log_ins import log_in

pytestmark = pytest.mark.anyio

OFFICE = "203.0.113.1"


@pytest.fixture
def guard(store: MemoryStore) -> LoginGuard:
    return LoginGuard(account="5/15 minutes", address="5/15 minutes", store=store)


class Visitor:
    """An attempt that stays in flight until its result is said."""

    def __init__(self, guard: LoginGuard, account: str, address: str = OFFICE) -> None:
        self._guard, self._account, self._address = guard, account, address
        self.is_in_flight = False
        self.result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> str:
        try:
            async with self._guard.attempt(self._account, self._address) as attempt:
                self.is_in_flight = True
                if await self.result:
                    attempt.succeeded()
        except RateLimited as refused:
            return f"{refused.decision.reason} for {refused.retry_after:g} s"
        return "done"

    async def say(self, right: bool) -> str:
        self.result.set_result(right)
        return await self.task


async def settle() -> None:
    """Let all tasks go on as far as they can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def visitors(guard: LoginGuard, number: int, account: str | None = None) -> list[Visitor]:
    made = [Visitor(guard, account or f"user {each}") for each in range(number)]
    await settle()
    return made


async def end(made: list[Visitor]) -> None:
    for one in made:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in made), return_exceptions=True)


async def test_twenty_good_log_ins_at_once_from_one_office(guard: LoginGuard, clock: ManualClock) -> None:
    most = flying = 0

    async def visit(account: str) -> None:
        nonlocal most, flying
        async with guard.attempt(account, OFFICE) as attempt:
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            attempt.succeeded()

    started_us = clock.now_us()
    await asyncio.gather(*(visit(f"user {number}") for number in range(20)))
    assert most == 5
    assert clock.now_us() == started_us  # no one has waited for any time to pass
    assert (await guard.peek("someone", OFFICE)).remaining == 5


async def test_twenty_good_log_ins_at_once_under_the_usual_limit(store: MemoryStore) -> None:
    made = await visitors(LoginGuard(store=store), 20)
    assert all(one.is_in_flight for one in made)
    assert [await one.say(True) for one in made] == ["done"] * 20


async def test_a_held_attempt_goes_on_when_a_success_makes_room(guard: LoginGuard) -> None:
    made = await visitors(guard, 7)
    assert [one.is_in_flight for one in made] == [True] * 5 + [False] * 2
    await made[3].say(True)
    await settle()
    assert [one.is_in_flight for one in made[5:]] == [True, False]  # first come, first served
    await end(made)


async def test_held_attempts_are_served_in_the_order_of_their_arrival(guard: LoginGuard) -> None:
    made = await visitors(guard, 12)
    for number in range(7):
        await made[number].say(True)
        await settle()
        assert [one.is_in_flight for one in made] == [True] * (6 + number) + [False] * (6 - number)
    await end(made)


async def test_held_attempts_are_refused_at_once_when_failures_fill_the_bucket(
    guard: LoginGuard, clock: ManualClock
) -> None:
    made = await visitors(guard, 30)
    assert [await one.say(False) for one in made[:5]] == ["done"] * 5
    started_us = clock.now_us()
    assert {await one.task for one in made[5:]} == {"blocked for 60 s"}
    assert clock.now_us() == started_us


async def test_failures_and_attempts_in_flight_are_never_more_than_the_limit(guard: LoginGuard) -> None:
    made = await visitors(guard, 30)
    for number, one in enumerate(made):
        if one.is_in_flight:
            await one.say(number % 3 > 0)
            await settle()
        failures = sum(one.result.done() and not one.result.result() for one in made)
        flying = sum(one.is_in_flight and not one.result.done() for one in made)
        assert failures + flying <= 5
    assert failures == 5
    assert Counter([await one.task for one in made])["blocked for 60 s"] == 30 - sum(one.is_in_flight for one in made)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "right", "wrong", "crash", "wait"]), st.integers(0, 9)), max_size=60)
)
@settings(max_examples=60)
def test_whatever_happens_failures_and_attempts_in_flight_fit_into_the_limit(steps: list[tuple[str, int]]) -> None:
    """And those that are held get in as soon as there is room: no place is lost."""

    async def run() -> None:
        clock = ManualClock()
        guard = LoginGuard(address="3/52 weeks", block=(), store=MemoryStore(clock=clock), max_wait=30)
        made: list[Visitor] = []
        failures = 0
        for word, number in steps:
            flying = [one for one in made if one.is_in_flight and not one.task.done()]
            if word == "begin":
                made.append(Visitor(guard, f"user {len(made)}"))
            elif word == "wait":
                clock.advance(0.06)
            elif flying:
                one = flying[number % len(flying)]
                if word == "crash":
                    one.result.set_exception(OSError())
                else:
                    one.result.set_result(word == "right")
                    failures += word == "wrong"
            await settle()
            flying = [one for one in made if one.is_in_flight and not one.task.done()]
            held = [one for one in made if not one.is_in_flight and not one.task.done()]
            assert len(flying) <= 3 - failures
            assert not held or len(flying) == 3 - failures > 0
        await asyncio.gather(*(end_with_success(one) for one in made), return_exceptions=True)
        assert (await guard.peek("someone", OFFICE)).remaining == min(5, 3 - failures)

    async def end_with_success(one: Visitor) -> None:
        if not one.result.done():
            one.result.set_result(True)
        await one.task

    asyncio.run(run())


async def test_an_attempt_is_held_for_max_wait_at_most(guard: LoginGuard, clock: ManualClock) -> None:
    made = await visitors(guard, 7)
    for _ in range(49):
        clock.advance(0.1)
        await settle()
    assert not any(one.task.done() for one in made)
    clock.advance(0.1)
    await settle()
    assert [await one.task for one in made[5:]] == ["limited for 1 s"] * 2
    await end(made)


async def test_without_max_wait_no_attempt_is_held(store: MemoryStore) -> None:
    made = await visitors(LoginGuard(address="5/15 minutes", store=store, max_wait=0), 6)
    assert await made[5].task == "limited for 1 s"
    await end(made)


async def test_one_account_holds_its_own_attempts(store: MemoryStore) -> None:
    guard = LoginGuard(store=store)
    made = await visitors(guard, 6, "ada")
    assert [one.is_in_flight for one in made] == [True] * 5 + [False]
    assert await log_in(guard, "bob", OFFICE, right=True) == "in"
    await made[0].say(True)
    await settle()
    assert made[5].is_in_flight
    await end(made)


async def test_a_held_attempt_that_is_cancelled_leaves_nothing(guard: LoginGuard, clock: ManualClock) -> None:
    made = await visitors(guard, 6, "ada")
    others = await visitors(guard, 1)
    await end([made[5], *others])
    assert [await one.say(True) for one in made[:5]] == ["done"] * 5
    assert (await guard.peek("ada", OFFICE)).remaining == 5
    assert (await guard.peek("user 0", OFFICE)).remaining == 5


async def test_an_attempt_that_is_held_at_its_account_and_refused_is_not_charged_to_its_address(
    store: MemoryStore, clock: ManualClock
) -> None:
    guard = LoginGuard(store=store)
    made = await visitors(guard, 6, "ada")
    assert (await guard.peek("bob", OFFICE)).remaining == 5  # of the account; the address has 44
    for one in made[:5]:
        await one.say(False)
    assert await made[5].task == "blocked for 60 s"
    clock.advance(60)
    for number in range(45):  # 50, less the five failures
        assert await log_in(guard, f"user {number}", OFFICE) == "wrong"
    assert await log_in(guard, "user", OFFICE) == "wrong"  # 60 s bring three more back
    await end(made)


async def test_an_attempt_whose_process_has_died_is_waited_for_for_a_minute(
    guard: LoginGuard, store: MemoryStore, clock: ManualClock
) -> None:
    made = await visitors(guard, 5)
    other = LoginGuard(account="5/15 minutes", address="5/15 minutes", store=store, max_wait=0)
    late = await visitors(other, 1)
    assert await late[0].task == "limited for 1 s"
    clock.advance(60)
    late = await visitors(other, 1)
    assert await late[0].task == "limited for 120 s"  # what has no result is a failure
    await end(made)


async def test_an_attempt_that_is_given_back_lets_the_next_one_in(guard: LoginGuard) -> None:
    made = await visitors(guard, 6)
    made[0].result.set_exception(OSError("the database is down"))
    await settle()
    assert made[5].is_in_flight
    await end(made[1:])
    with pytest.raises(OSError, match="the database"):
        await made[0].task


async def test_no_more_than_a_hundred_of_one_address_are_held(guard: LoginGuard) -> None:
    made = await visitors(guard, 200)
    refused = [one for one in made if one.task.done()]
    assert {await one.task for one in refused} == {"limited for 1 s"}
    assert len(refused) == 200 - 100 - 5
    assert (await guard.peek("someone", "192.0.2.1")).allowed
    held = [one for one in made if one not in refused]
    assert [await one.say(True) for one in held] == ["done"] * 105
    late = await visitors(guard, 105)  # their places are free again
    assert not [one for one in late if one.task.done()]
    await end(late)


async def test_no_more_than_a_thousand_are_held(store: MemoryStore) -> None:
    guard = LoginGuard(address="1/15 minutes", store=store)
    made = [Visitor(guard, f"user {each}", f"192.0.2.{each % 20}") for each in range(20 * 60)]
    for _ in range(3):
        await settle()
    assert sum(one.task.done() for one in made) == 20 * 60 - 1_000 - 20
    assert await log_in(guard, "someone", OFFICE, right=True) == "in"  # there is no line before it
    await end(made)
    late = [Visitor(guard, "someone", "198.51.100.9") for _ in range(9)]
    await settle()
    assert not any(one.task.done() for one in late)
    await end(late)


async def test_observers_hear_of_each_attempt_once(clock: ManualClock) -> None:
    events: list[Event] = []
    store = MemoryStore(clock=clock, observers=[events.append])
    guard = LoginGuard(account="2/15 minutes", store=store)
    for _ in range(3):
        await log_in(guard, "ada", OFFICE)
    heard = [(event.kind, event.limiter) for event in events if event.kind != "near"]
    assert heard == [
        ("allowed", "login:address"),
        ("allowed", "login:account"),
        ("failed", "login:address"),
        ("failed", "login:account"),
        ("allowed", "login:address"),
        ("allowed", "login:account"),
        ("failed", "login:address"),
        ("failed", "login:account"),
        ("escalated", "login:account"),
        ("blocked", "login:account"),
    ]
    assert not any("ada" in event.key or OFFICE in event.key for event in events)


async def test_observers_hear_how_long_an_attempt_was_held(clock: ManualClock) -> None:
    events: list[Event] = []
    guard = LoginGuard(address="1/15 minutes", store=MemoryStore(clock=clock, observers=[events.append]))
    made = await visitors(guard, 2)
    clock.advance(2)
    await settle()
    await made[0].say(True)
    await settle()
    assert [(event.limiter, event.seconds) for event in events if event.kind == "waited"] == [("login:address", 2.0)]
    await end(made)
