"""Concurrency: so many calls at a time. A slot is kept while its call goes on, and for a lease at most without it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import Concurrency, Decision, Limiter, MemoryStore, Policy, RateLimited, TokenBucket
from asgi_ratelimit.memory.records import FIRST_SWEEP
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import settle

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000_000_000
TWO = Concurrency(2, lease=10)


def limiter_of(store: Store, limit: Concurrency = TWO) -> Limiter:
    return Limiter(limit, store=store, name="open")


# The arithmetic


def test_a_slot_is_taken_whatever_the_call_costs_and_named_by_its_moment() -> None:
    one = TWO.take(None, NOW, 1)
    assert one is not None
    two = TWO.take(one, NOW, 4_000)
    assert two == (NOW, NOW + 10_000_000, NOW + 1, NOW + 10_000_000)
    assert TWO.take(two, NOW, 1) is None
    assert TWO.measure(two, NOW, 1) == (0, 10_000_000, 1_000_000)
    assert TWO.without(two, NOW, NOW) == two[2:]
    assert TWO.give_back(two, NOW, 1, one, NOW) == two[2:]


def test_a_refusal_waits_for_the_first_lease_to_end_or_a_second() -> None:
    state = (NOW - 9, NOW + 400_000, NOW - 8, NOW + 3_000_000)
    assert TWO.measure(state, NOW, 1) == (0, 3_000_000, 400_000)
    one = Concurrency(1, lease=10)
    assert one.measure(state, NOW, 1) == (0, 3_000_000, 1_000_000)
    assert one.measure(state, NOW + 2_500_000, 1) == (0, 500_000, 500_000)
    assert one.measure(None, NOW, 1) == (1, 0, 0)


def test_a_lease_that_ends_too_late_is_cut_to_one_lease() -> None:
    state = (NOW, NOW + 10_000_001)
    assert TWO.cut(state, NOW) == (NOW, NOW + 10_000_000)
    assert TWO.cut(state, NOW + 1) is state


@given(st.lists(st.integers(0, 40), unique=True), st.sets(st.integers(0, 40)), st.integers(0, 30))
def test_a_renewal_begins_leases_anew_and_brings_lost_slots_back_in_order(
    taken: list[int], renewed: set[int], passed: int
) -> None:
    limit = Concurrency(5, lease=0.001)
    state = tuple(number for slot in sorted(taken) for number in (slot, slot + 20))
    after = limit.renew(state or None, passed, sorted(renewed)) or ()
    assert after[::2] == tuple(sorted({slot for slot in taken if slot + 20 > passed} | renewed))
    ends = dict(zip(after[::2], after[1::2], strict=True))
    assert all(ends[slot] == (passed + 1_000 if slot in renewed else slot + 20) for slot in ends)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Concurrency(-1), "count"),
        (lambda: Concurrency(2.5), "2.5"),  # type: ignore[arg-type]
        (lambda: Concurrency(2, lease=0), "lease=60"),
        (lambda: Concurrency(2, lease=float("nan")), "lease=60"),
        (lambda: Concurrency(2, lease=float("inf")), "lease=60"),
        (lambda: Concurrency(2, lease=True), "True"),
        (lambda: Concurrency(2, status=500), "503"),
        (lambda: Limiter([TWO, Concurrency(3)]), "name one of them"),
    ],
)
def test_a_bad_one_says_what_is_wrong(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_neither_count_nor_lease_nor_status_is_its_identity() -> None:
    assert Policy("x", TWO).bucket == Policy("x", Concurrency(7, lease=3, status=503)).bucket
    assert Policy("x", TWO).bucket != Policy("x", Concurrency(2, lease=10, name="y")).bucket
    assert Concurrency(2, lease=10) == TWO != Concurrency(2, lease=10, status=503)
    assert str(TWO) == "2 at a time"
    assert repr(Concurrency(2, lease=0.5, name="y", status=503)) == "Concurrency(2, lease=0.5, name='y', status=503)"


# In memory


async def test_the_slot_of_a_living_holder_is_renewed_and_that_of_a_forgotten_one_ends(
    clock: ManualClock, store: MemoryStore
) -> None:
    limiter = limiter_of(store)
    held, forgotten = await limiter.try_acquire("a"), await limiter.try_acquire("a")
    clock.advance(10)
    assert (await limiter.peek("a")).remaining == 0
    del forgotten
    assert (await limiter.peek("a")).remaining == 1
    clock.advance(1_000)
    assert (await limiter.try_acquire("a")).allowed
    await limiter.release(held)
    assert (await limiter.peek("a")).remaining == 1


async def test_a_sweep_drops_the_records_without_holders_only(clock: ManualClock) -> None:
    store = MemoryStore(max_keys=1_000, clock=clock)  # one shard
    limiter = limiter_of(store)
    held = await limiter.try_acquire("held")
    for number in range(FIRST_SWEEP):
        await limiter.try_acquire(f"forgotten {number}")
        clock.advance(11)
    await limiter.try_acquire("one more")
    assert len(store) < FIRST_SWEEP
    assert (await limiter.peek("held")).remaining == 1
    await limiter.refund(held)
    assert (await limiter.peek("held")).remaining == 2


async def test_settling_keeps_the_slot_and_a_release_keeps_the_charge(store: MemoryStore) -> None:
    limiter = Limiter([TokenBucket("10000/day"), TWO], store=store)
    decision = await limiter.try_acquire("a", 4_000)
    await limiter.settle(decision, 3_000)
    tokens, slots = (await limiter.peek("a")).parts
    assert (tokens.remaining, slots.remaining) == (7_000, 1)
    await limiter.release(decision)
    await limiter.release(decision)
    tokens, slots = (await limiter.peek("a")).parts
    assert (tokens.remaining, slots.remaining) == (7_000, 2)
    await limiter.refund(decision)
    assert (await limiter.peek("a")).parts[0].remaining == 7_000, "it was settled"


async def test_a_list_charges_nothing_if_no_slot_is_free(store: MemoryStore) -> None:
    limiter = Limiter(["10/day", Concurrency(1)], store=store)
    first = await limiter.try_acquire("a")
    assert first.limit == 10, "a client can plan by tokens only"
    refused = await limiter.try_acquire("a")
    assert (refused.allowed, refused.limit, refused.retry_after) == (False, 1, 1.0)
    assert (await limiter.peek("a")).parts[0].remaining == 9
    await limiter.refund(first)
    assert [part.remaining for part in (await limiter.peek("a")).parts] == [10, 1]


async def test_costs_are_checked_by_the_other_limits() -> None:
    assert Limiter(["5000/day", TWO]).capacity == 5_000
    assert Limiter([TWO, Concurrency(3, name="more")]).capacity == 2
    assert Limiter(["5000/day", Concurrency(0)]).capacity == 0
    with pytest.raises(RateLimited):
        await Limiter(["5000/day", Concurrency(0)]).acquire("a")


async def test_a_soft_one_refuses_nothing(store: MemoryStore) -> None:
    limiter = limiter_of(store, Concurrency(1, enforce=False))
    first, second = await limiter.try_acquire("a"), await limiter.try_acquire("a")
    assert (first.over, second.allowed, second.over) == ((), True, limiter.limits)
    await limiter.release(second)
    assert (await limiter.peek("a")).over == limiter.limits
    await limiter.release(first)
    assert (await limiter.peek("a")).over == ()


async def test_a_clock_that_goes_back_frees_the_slots_after_a_lease(clock: ManualClock, store: MemoryStore) -> None:
    limiter = limiter_of(store)
    for _ in range(2):
        await limiter.try_acquire("a")
    clock.advance(-3_600)
    refused = await limiter.try_acquire("a")
    assert (refused.allowed, refused.reset_after) == (False, 10.0)
    clock.advance(10)
    assert (await limiter.try_acquire("a")).allowed


async def test_a_decision_says_what_is_left_when_it_is_settled(store: MemoryStore) -> None:
    decision = await limiter_of(store).try_acquire("a")
    assert decision.as_settled(1).remaining == 1
    assert decision.as_settled(0).remaining == 2


# Holding, and waiting in line


async def test_a_block_holds_its_slot_until_it_ends_however_it_ends(store: MemoryStore) -> None:
    limiter = limiter_of(store)
    async with limiter.hold("a") as decision:
        assert isinstance(decision, Decision)
        assert (await limiter.peek("a")).remaining == 1
    with pytest.raises(ZeroDivisionError):
        async with limiter.hold("a"):
            _ = 1 / 0
    task = asyncio.ensure_future(hold(limiter, [], 0, asyncio.Event()))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert (await limiter.peek("a")).remaining == 2


async def test_blocks_of_one_object_each_give_a_slot_back(store: MemoryStore) -> None:
    limiter = limiter_of(store)
    holding = limiter.hold("a")
    async with holding as outer:
        async with holding:
            assert (await limiter.peek("a")).remaining == 0
        assert (await limiter.peek("a")).remaining == 1
    assert (await limiter.peek("a")).remaining == 2
    assert not outer.is_charged


async def hold(limiter: Limiter, order: list[int], number: int, over: asyncio.Event, key: str = "a") -> None:
    async with limiter.hold(key):
        order.append(number)
        await over.wait()


@pytest.mark.parametrize("keys", ["a", "abc"], ids=["one key", "a shared bucket"])
async def test_the_first_to_come_is_woken_at_once_by_each_release(store: MemoryStore, keys: str) -> None:
    limiter = limiter_of(store, Concurrency(1, scope="global" if len(keys) > 1 else "user"))
    order: list[int] = []
    ends = [asyncio.Event() for _ in range(6)]
    tasks = [
        asyncio.ensure_future(hold(limiter, order, number, end, keys[number % len(keys)]))
        for number, end in enumerate(ends)
    ]
    await settle()
    tasks.pop(2).cancel()
    await settle()
    for served, number in enumerate((0, 1, 3, 4, 5)[: 3 if len(keys) > 1 else 5], start=1):
        assert len(order) == served, "the clock stands still"
        assert order[-1] == number
        ends[number].set()
        await settle()
    for end in ends:
        end.set()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (await limiter.peek("a")).remaining == 1


async def test_a_wait_for_a_slot_is_never_sure_to_be_too_long(clock: ManualClock, store: MemoryStore) -> None:
    limiter = limiter_of(store, Concurrency(1, lease=10))
    held = await limiter.try_acquire("a")
    late, lucky = (asyncio.ensure_future(limiter.acquire("a", timeout=timeout)) for timeout in (0.5, 0.6))
    await settle()
    for _ in range(10):
        assert not late.done()
        clock.advance(0.05)
        await settle()
    assert isinstance(late.exception(), RateLimited)
    await limiter.release(held)
    assert (await lucky).allowed
    with pytest.raises(RateLimited):
        await limiter.acquire("a", timeout=0)


async def test_a_late_caller_does_not_overtake_those_before_it(clock: ManualClock, store: MemoryStore) -> None:
    limiter, other = limiter_of(store, Concurrency(1)), limiter_of(store, Concurrency(1))
    held = await limiter.try_acquire("a")
    first, late = (asyncio.ensure_future(limiter.acquire("a", timeout=timeout)) for timeout in (None, 0.01))
    await settle()
    await other.release(held)  # as another process does: it wakes nobody here
    clock.advance(0.01)
    await settle()
    assert isinstance(late.exception(), RateLimited)
    clock.advance(0.1)
    await settle()
    assert first.done(), "a slot that others have freed is noticed within 100 ms"
    await limiter.release(first.result())


async def test_another_limit_that_refuses_for_longer_is_waited_for(clock: ManualClock, store: MemoryStore) -> None:
    limiter = Limiter(["1/5s", Concurrency(1)], store=store)
    held = await limiter.try_acquire("a")
    with pytest.raises(RateLimited) as refused:
        await limiter.acquire("a", timeout=4)
    assert refused.value.decision.retry_after == 5.0
    waiting = asyncio.ensure_future(limiter.acquire("a", timeout=6))
    await settle()
    await limiter.release(held)
    clock.advance(5)
    assert (await waiting).allowed


def test_threads_hold_slots_too() -> None:
    limiter = SyncLimiter(Concurrency(1), store=MemoryStore())
    order: list[str] = []

    def second() -> None:
        with limiter.hold("a", timeout=30):
            order.append("second")

    thread = threading.Thread(target=second)
    with limiter.hold("a"):
        thread.start()
        with pytest.raises(RateLimited):
            limiter.acquire("a", timeout=0)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert limiter.peek("a").remaining == 1


async def test_no_slot_outlives_its_holder_by_a_reference_cycle(store: MemoryStore, clock: ManualClock) -> None:
    limiter = limiter_of(store)
    gc.collect()
    gc.disable()
    try:
        await limiter.try_acquire("a")
        with pytest.raises(RateLimited):
            await limiter.acquire("a", timeout=0) and await limiter.acquire("a", timeout=0)
        clock.advance(10)
        assert (await limiter.peek("a")).remaining == 2
    finally:
        gc.enable()


def test_a_store_of_ones_own_has_to_be_able_to_release() -> None:
    class Plain(MemoryStore):
        def open(self, *_: Any) -> Any:
            return object()

    with pytest.raises(ValueError, match="release"):
        Limiter(TWO, store=Plain())
