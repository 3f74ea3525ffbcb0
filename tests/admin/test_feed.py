"""The states that a page receives: each that differs, until the stream ends and the caller has to be let in again."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import anyio
import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.admin.feed import EventStream, Feed
from asgi_ratelimit.admin.limiters import LimitersInUse
from asgi_ratelimit.observe import Event, Snapshot, Stats
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


class _Counting(Stats):
    looks = 0

    async def share(self, store: Store) -> Snapshot:
        self.looks += 1
        return await super().share(store)


class _Passing(ManualClock):
    """A clock on which every sleep is over at once."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def feed_of(clock: ManualClock, every: float = 2.0) -> tuple[Feed, Limiter, _Counting]:
    stats = _Counting()
    store = MemoryStore(clock=clock, observers=[stats])
    return Feed(store, stats, LimitersInUse(store), None, every), Limiter("5/5s", store=store), stats


async def test_a_stream_starts_with_the_state_and_goes_on_with_changes() -> None:
    clock = _Passing()
    feed, limiter, _ = feed_of(clock)
    events: list[dict[str, Any]] = []
    async for event in feed.stream():
        events.append(event)
        if event["event"] == "state":
            await limiter.try_acquire("ada") if len(events) < 3 else None
    seen = [json.loads(event["data"])["limiters"][0]["allowed"] for event in events if event["event"] == "state"]
    assert sorted(set(seen)) == [0, 1, 2]
    assert len(seen) < 10  # not one for each look, though the minute turns in between
    assert events[-1]["event"] == "over"


async def test_a_state_is_written_once_for_all_pages(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, limiter, _ = feed_of(clock)
    await limiter.try_acquire("ada")
    written: list[object] = []
    dumps = json.dumps
    monkeypatch.setattr("asgi_ratelimit.admin.feed.json.dumps", lambda state: written.append(state) or dumps(state))  # type: ignore[func-returns-value]
    states = [await anext(feed.stream()) for _ in range(20)]
    assert len(written) == 1
    assert states == [states[0]] * 20


async def test_a_stream_ends_after_two_minutes() -> None:
    clock = _Passing()
    feed, _, _ = feed_of(clock)
    started = clock.wall()
    assert [event async for event in feed.stream()][-1]["event"] == "over"
    assert clock.wall() - started == 120


async def test_pages_that_are_open_together_share_one_look(clock: ManualClock) -> None:
    feed, _, stats = feed_of(clock)
    states = [await feed.state() for _ in range(5)]
    assert stats.looks == 1
    clock.advance(1)
    states.append(await feed.state())
    assert stats.looks == 2
    assert states[0]["time"] + 1 == states[-1]["time"]


async def test_a_stream_ends_if_its_reader_takes_nothing() -> None:
    feed, _, _ = feed_of(_Passing())

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        await EventStream(feed.stream(), patience=0.01)({"type": "http", "method": "GET"}, receive, send)


async def test_the_state_has_the_blocks_that_have_begun(clock: ManualClock) -> None:
    feed, limiter, stats = feed_of(clock)
    await limiter.try_acquire("ada")
    stats(Event("escalated", limiter.name, key="ada", seconds=60.0, time=clock.wall()))
    (shown,) = (await feed.state())["limiters"]
    assert (shown["allowed"], shown["escalated"]) == (1, 1)
