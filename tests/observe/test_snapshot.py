"""Snapshots: written as JSON, read again, and merged with their errors added."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.events import Event, Observers
from asgi_ratelimit.observe import KeyCounts, LimiterCounts, Outage, Period, Snapshot, Stats
from asgi_ratelimit.testing import ManualClock

NOON = 1_700_049_600.0
KINDS: Any = ("allowed", "limited", "blocked", "shadow", "exempt", "near", "waited", "down", "recovered", "response")

calls = st.tuples(
    st.sampled_from(KINDS), st.sampled_from(["app", "/items"]), st.integers(0, 12).map(str), st.integers(0, 400)
)
loads = st.lists(calls, max_size=60)
Load = list[tuple[Any, str, str, int]]  # kind, limiter, key, seconds until the next


def run(load: Load, top: int = 2) -> Snapshot:
    stats, clock = Stats(top=top, keys="clear"), ManualClock(NOON)
    observers = Observers([stats], clock)
    for kind, limiter, key, seconds in load:
        observers.emit(Event(kind, limiter, key=key, seconds=1.5, node="redis"))
        clock.advance(seconds)
    return stats.snapshot()


def one(**fields: Any) -> Snapshot:
    return Snapshot(NOON, {"app": LimiterCounts("app", **fields)})


def merged(*snapshots: Snapshot) -> LimiterCounts:
    return Snapshot.merge(snapshots).limiters["app"]


@given(loads)
def test_json_and_back(load: Load) -> None:
    snapshot = run(load)
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot


@given(loads)
def test_a_snapshot_merged_with_nothing_is_itself(load: Load) -> None:
    snapshot = run(load)
    both = Snapshot.merge([snapshot])
    assert both.limiters == snapshot.limiters
    assert both.time == snapshot.time


@given(st.lists(loads, min_size=1, max_size=4))
def test_the_bounds_of_merged_keys_hold(all_loads: list[Load]) -> None:
    both = Snapshot.merge([run(load) for load in all_loads])
    for name, counts in both.limiters.items():
        about = [(kind, key) for load in all_loads for kind, limiter, key, _ in load if limiter == name]
        truth = Counter(key for kind, key in about if kind in ("allowed", "limited", "blocked", "shadow"))
        rows = {row.key: row for row in counts.keys}
        for key, number in truth.items():
            if key in rows:
                assert rows[key].total <= number <= rows[key].total + rows[key].error
            else:
                assert number <= counts.key_floor
        assert counts.total == sum(truth.values()) + sum(kind == "exempt" for kind, _ in about)


def test_counts_are_added() -> None:
    first = one(allowed=3, limited=2, waited=1, waited_seconds=0.5, near=1)
    second = replace(one(allowed=4, shadow=1, cached=2), discord={"wait": 2}, other={"missed": 1}, processes=3)
    both = Snapshot.merge([replace(first, discord={"wait": 1, "retry": 1}), second])
    assert (both.processes, both.discord, both.other) == (4, {"wait": 3, "retry": 1}, {"missed": 1})
    counts = both.limiters["app"]
    assert (counts.allowed, counts.limited, counts.shadow, counts.cached, counts.near) == (7, 2, 1, 2, 1)
    assert (counts.waited, counts.waited_seconds) == (1, 0.5)


def test_the_window_is_that_of_the_latest() -> None:
    early = one(minutes=(Period(NOON - 3600, 5), Period(NOON - 60, 7)))
    late = replace(one(minutes=(Period(NOON - 60, 1, 2), Period(NOON + 60, 4))), time=NOON + 61)
    minutes = merged(early, late).minutes
    assert [period.start for period in minutes] == [NOON + 60 * number for number in range(-58, 2)]
    assert [period.total for period in minutes[-3:]] == [10, 0, 4]
    assert sum(period.total for period in minutes) == 14


def test_the_busiest_minute_is_found_anew() -> None:
    quiet, busy = Period(NOON - 60, 6), Period(NOON, 5, 1)
    first, second = one(minutes=(quiet, busy), busiest=quiet), one(minutes=(busy,), busiest=busy)
    assert merged(first, second).busiest == Period(NOON, 10, 2)
    long_ago = one(busiest=Period(NOON - 86_400, 7))
    assert merged(first, second, long_ago).busiest == Period(NOON, 10, 2)
    assert merged(first, second, long_ago, long_ago).busiest == Period(NOON - 86_400, 14)
    assert merged(one(), one()).busiest is None


def test_a_key_that_only_one_lists_may_have_been_missed_by_the_other() -> None:
    first = one(keys=(KeyCounts("a", 9, 1, 2), KeyCounts("b", 3)), key_floor=3)
    second = one(keys=(KeyCounts("a", 5, 5, 0), KeyCounts("c", 4, 4, 1)), key_floor=4)
    counts = merged(first, second)
    assert counts.keys == (KeyCounts("a", 14, 6, 2), KeyCounts("c", 4, 4, 4), KeyCounts("b", 3, 0, 4))
    assert counts.key_floor == 7


def test_keys_of_shadow_mode_are_counted_once() -> None:
    first = one(shadow_keys=3, shadow_sample=("1", "2", "3"))
    second = one(shadow_keys=2, shadow_sample=("3", "4"))
    assert merged(first, second).shadow_keys == 4
    assert merged(first, one(shadow_keys=900, shadow_sample=("3", "4"))).shadow_keys == 900


def test_an_outage_that_several_have_seen_is_one() -> None:
    seen = [
        Outage("one", NOON, 10.0, "timeout", 5),
        Outage("one", NOON + 1, 11.0, "", 2),
        Outage("two", NOON + 2, None),
        Outage("two", NOON + 3, 4.0, "reset"),
        Outage("one", NOON + 60, 1.0),
    ]
    assert Snapshot.merge([Snapshot(NOON, outages=(outage,)) for outage in seen]).outages == (
        Outage("one", NOON, 12.0, "timeout", 7),
        Outage("two", NOON + 2, None, "reset"),
        Outage("one", NOON + 60, 1.0),
    )


def test_limiters_without_room_are_one() -> None:
    many = [Snapshot(NOON, {f"{part}{n}": LimiterCounts(f"{part}{n}", n) for n in range(600)}) for part in "ab"]
    limiters = Snapshot.merge(many).limiters
    assert len(limiters) == 1_000
    assert sum(counts.allowed for counts in limiters.values()) == 2 * sum(range(600))
    assert limiters["(others)"].allowed == 2 * sum(range(101)) - 100


def test_nothing_merged_is_nothing() -> None:
    assert Snapshot.merge([]) == Snapshot(0.0, processes=0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "must be a dict"),
        ({}, "time of a snapshot must be a number of seconds, not None"),
        ({"time": float("nan")}, "time"),
        ({"time": float("inf")}, "time"),
        ({"time": 10**400}, "time of a snapshot must be a number of seconds, not a number that is too large"),
        ({"time": 1, "limiters": [{"name": "app", "waited_seconds": 1e308}]}, "waited_seconds"),
        ({"time": 1, "processes": 10**5_000}, "processes of a snapshot must be a whole number"),
        ({"time": 1, "limiters": 5}, "limiters of a snapshot must be a list"),
        ({"time": 1, "limiters": [{"name": 5}]}, "must be a string, not 5"),
        ({"time": 1, "limiters": [{"name": "app", "allowed": -1}]}, "allowed of a snapshot must be a whole number"),
        ({"time": 1, "limiters": [{"name": "app", "minutes": [{"start": "x"}]}]}, "the start of a period"),
        ({"time": 1, "limiters": [{"name": "app", "keys": [{"key": None}]}]}, "a key of a snapshot"),
        ({"time": 1, "outages": [{"node": "one", "start": 1, "seconds": "x"}]}, "the seconds of an outage"),
        ({"time": 1, "discord": {"wait": 1.5}}, "discord of a snapshot must be a whole number"),
    ],
)
def test_what_is_no_snapshot_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Snapshot.from_dict(value)


def test_a_snapshot_of_another_version_is_read() -> None:
    value = {"time": NOON, "limiters": [{"name": "app", "allowed": 1, "new": 5}], "newer": {}}
    assert Snapshot.from_dict(value) == one(allowed=1)
