"""Stats agrees with the load to the request, knows quiet minutes and outages, and takes no more memory with time."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.events import Event, Observers
from asgi_ratelimit.observe import KeyCounts, LimiterCounts, Outage, Period, Stats
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

NOON = 1_700_049_600.0  # the beginning of a minute and of an hour


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def observers(stats: Stats, clock: ManualClock) -> Observers:
    return Observers([stats], clock, b"secret")


def counts_of(stats: Stats, name: str = "app") -> LimiterCounts:
    return stats.snapshot().limiters[name]


def emit(observers: Observers, kind: Any, times: int = 1, limiter: str = "app", **fields: Any) -> None:
    for _ in range(times):
        observers.emit(Event(kind, limiter, **fields))


def test_every_kind_of_decision_is_counted(stats: Stats, observers: Observers) -> None:
    kinds = ("allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "near", "shed", "gone", "failed")
    for times, kind in enumerate(kinds, start=1):
        emit(observers, kind, times, key="ada")
    emit(observers, "limited", 10, key="ada", answered_by="cache")
    emit(observers, "allowed", 20, key="ada", answered_by="fallback")
    emit(observers, "waited", 2, seconds=0.75, key="ada")
    counts = counts_of(stats)
    assert [getattr(counts, kind) for kind in kinds] == [21, 12, 3, 4, 5, 6, 7, 8, 9, 10]
    assert (counts.cached, counts.degraded, counts.waited, counts.waited_seconds) == (10, 20, 2, 1.5)
    assert (counts.refused, counts.total) == (29, 68)
    assert counts.busiest == Period(NOON, 25, 29)
    assert counts.keys == (KeyCounts(observers.digest("ada"), 25, 29, 0),)


async def _load(store: MemoryStore) -> None:
    limiters = [Limiter("3/hour", store=store, name=name) for name in ("search", "upload")]
    for number in range(10):
        for limiter in limiters:
            await limiter.try_acquire(f"user:{number % 2}")


@pytest.mark.anyio
async def test_the_decisions_of_limiters_are_counted(stats: Stats, clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, observers=[stats])
    await _load(store)
    snapshot = stats.snapshot()
    assert list(snapshot.limiters) == ["search", "upload"]
    for counts in snapshot.limiters.values():
        assert (counts.allowed, counts.limited) == (6, 4)
        assert {key.key: (key.allowed, key.refused, key.error) for key in counts.keys} == {
            store.observers.digest(key): (3, 2, 0) for key in ("user:0", "user:1")
        }


def test_decisions_of_threads_are_all_counted(stats: Stats) -> None:
    limiter = SyncLimiter("1000/hour", store=MemoryStore(observers=[stats]), name="app")
    threads = [threading.Thread(target=lambda: [limiter.try_acquire("ada") for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts_of(stats).allowed == 200


def test_quiet_minutes_and_hours_are_zeros(stats: Stats, observers: Observers, clock: ManualClock) -> None:
    emit(observers, "allowed", 3)
    clock.advance(120)
    emit(observers, "limited", 2)
    clock.advance(180)
    counts = counts_of(stats)
    assert [period.start for period in counts.minutes] == [NOON + 60 * number for number in range(-54, 6)]
    assert [period.total for period in counts.minutes] == [0] * 54 + [3, 0, 2, 0, 0, 0]
    assert [period.start for period in counts.hours] == [NOON + 3600 * number for number in range(-23, 1)]
    assert counts.hours[-1] == Period(NOON, 3, 2)


def test_what_is_older_than_an_hour_is_in_hours_totals_and_the_busiest_minute(
    stats: Stats, observers: Observers, clock: ManualClock
) -> None:
    emit(observers, "allowed", 9)
    for _ in range(30 * 60):
        clock.advance(60)
        emit(observers, "allowed")
    counts = counts_of(stats)
    assert counts.allowed == 9 + 30 * 60
    assert counts.busiest == Period(NOON, 9)
    assert [period.total for period in counts.minutes] == [1] * 60
    assert [period.total for period in counts.hours] == [60] * 23 + [1]


def test_a_clock_that_goes_back_breaks_nothing(stats: Stats, observers: Observers, clock: ManualClock) -> None:
    for minutes in (0, 90, -200, 3, -1, 60 * 50, -60 * 49, 61, 62, -63):
        clock.advance(60 * minutes)
        emit(observers, "allowed", 2, key="ada")
        assert counts_of(stats).minutes[-1].allowed >= 2
    counts = counts_of(stats)
    assert counts.allowed == 20
    assert counts.keys[0].allowed == 20
    assert (len(counts.minutes), len(counts.hours)) == (60, 24)


@pytest.mark.anyio
async def test_decisions_go_to_their_minutes_also_after_a_clock_has_gone_back(stats: Stats, clock: ManualClock) -> None:
    store = MemoryStore(clock=clock, observers=[stats])
    limiter = Limiter("1000/s", store=store, name="app")
    for _ in range(3):
        await limiter.try_acquire("ada")
        clock.advance(20)
    await limiter.try_acquire("ada")
    assert [period.allowed for period in counts_of(stats).minutes[-2:]] == [3, 1]
    for _ in range(62):  # events without a decision leave no room for the earlier minutes
        clock.advance(60)
        store.observers.emit(Event("exempt", "app"))
    clock.advance(-62 * 60)
    await limiter.try_acquire("ada")
    counts = counts_of(stats)
    assert (counts.allowed, counts.exempt, counts.minutes[-1].start) == (5, 62, NOON + 60)


@pytest.mark.parametrize("step", [3_600, -3_600])
def test_memory_does_not_grow_with_time(step: int) -> None:
    stats, sizes = Stats(), []
    clock = ManualClock(NOON)
    observers = Observers([stats], clock)
    tracemalloc.start()
    try:
        for _ in range(3):
            for _ in range(200):
                clock.advance(step)
                emit(observers, "allowed", key="ada")
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[2] < sizes[0] + 20_000


def test_memory_does_not_grow_with_the_number_of_keys_and_limiters() -> None:
    stats = Stats(top=10)
    observers = Observers([stats], ManualClock(NOON))
    tracemalloc.start()
    try:
        _flood(stats, range(10_000))
        before, _ = tracemalloc.get_traced_memory()
        _flood(stats, range(10_000, 60_000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after < before + 50_000
    assert counts_of(stats).shadow_keys == 1_000
    emit(observers, "down", node="one")
    assert counts_of(stats).allowed == 60_000


def _flood(stats: Stats, numbers: range) -> None:
    for number in numbers:
        stats(Event("allowed", "app", key=f"user:{number}", time=NOON))
        stats(Event("shadow", "app", key=f"user:{number}", time=NOON))


def test_limiters_without_room_are_one(stats: Stats, observers: Observers) -> None:
    for number in range(1_200):
        emit(observers, "allowed", limiter=f"/items/{number}", key="ada")
    limiters = stats.snapshot().limiters
    assert len(limiters) == 1_000
    assert limiters["(others)"].allowed == 201
    assert limiters["(others)"].keys[0].allowed == 201


def test_only_the_heaviest_keys_are_shown_and_what_the_others_may_have(clock: ManualClock) -> None:
    stats = Stats(top=2, keys="clear")
    observers = Observers([stats], clock)
    for key in "aaabbbbcc":
        emit(observers, "allowed", key=key)
    counts = counts_of(stats)
    assert counts.keys == (KeyCounts("b", 4), KeyCounts("a", 3))
    assert counts.key_floor == 2


def test_no_key_is_shown_in_the_clear_unless_that_is_asked_for(stats: Stats, observers: Observers) -> None:
    emit(observers, "shadow", key="ada@example.org")
    assert "ada" not in repr(stats.snapshot())
    assert "ada" not in repr(stats.snapshot().to_dict())


def test_decisions_about_no_key_are_nobodys(stats: Stats, observers: Observers) -> None:
    emit(observers, "unavailable", 3)
    emit(observers, "exempt", 4, key="ada")
    assert counts_of(stats).keys == ()
    assert counts_of(stats).unavailable == 3


def test_shadow_mode_says_how_many_it_would_have_refused_and_how_many_users(stats: Stats, observers: Observers) -> None:
    for number in range(312):
        emit(observers, "shadow", key=f"user:{number % 14}")
    counts = counts_of(stats)
    assert (counts.shadow, counts.shadow_keys, len(counts.shadow_sample)) == (312, 14, 14)
    assert counts.refused == 0


def test_outages(stats: Stats, observers: Observers, clock: ManualClock) -> None:
    emit(observers, "down", 2, node="one", cause="timeout")
    clock.advance(5)
    emit(observers, "down", node="two", cause="x" * 1_000)
    emit(observers, "recovered", node="one", seconds=5.0, checks=7)
    emit(observers, "recovered", node="three", seconds=65.0)
    assert stats.snapshot().outages == (
        Outage("three", NOON - 60, 65.0),
        Outage("one", NOON, 5.0, "timeout", 7),
        Outage("two", NOON + 5, None, "x" * 200),
    )
    for number in range(30):
        emit(observers, "recovered", node=f"node {number}", seconds=0.0)
    assert len(stats.snapshot().outages) == 20


def test_events_of_the_way_out_and_of_stores(stats: Stats, observers: Observers) -> None:
    emit(observers, "response", 3, "discord", route="GET /gateway", status=200)
    emit(observers, "refused", 1, "discord", route="GET /gateway", scope="global")
    emit(observers, "waited", 2, "discord", route="GET /gateway", seconds=1.0)
    emit(observers, "missed", 1, "", checks=3)
    snapshot = stats.snapshot()
    assert snapshot.discord == {"response": 3, "refused": 1, "waited": 2}
    assert snapshot.other == {"missed": 1}
    assert snapshot.limiters == {}


def test_reset(stats: Stats, observers: Observers, clock: ManualClock) -> None:
    for kind in ("allowed", "down", "response", "missed"):
        emit(observers, kind)
    stats.reset()
    snapshot = stats.snapshot()
    assert (snapshot.limiters, snapshot.outages, snapshot.discord, snapshot.other) == ({}, (), {}, {})
    assert snapshot.time == clock.wall()
    emit(observers, "allowed")
    assert counts_of(stats).allowed == 1


def test_without_a_store_the_last_event_is_now() -> None:
    stats = Stats()
    assert stats.snapshot().time == 0.0
    for seconds in (0, 61):
        event = Event("limited", "app", key="ada", time=NOON + seconds)
        stats(event)
    assert counts_of(stats).minutes[-1] == Period(NOON + 60, 0, 1)


def test_settlements_that_are_not_counted_are_no_decisions(stats: Stats, observers: Observers) -> None:
    for kind in ("lost", "owed", "lost"):
        emit(observers, kind)
    snapshot = stats.snapshot()
    assert (snapshot.limiters, snapshot.other) == ({}, {"lost": 2, "owed": 1})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_counts_from_zero(stats: Stats, observers: Observers) -> None:
    emit(observers, "allowed")
    child = os.fork()
    if not child:
        is_new = not stats.snapshot().limiters
        emit(observers, "allowed")
        os._exit(0 if is_new and counts_of(stats).allowed == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts_of(stats).allowed == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stats(top=0), "top must be .* not 0"),
        (lambda: Stats(top=True), "top must be .* not True"),
        (lambda: Stats(top="many"), "top must be .* not 'many'"),  # type: ignore[arg-type]
        (lambda: Stats(keys="plain"), "keys must be .* not 'plain'"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_option_is_refused(make: Callable[[], Stats], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
