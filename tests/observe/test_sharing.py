"""Sharing: the processes that use one Redis see the counts of all of them."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from asgi_ratelimit import Limiter, MemoryStore, StoreUnavailable
from asgi_ratelimit.events import Event
from asgi_ratelimit.observe import LimiterCounts, Snapshot, Stats, merging, shared_snapshot
from asgi_ratelimit.observe.packing import MOST_CHARACTERS, pack, unpack
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Cluster, Server
from tests.support.stores import PATIENCE, calls_of_the_script, names_of, new_store, spoilt

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, sys
from asgi_ratelimit import Limiter
from asgi_ratelimit.events import Event
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.redis import RedisStore

async def main():
    stats = Stats()
    async with RedisStore(sys.argv[1], prefix="shared", timeout=10.0, observers=[stats]) as store:
        limiter = Limiter("2/day", store=store, name="app")
        for decision in range(3):
            await limiter.try_acquire(sys.argv[2])
            await limiter.try_acquire("everybody")
        await stats.share(store)

asyncio.run(main())
"""


@pytest.fixture
async def stores(any_redis: Server, clock: ManualClock) -> AsyncIterator[list[RedisStore]]:
    """Of three processes. They differ in their connections."""
    stores = [new_store(any_redis.url, prefix="shared", clock=clock) for _ in range(3)]
    yield stores
    for store in stores:
        await store.aclose()


def listening(store: RedisStore) -> Stats:
    stats = Stats(keys="clear")
    store.observers.add(stats)
    return stats


async def use(store: RedisStore, key: str, times: int) -> None:
    limiter = Limiter("5/day", store=store, name="app")
    for _ in range(times):
        await limiter.try_acquire(key)


def seen(snapshot: Snapshot) -> tuple[int, int, int]:
    counts = snapshot.limiters["app"]
    return snapshot.processes, counts.allowed, counts.refused


async def test_each_sees_the_counts_of_all(stores: list[RedisStore]) -> None:
    stats = [listening(store) for store in stores]
    for number, store in enumerate(stores, start=1):
        await use(store, "ada", 2 * number)
    shared = [await one.share(store) for one, store in zip(stats, stores, strict=True)]
    assert [snapshot.processes for snapshot in shared] == [1, 2, 3]
    assert seen(shared[2]) == (3, 5, 7)
    (key,) = shared[2].limiters["app"].keys
    assert (key.key, key.allowed, key.refused, key.error) == ("ada", 5, 7, 0)
    assert seen(await shared_snapshot(stores[0])) == (3, 5, 7)


async def test_processes_share_through_redis(any_redis: Server) -> None:
    for key in ("ada", "bob"):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, any_redis.url, key)
        assert await process.wait() == 0
    async with new_store(any_redis.url, prefix="shared") as store:
        snapshot = await shared_snapshot(store)
        assert seen(snapshot) == (2, 6, 6)
        heaviest, *_ = snapshot.limiters["app"].keys
        assert heaviest.key == store.observers.digest("everybody")
        assert (heaviest.allowed, heaviest.refused) == (2, 4)


async def test_it_asks_once_in_five_seconds(stores: list[RedisStore], any_redis: Server, clock: ManualClock) -> None:
    store, stats = stores[0], listening(stores[0])
    await use(store, "ada", 1)
    any_redis.command("CONFIG", "RESETSTAT")
    await asyncio.gather(*(stats.share(store) for _ in range(20)))
    clock.advance(4.9)
    await stats.share(store)
    assert calls_of_the_script(any_redis) <= 2  # the first one may have to bring the script along
    clock.advance(0.2)
    any_redis.command("CONFIG", "RESETSTAT")
    await stats.share(store)
    clock.advance(-60)
    await stats.share(store)
    assert calls_of_the_script(any_redis) == 2


async def test_in_between_its_own_counts_are_fresh(stores: list[RedisStore]) -> None:
    one, other = listening(stores[0]), listening(stores[1])
    await use(stores[1], "ada", 2)
    await other.share(stores[1])
    await one.share(stores[0])
    await use(stores[0], "ada", 2)
    assert seen(await one.share(stores[0])) == (2, 4, 0)


async def test_a_process_that_has_ended_counts_for_an_hour(stores: list[RedisStore], clock: ManualClock) -> None:
    one, other = listening(stores[0]), listening(stores[1])
    await use(stores[0], "ada", 3)
    await one.share(stores[0])
    await use(stores[1], "ada", 2)
    clock.advance(61)
    assert seen(await other.share(stores[1])) == (1, 5, 0)


async def test_records_expire_are_few_and_name_no_key(stores: list[RedisStore], any_redis: Server) -> None:
    for number in range(66):
        stats = Stats()
        stats(Event("limited", "app", key="ada@example.org", time=stores[0].clock.wall()))
        await stats.share(stores[0])
        if number == 1:
            assert len(names_of(any_redis)) == 2
    names = names_of(any_redis)
    assert len(names) == 64
    assert all(name.startswith("shared:{") for name in names)
    assert all(0 < any_redis.command("PTTL", name) <= (3_600 + 86_400) * 1_000 for name in names[:3])
    assert (await shared_snapshot(stores[0])).limiters["app"].limited == 64


async def test_the_server_needs_only_get_and_set(
    stores: list[RedisStore], any_redis: Server, clock: ManualClock
) -> None:
    stats = listening(stores[0])
    await stats.share(stores[0])  # connected
    clock.advance(6)
    any_redis.command("CONFIG", "RESETSTAT")
    await stats.share(stores[0])
    used = {name for name in any_redis.command("INFO", "commandstats") if name.startswith("cmdstat_")}
    of_the_test = {"cmdstat_client", "cmdstat_config", "cmdstat_config|resetstat", "cmdstat_info"}
    assert used - of_the_test == {"cmdstat_evalsha", "cmdstat_get", "cmdstat_set"}


@pytest.mark.parametrize("value", ["list", "nonsense", "1 owner nonsense", "1 owner e30="])
async def test_a_record_of_other_software_is_left_out(stores: list[RedisStore], any_redis: Server, value: str) -> None:
    one, other = listening(stores[0]), listening(stores[1])
    await use(stores[0], "ada", 1)
    await one.share(stores[0])
    (name,) = [name for name in names_of(any_redis) if name.endswith(":1")]
    with spoilt(any_redis, name, value):
        await use(stores[1], "ada", 1)
        assert seen(await other.share(stores[1])) == (1, 1, 0)
        assert (await shared_snapshot(stores[2])).processes == 1


async def test_an_outage_leaves_the_counts_of_this_process(stores: list[RedisStore], any_redis: Server) -> None:
    one, other = listening(stores[0]), listening(stores[1])
    await use(stores[0], "ada", 1)
    await one.share(stores[0])
    await use(stores[1], "ada", 1)
    assert seen(await other.share(stores[1])) == (2, 2, 0)
    any_redis.stop()
    stores[1].clock.advance(6)  # type: ignore[attr-defined]
    assert seen(await other.share(stores[1])) == (1, 1, 0)
    with pytest.raises(StoreUnavailable, match="it has the snapshots"):
        await shared_snapshot(stores[1])


async def test_it_shares_for_as_long_as_an_app_runs(stores: list[RedisStore]) -> None:
    store, stats = stores[0], listening(stores[0])
    await use(store, "ada", 1)
    async with asyncio.timeout(PATIENCE), stats.sharing(store):
        while not (await shared_snapshot(stores[1])).processes:
            await asyncio.sleep(0.001)
        await use(store, "ada", 1)
        while (await shared_snapshot(stores[1])).limiters["app"].allowed < 2:
            store.clock.advance(5)  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)


async def test_in_a_cluster_all_records_are_in_one_slot(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        for stats in (listening(store), Stats()):
            await use(store, "ada", 1)
            snapshot = await stats.share(store)
        assert snapshot.processes == 2
        assert (await shared_snapshot(store)).processes == 2


async def test_without_redis_a_process_has_its_own_counts(stats_store: MemoryStore) -> None:
    stats = Stats()
    stats_store.observers.add(stats)
    await Limiter("5/day", store=stats_store, name="app").try_acquire("ada")
    assert await stats.share(stats_store) == stats.snapshot()
    assert await shared_snapshot(stats_store) == Snapshot(stats_store.clock.wall(), processes=0)


@pytest.fixture
def stats_store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


def full(limiters: int, name: str) -> Snapshot:
    stats = Stats()
    for limiter in range(limiters):
        for key in range(150):
            now = 1_700_000_000.0 + 60 * key
            stats(Event("shadow", f"{limiter}{name}", key=f"{key}", time=now))
    return stats.snapshot()


def test_a_record_is_bounded() -> None:
    snapshot = full(150, "x" * 100)
    text = pack(snapshot)
    assert len(text) <= MOST_CHARACTERS
    limiters = unpack(text).limiters
    assert sum(counts.total for counts in limiters.values()) == 150 * 150
    assert len(pack(full(3, "x" * 200_000))) <= MOST_CHARACTERS


def test_a_small_snapshot_comes_back_whole() -> None:
    snapshot = replace(full(2, ""), discord={"wait": 1})
    back = Snapshot.merge([unpack(pack(snapshot))])
    for name, counts in snapshot.limiters.items():
        assert back.limiters[name].minutes == counts.minutes
        assert back.limiters[name].hours == counts.hours
        assert set(back.limiters[name].keys) == set(counts.keys[:50])
    assert back.discord == {"wait": 1}


@pytest.mark.parametrize(
    "too_much",
    [
        {"limiters": [{"name": f"{number}"} for number in range(1_001)]},
        {"limiters": [{"name": "app", "minutes": [{"start": number} for number in range(1_001)]}]},
        {"limiters": [{"name": "app", "keys": [{"key": f"{number}"} for number in range(10_001)]}]},
        {"outages": [{"node": "redis", "start": number} for number in range(1_001)]},
    ],
    ids=["limiters", "minutes", "keys", "outages"],
)
def test_more_than_any_process_writes_is_refused(too_much: dict[str, object]) -> None:
    written = json.dumps({"time": 1.0, **too_much}).encode()
    with pytest.raises(ValueError, match=r"at most, not 10?001"):
        unpack(b64encode(zlib.compress(written)))


def test_a_longer_text_than_any_process_writes_is_refused() -> None:
    text = pack(Snapshot(1.0))
    padded = b64encode(zlib.compress(json.dumps(Snapshot(1.0).to_dict()).encode() + b" " * 60_000, 0))
    assert unpack(text) == Snapshot(1.0)
    with pytest.raises(ValueError, match="65536 characters at most"):
        unpack(padded)


async def test_a_process_with_a_clock_far_ahead_hides_no_minutes(stores: list[RedisStore], clock: ManualClock) -> None:
    ahead = ManualClock(clock.wall() + 86_400)
    wrong, right = Stats(), listening(stores[0])
    wrong.attach(ahead)
    wrong(Event("allowed", "app", key="a", time=ahead.wall()))
    await wrong.share(stores[1])
    await use(stores[0], "ada", 3)
    for snapshot in (await right.share(stores[0]), await shared_snapshot(stores[2])):
        assert snapshot.time == clock.wall()
        assert snapshot.limiters["app"].minutes[-1].total == 3
        assert snapshot.limiters["app"].total == 4


def test_limiters_for_which_there_is_no_room_are_merged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 processes with limiters of their own would hold up the loop for a minute."""
    merged: list[str] = []
    merge = merging.merge_limiters

    def noting(name: str, parts: Sequence[LimiterCounts], now: float) -> LimiterCounts:
        merged.append(name)
        return merge(name, parts, now)

    monkeypatch.setattr(merging, "merge_limiters", noting)
    parts = [Snapshot(1.0, {f"{n}": LimiterCounts(f"{n}", allowed=n) for n in range(k, k + 900)}) for k in (0, 900)]
    snapshot = Snapshot.merge(parts)
    assert len(merged) == len(snapshot.limiters) == 1_000
    assert snapshot.limiters["(others)"].allowed == sum(range(801))


def test_a_text_that_would_become_too_large_is_refused() -> None:
    bomb = Snapshot(1.0, {"x": LimiterCounts("x")}, other={"x" * 5_000_000: 1})
    assert json.dumps(bomb.to_dict())
    with pytest.raises(ValueError, match=r"."):
        unpack(pack(bomb))
