"""The memory of signed messages: forgotten once stale, bounded, and cheap in every single call."""

from __future__ import annotations

import logging
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import pytest

from asgi_ratelimit.interactions.replays import ReplayCache
from asgi_ratelimit.interactions.signature import Signed


def signed(number: int, at: int) -> Signed:
    return Signed(at, blake2b(b"%d" % number, digest_size=16).hexdigest())


def test_what_was_seen_is_forgotten_once_it_is_stale() -> None:
    seen = ReplayCache(300, shards=1)
    assert [seen.add(signed(number, 1000 + number), 1000.0) for number in range(10)] == [True] * 10
    assert not seen.add(signed(9, 1009), 1300.0)
    assert seen.add(signed(10, 1304), 1304.5)
    assert len(seen) == 6


def test_the_memory_of_what_was_seen_is_bounded_and_the_oldest_makes_way() -> None:
    seen = ReplayCache(300, most=3, shards=1)
    for number in range(5):
        assert seen.add(signed(number, 1000), 1000.0)
    assert len(seen) == 3
    assert [seen.add(signed(number, 1000), 1000.0) for number in (4, 3, 2)] == [False] * 3


def test_what_is_dropped_before_it_is_stale_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    seen = ReplayCache(300, most=64, shards=1)
    with caplog.at_level(logging.WARNING, logger="asgi_ratelimit"):
        for number in range(32):
            seen.add(signed(number, 1000), 1000.0)
            seen.add(signed(number + 64, 1400), 1400.0)  # the others are stale, so they may be dropped
        assert caplog.messages == []
        for number in range(1000):
            seen.add(signed(number + 64, 1400), 1400.0)
    assert caplog.messages == [
        "more than 64 signed interactions within 300 s: the oldest are forgotten, and replays of these pass"
    ]


def test_after_a_silence_one_call_does_a_bounded_part_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[int] = []

    class Counting(OrderedDict[str, int]):
        def popitem(self, last: bool = True) -> Any:
            removed.append(1)
            return super().popitem(last)

    monkeypatch.setattr("asgi_ratelimit.interactions.replays.OrderedDict", Counting)
    seen = ReplayCache(300)
    for number in range(20_000):
        seen.add(signed(number, 1000), 1000.0)
    seen.add(signed(20_000, 1301), 1301.0)
    assert 0 < len(removed) <= 8
    for number in range(20_001, 24_000):
        seen.add(signed(number, 1301), 1301.0)
    assert len(seen) == 4_000  # the others have been forgotten meanwhile


def test_no_shard_grows_so_large_that_its_copy_is_slow() -> None:
    seen = ReplayCache(300, most=100_000)
    for number in range(20_000):
        seen.add(signed(number, 1000), 1000.0)
    assert max(map(len, seen.shards)) < 500
