"""A MemoryStore that is full: what it reports, and that no two records meet."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest

from asgi_ratelimit import FixedWindow, Limiter, MemoryStore, RateLimitWarning, StoreEvent, StoreUnavailable
from asgi_ratelimit.store import bucket_key
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

PLAIN: list[Any] = ["5/day", [FixedWindow("5/day")], ["5/day", "9/week"]]


class Reports:
    """The warnings and events of a store of three records, and whether its lock was free."""

    def __init__(self) -> None:
        self.events: list[StoreEvent] = []
        self.clock = ManualClock()
        self.store = MemoryStore(max_keys=3, clock=self.clock, on_event=self.note)

    def note(self, event: StoreEvent) -> None:
        assert self.store.records.lock.acquire(timeout=1), "the hook is called with the lock held"
        self.store.records.lock.release()
        self.events.append(event)


@pytest.mark.parametrize("limit", PLAIN, ids=str)
def test_a_full_store_warns_once_and_emits_an_event_once_a_minute(limit: Any) -> None:
    reports = Reports()
    limiter = SyncLimiter(limit, store=reports.store)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3 // len(limiter.limits)):
            limiter.try_acquire(f"early{number}")
        assert (caught, reports.events) == ([], [])
        for number in range(20):
            limiter.try_acquire(f"late{number}")
        assert [event.kind for event in reports.events] == ["full"]
        reports.clock.advance(60)
        limiter.try_acquire("late")
        limiter.try_acquire("early0")
    assert len(reports.events) == 2
    assert reports.events[0] == StoreEvent("full", "memory", "all 3 records are in use", 0.0)
    messages = [str(warning.message) for warning in caught if warning.category is RateLimitWarning]
    assert [message.split()[0] for message in messages] == ["ARL113"]
    assert "raise max_keys" in messages[0]


@pytest.mark.filterwarnings("ignore:ARL113")
@pytest.mark.parametrize("limit", PLAIN, ids=str)
def test_a_report_takes_no_decision_away(limit: Any) -> None:
    reports = Reports()
    limiter = SyncLimiter(limit, store=reports.store)
    for number in range(10):
        limiter.try_acquire(f"early{number}", 5)
    answers = []
    for number in range(10):
        reports.clock.advance(61)  # each of these is reported
        answers.append(limiter.try_acquire(f"late{number}").allowed)
    assert len(reports.events) >= 10
    assert True not in answers


@pytest.mark.filterwarnings("ignore:ARL113")
def test_a_block_that_finds_no_room_is_reported_too() -> None:
    reports = Reports()
    limiter = SyncLimiter("1/day", store=reports.store)
    for number in range(3):
        limiter.try_acquire(f"early{number}")
    with pytest.raises(StoreUnavailable, match="no room for another block"):
        limiter.block("mallory", 60)
    assert [event.kind for event in reports.events] == ["full"]


def test_a_hook_that_fails_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: StoreEvent) -> None:
        raise ZeroDivisionError

    limiter = SyncLimiter("5/day", store=MemoryStore(max_keys=1, on_event=fail))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as in a user's tests: the warning is logged instead
        assert [limiter.try_acquire(key).allowed for key in "abc"] == [True] * 3
    assert "on_event failed" in caplog.text
    assert "ARL113" in caplog.text


def test_a_hook_may_use_the_store_itself() -> None:
    def block(event: StoreEvent) -> None:
        seen.append(limiter.peek("a").remaining)
        limiter.reset("a")

    seen: list[int] = []
    limiter = SyncLimiter("5/day", store=MemoryStore(max_keys=1, on_event=block))
    done = threading.Event()

    def flood() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for key in "abc":
                limiter.try_acquire(key)
        done.set()

    threading.Thread(target=flood, daemon=True).start()
    assert done.wait(10), "the hook has locked the store up"
    assert seen == [4]


def test_an_empty_store_is_true() -> None:
    store = MemoryStore()
    assert len(store) == 0
    assert bool(store)
    assert (store or None) is store


# Keys and resources

TWINS = [("3:ada7", ""), ("ada", "7"), ("ada7", ""), ("7", "ada"), ("3:ada", "7"), ("5:3:ada7", ""), ("", "3:ada7")]
TWINS += [("a" * 300, "b"), ("a" * 299, "ab"), (f"300:{'a' * 300}b", ""), ("300:" + "a" * 300, "b"), ("\u00b2:a", "")]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["1/day", [FixedWindow("1/day")]], ids=str)
async def test_no_key_shares_a_bucket_with_a_key_and_its_resource(store: MemoryStore, limit: Any) -> None:
    limiter = Limiter(limit, store=store)
    for key, per in TWINS:
        assert (await limiter.try_acquire(key, per=per)).allowed, (key, per)
        assert not (await limiter.try_acquire(key, per=per)).allowed, (key, per)
    await limiter.reset("ada", per="7")
    assert (await limiter.try_acquire("ada", per="7")).allowed
    assert not (await limiter.try_acquire("3:ada7")).allowed


def test_the_bucket_keys_for_stores_of_your_own_are_as_different() -> None:
    assert len({bucket_key("user", key, per) for key, per in TWINS}) == len(TWINS)
    assert bucket_key("user", "user:ada", "") == "user:ada"
