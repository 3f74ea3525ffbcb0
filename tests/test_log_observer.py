"""One line a minute about what a limiter refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.events import Event
from asgi_ratelimit.log_observer import LogObserver
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "asgi_ratelimit")
    return caplog


async def pass_a_minute(clock: ManualClock) -> None:
    clock.advance(60)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_every_store_logs_refusals_once_a_minute_and_names_no_key(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    limiter = Limiter("1/day", store=store, name="search")
    for key in ["user:ann"] * 6 + ["user:bob"] * 3:
        await limiter.try_acquire(key)
    assert not lines.records
    await pass_a_minute(clock)
    digest = store.observers.digest("user:ann")
    assert [record.getMessage() for record in lines.records] == [
        f"search: 7 refused in 60 s (keys: 2, the most of one: 5 ({digest}))"
    ]
    record: Any = lines.records[0]
    assert record.levelname == "INFO"
    assert (record.limiter, record.limited, record.blocked, record.keys) == ("search", 7, 0, 2)
    assert (record.heaviest_key, record.heaviest_count, record.seconds) == (digest, 5, 60.0)
    await pass_a_minute(clock)
    assert len(lines.records) == 1
    assert "ann" not in lines.text


async def test_nothing_is_logged_of_what_is_allowed(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limiter = Limiter("5/s", store=MemoryStore(clock=clock))
    for _ in range(5):
        await limiter.try_acquire("a")
    await pass_a_minute(clock)
    assert not lines.records


async def test_each_limiter_has_a_line_with_its_kinds_of_refusal(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    one, other = (Limiter("1/day", store=store, name=name) for name in ("one", "other"))
    await one.block("bad", 600)
    await one.try_acquire("bad")
    for _ in range(3):
        await one.try_acquire("a")
    for _ in range(2):
        await other.try_acquire("a")
    await pass_a_minute(clock)
    messages = sorted(record.getMessage().partition(" (")[0] for record in lines.records)
    assert messages == ["one: 2 refused, 1 refused as blocked in 60 s", "other: 1 refused in 60 s"]


async def test_settlements_that_are_not_counted_are_no_answers_with_503(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    for event in [
        Event("owed", "app"),
        Event("lost", "app"),
        Event("lost", "app"),
        Event("owed", "app"),
        Event("lost", "app"),
    ]:
        store.observers.emit(event)
    await pass_a_minute(clock)
    message = "app: 2 cost more than a bucket can owe, 3 not settled, as the server did not answer in 60 s"
    assert [record.getMessage() for record in lines.records] == [message]
    record: Any = lines.records[0]
    assert (record.owed, record.lost, record.unavailable, record.keys) == (2, 3, 0, 0)


def test_a_thread_without_an_event_loop_gets_its_line_with_the_next_refusal(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limiter = SyncLimiter("1/day", store=MemoryStore(clock=clock), name="threads")
    for _ in range(4):
        limiter.try_acquire("a")
    clock.advance(61)
    limiter.try_acquire("a")
    assert [record.getMessage().partition(" (")[0] for record in lines.records] == ["threads: 4 refused in 61 s"]


async def test_no_name_begins_another_line_or_colours_a_terminal(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    observer = LogObserver()
    observer.attach(clock)
    for name in ("a\r\nERROR b\x1b[31m", "x" * 10_000):
        observer(Event("limited", name, key="\nada", time=clock.wall()))
    await pass_a_minute(clock)
    messages = [record.getMessage().partition(" 1 refused")[0] for record in lines.records]
    assert messages == ["a\ufffd\ufffdERROR b\ufffd[31m:", f"{'x' * 200}:"]


async def test_the_line_has_each_kind_that_is_no_refusal(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    observer = LogObserver()
    observer.attach(clock)
    for kind in ("gone", "owed", "lost"):
        observer(Event(kind, "app", key="ada", time=clock.wall()))
    await pass_a_minute(clock)
    (record,) = lines.records
    others = "1 left without an answer, 1 cost more than a bucket can owe, 1 not settled, as the server did not answer"
    assert record.getMessage() == f"app: {others} in 60 s"


async def test_a_long_wait_is_counted_and_waits_of_calls_to_discord_are_not() -> None:
    records: list[logging.LogRecord] = []
    logger = logging.Logger("mine")
    logger.addHandler(_Collector(records))
    clock = ManualClock()
    observer = LogObserver(every=10, level=logging.WARNING, logger=logger)
    observer.attach(clock)
    observer(Event("waited", "app", seconds=31.0, time=clock.wall()))
    observer(Event("waited", "app", seconds=3.0, time=clock.wall()))
    observer(Event("waited", "discord", route="GET /users/@me", seconds=300.0, time=clock.wall()))
    clock.advance(10)
    await asyncio.sleep(0)
    assert [record.getMessage() for record in records] == ["app: 1 held for 30 s or more in 10 s"]
    assert records[0].levelname == "WARNING"


async def test_the_number_of_lines_and_keys_is_bounded(lines: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    observer = LogObserver()
    observer.attach(clock)
    for number in range(3_000):
        observer(Event("limited", f"limiter {number}", key="a", time=clock.wall()))
        observer(Event("limited", "limiter 0", key=f"user:{number}", time=clock.wall()))
    await pass_a_minute(clock)
    assert len(lines.records) == 1_001
    messages = [record.getMessage() for record in lines.records]
    assert any(message.startswith("limiter 0: 3001 refused in 60 s (keys: 1000+") for message in messages)
    assert any(message.startswith("(others): 2000 refused") for message in messages)


def test_a_log_observer_of_ones_own_takes_the_place_of_the_stores() -> None:
    own = LogObserver(every=3600)
    assert len(MemoryStore(observers=[own]).observers) == 1
    assert own in MemoryStore(observers=[own]).observers
    assert len(MemoryStore().observers) == 1


def test_a_forked_process_counts_from_zero(lines: pytest.LogCaptureFixture) -> None:
    observer = LogObserver()
    observer(Event("limited", "app", key="a", time=100.0))
    observer.begin_anew()
    observer(Event("limited", "app", key="a", time=100.0))
    observer(Event("limited", "app", key="a", time=161.0))
    assert [record.getMessage().partition(" (")[0] for record in lines.records] == ["app: 2 refused in 61 s"]


def test_a_clock_that_goes_back_loses_no_line(lines: pytest.LogCaptureFixture) -> None:
    observer = LogObserver()
    observer(Event("limited", "app", key="a", time=5_000.0))
    observer(Event("limited", "app", key="a" * 9_000, time=100.0))
    assert [record.getMessage().partition(" (")[0] for record in lines.records] == ["app: 2 refused in 0 s"]


@pytest.mark.parametrize("every", [0, -1, True, "60", float("nan"), float("inf")])
def test_a_bad_interval_is_refused_with_a_right_one(every: Any) -> None:
    with pytest.raises(ValueError, match=r"every must be seconds above 0, e\.g\. every=60, not"):
        LogObserver(every=every)


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.emit = records.append  # type: ignore[assignment, method-assign]
