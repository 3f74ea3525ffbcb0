"""Events, and the observers that they are reported to."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, MemoryStore, RateLimited, SlidingWindow, StoreUnavailable
from asgi_ratelimit.events import Event, Observers, observers_of
from asgi_ratelimit.limits import Limit, TokenBucket
from asgi_ratelimit.log_observer import LogObserver
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.stores import UnavailableStore

pytestmark = pytest.mark.anyio

KINDS = [TokenBucket("5/5s"), LeakyBucket("5/5s", queue=4), SlidingWindow("5/5s"), FixedWindow("5/5s")]


def watched(**options: Any) -> tuple[MemoryStore, list[Event]]:
    events: list[Event] = []
    return MemoryStore(observers=[events.append], **options), events


@pytest.mark.parametrize("limit", KINDS, ids=lambda limit: type(limit).__name__)
async def test_each_decision_is_one_event_and_a_bucket_that_is_nearly_used_up_another(limit: Limit) -> None:
    store, events = watched(clock=ManualClock())
    limiter = Limiter(limit, store=store, name="search")
    for _ in range(7):
        await limiter.try_acquire("user:1")
    kinds = [event.kind for event in events]
    assert kinds == ["allowed"] * 4 + ["near", "allowed", "near", "limited", "limited"]
    assert {event.limiter for event in events} == {"search"}
    assert [event.decision.remaining for event in events if event.kind == "near" and event.decision] == [1, 0]


async def test_a_decision_of_several_limits_is_near_if_one_of_them_is() -> None:
    store, events = watched()
    limiter = Limiter(["1000/s", "10/day"], store=store)
    for _ in range(8):
        await limiter.try_acquire("a")
    assert [event.kind for event in events] == ["allowed"] * 8 + ["near"]


async def test_an_event_has_the_cost_the_time_of_the_store_and_the_digest_of_its_key() -> None:
    clock = ManualClock(start=1_000.0)
    store, events = watched(clock=clock)
    limiter = Limiter("50/s", store=store)
    clock.advance(5)
    await limiter.try_acquire("user:secret", cost=3)
    await limiter.try_acquire("user:secret")
    await limiter.try_acquire("user:other")
    first, second, third = events
    assert (first.cost, first.time, first.answered_by) == (3, 1_005.0, "store")
    assert len(first.key_digest) == 16
    assert first.key_digest == second.key_digest == store.observers.digest("user:secret") != third.key_digest
    assert "secret" not in repr(first)
    assert Event("exempt", "app").key_digest == ""


async def test_what_blocks_waits_and_refuses_is_told_apart() -> None:
    clock = ManualClock()
    store, events = watched(clock=clock)
    limiter = Limiter("1/s", store=store)
    await limiter.block("bad", 60)
    await limiter.try_acquire("bad")
    await limiter.try_acquire("a")
    with pytest.raises(RateLimited):
        await limiter.acquire("a", timeout=0.5)
    assert [event.kind for event in events if event.kind != "near"] == ["blocked", "allowed", "limited"]


async def test_a_wait_is_reported_with_its_seconds(anyio_backend_name: str) -> None:
    clock = ManualClock()
    store, events = watched(clock=clock)
    limiter = Limiter(LeakyBucket("1/s", queue=3), store=store)
    await limiter.acquire("a")
    sleep = clock.sleep

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)
        await sleep(0)

    clock.sleep = pass_time  # type: ignore[method-assign]
    await limiter.acquire("a")
    assert [(event.kind, event.seconds) for event in events if event.kind == "waited"] == [("waited", 1.0)]


async def test_peek_refund_and_reset_are_no_events() -> None:
    store, events = watched()
    limiter = Limiter("5/s", store=store)
    decision = await limiter.try_acquire("a")
    await limiter.peek("a")
    await limiter.refund(decision)
    await limiter.reset("a")
    assert [event.kind for event in events] == ["allowed"]


async def test_a_limit_that_fails_closed_is_reported_as_unavailable() -> None:
    events: list[Event] = []
    limiter = Limiter("5/s", store=UnavailableStore(observers=[events.append]), name="closed")
    with pytest.raises(StoreUnavailable):
        await limiter.try_acquire("a")
    with pytest.raises(StoreUnavailable):
        await limiter.acquire("a")
    assert [(event.kind, event.limiter, event.decision) for event in events] == [("unavailable", "closed", None)] * 2


async def test_a_full_store_is_an_event() -> None:
    store, events = watched(max_keys=1)
    limiter = Limiter("5/s", store=store)
    await limiter.try_acquire("user:1")
    with pytest.warns(match="ARL113"):
        await limiter.try_acquire("user:2")
    assert [(event.kind, event.node) for event in events if event.kind == "full"] == [("full", "memory")]


def test_threads_are_heard_as_well() -> None:
    store, events = watched()
    limiter = SyncLimiter("100/s", store=store)
    threads = [threading.Thread(target=limiter.try_acquire, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events) == 8


# Observers


async def test_an_observer_may_want_some_kinds_only_and_join_and_leave_at_any_time() -> None:
    class Refusals:
        kinds = frozenset({"limited"})

        def __init__(self) -> None:
            self.events: list[Event] = []

        def __call__(self, event: Event) -> None:
            self.events.append(event)

    store, refusals = MemoryStore(), Refusals()
    late: list[Event] = []
    limiter = Limiter("1/day", store=store)
    store.observers.add(refusals)
    assert not store.observers.counts_allowed
    await limiter.try_acquire("a")
    store.observers.add(late.append)
    await limiter.try_acquire("a")
    store.observers.remove(refusals)
    await limiter.try_acquire("a")
    assert [event.kind for event in refusals.events] == ["limited"]
    assert [event.kind for event in late] == ["limited", "limited"]
    assert refusals not in store.observers


async def test_an_observer_is_introduced_to_the_clock_of_the_store() -> None:
    clocks: list[object] = []

    class Timed:
        attach = staticmethod(clocks.append)

        def __call__(self, event: Event) -> None:
            raise NotImplementedError

    clock = ManualClock()
    MemoryStore(clock=clock, observers=[Timed()])
    assert clocks == [clock]


async def test_an_observer_that_raises_harms_no_request_and_is_logged_once_and_then_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise KeyError("boom")

    store, events = watched()
    store.observers.add(broken)
    limiter = Limiter("1000/s", store=store)
    with caplog.at_level(logging.WARNING, "asgi_ratelimit"):
        for _ in range(50):
            assert (await limiter.try_acquire("a")).allowed
    assert len(events) == 50
    assert len(calls) == 10
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "boom" in caplog.text


async def test_an_observer_that_is_slow_is_left_out_and_one_that_fails_now_and_then_stays(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("asgi_ratelimit.listener.time.perf_counter", lambda: now[0])

    def slow(event: Event) -> None:
        now[0] += 0.5

    def moody(event: Event) -> None:
        seen.append(event)
        if len(seen) % 200 == 0:
            raise ValueError("now and then")

    seen: list[Event] = []
    store = MemoryStore(observers=[slow, moody])
    limiter = Limiter("100000/s", store=store)
    with caplog.at_level(logging.WARNING, "asgi_ratelimit"):
        for _ in range(5_000):
            await limiter.try_acquire("a")
    assert slow not in store.observers
    assert moody in store.observers
    assert now[0] == 5.0
    assert "0.500 s" in caplog.text


@pytest.mark.parametrize("observer", [5, "print", None, Event, Observers])
def test_what_is_no_observer_is_refused_with_a_right_one(observer: Any) -> None:
    with pytest.raises(ValueError, match=r"plain function of an Event, e\.g\. Stats\(\)"):
        MemoryStore(observers=[observer])


async def observe(event: Event) -> None: ...


class Awaited:
    async def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize("observer", [observe, partial(observe), Awaited()])
def test_a_coroutine_function_is_no_observer(observer: Any) -> None:
    with pytest.raises(ValueError, match="plain function"):
        MemoryStore(observers=[observer])


async def test_one_that_turns_out_to_be_a_coroutine_function_is_named_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore(observers=[lambda event: observe(event)])
    await use(store, 20)
    assert len(store.observers) == 1  # a LogObserver
    assert "plain function" in caplog.text


async def use(store: MemoryStore, calls: int) -> None:
    limiter = Limiter("1000000/s", store=store, name="app")
    for _ in range(calls):
        assert (await limiter.try_acquire("a")).allowed


def observer_of(kinds: Any) -> Any:
    class Picky:
        def __init__(self) -> None:
            self.kinds = kinds

        def __call__(self, event: Event) -> None:
            raise NotImplementedError

    return Picky()


@pytest.mark.parametrize("kinds", ["limited", b"limited", 5, ["limted"], {"limited", None}])
def test_kinds_that_do_not_exist_are_refused(kinds: Any) -> None:
    with pytest.raises(ValueError, match=r"kinds of an observer are .*\"limited\".*not "):
        MemoryStore(observers=[observer_of(kinds)])


@pytest.mark.parametrize("kinds", [(), iter(["limited"]), ["down", "recovered"]])
async def test_kinds_are_any_collection(kinds: Any) -> None:
    store = MemoryStore(observers=[observer_of(kinds)])
    await use(store, 2)
    assert len(store.observers) == 2


class Counting:
    """Counts the fields of decisions, and does more at each of them."""

    def __init__(self, deed: Any, *, is_quick: bool) -> None:
        self.deed, self.is_quick, self.calls = deed, is_quick, 0

    def on_decision(self, *fields: Any) -> None:
        self.calls += 1
        self.deed(self.calls)

    def __call__(self, event: Event) -> None:
        self.on_decision(event)


async def test_one_that_counts_fields_is_left_out_if_it_is_slow_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("asgi_ratelimit.listener.time.perf_counter", lambda: now[0])

    def idle(call: int) -> None:
        now[0] += 0.5

    def fail(call: int) -> None:
        raise ValueError("broken")

    broken = [Counting(idle, is_quick=False), Counting(fail, is_quick=False), Counting(fail, is_quick=True)]
    counted = Counting(lambda call: None, is_quick=True)
    store = MemoryStore(observers=[*broken, counted])
    await use(store, 30)
    assert [one.calls for one in broken] == [10, 10, 10]
    assert counted.calls == 30


async def test_a_quick_one_that_fails_now_and_then_stays() -> None:
    def fail(call: int) -> None:
        if call % 200 == 0:
            raise ValueError("now and then")

    moody = Counting(fail, is_quick=True)
    await use(MemoryStore(observers=[moody]), 5_000)
    assert moody.calls == 5_000


async def test_one_that_uses_a_limiter_hears_of_others_only() -> None:
    async def nothing() -> None:
        await limiter.try_acquire("b")

    def observer(event: Event) -> None:
        events.append(event.key)
        with suppress(StopIteration):
            nothing().send(None)

    events: list[str] = []
    store = MemoryStore(observers=[observer])
    limiter = Limiter("1000/s", store=store)
    await use(store, 3)
    assert events == ["a"] * 3


async def test_a_cancelled_future_that_an_observer_reads_cancels_no_request() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await use(MemoryStore(observers=[lambda event: future.result()]), 3)


async def test_one_that_fails_to_note_a_server_keeps_no_store_from_its_start() -> None:
    class Broken:
        def introduce(self, node: str) -> None:
            raise ValueError("broken")

        def __call__(self, event: Event) -> None: ...

    store = MemoryStore(observers=[Broken()])
    store.observers.introduce("localhost:6379")
    await use(store, 1)


def test_a_destructor_may_report_an_event_at_any_moment() -> None:
    """A lock that its own thread cannot take again would hang here."""
    log = LogObserver()
    store = MemoryStore(observers=[log])

    class Reporting(str):
        def __hash__(self) -> int:
            store.observers.emit(Event("limited", "app", key="other"))
            return super().__hash__()

        __eq__ = str.__eq__

    store.observers.emit(Event("limited", "app", key=Reporting("ada")))
    assert log in store.observers


@pytest.mark.parametrize("observers", [print, 5, "print"])
def test_observers_are_a_list(observers: Any) -> None:
    with pytest.raises(ValueError, match=r"observers is a list .*observers=\[Stats\(\)\]"):
        MemoryStore(observers=observers)


def test_a_store_of_ones_own_needs_no_observers() -> None:
    assert len(observers_of(object())) == 0


def test_an_event_says_which_fields_it_has() -> None:
    with pytest.raises(TypeError, match="no 'wrong'; its fields are answered_by"):
        Event("allowed", wrong=1)
    assert repr(Event("down", node="redis", seconds=1.0, key="x")) == (
        "Event(kind='down', limiter='', node='redis', seconds=1.0)"
    )
