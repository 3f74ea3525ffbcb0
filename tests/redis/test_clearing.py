"""`RedisStore.clear`: every record of the store, on every server, and no other."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ratelimit import FixedWindow, Limiter, StoreUnavailable, TokenBucket
from asgi_ratelimit.redis import RedisStore
from tests.support.servers import Cluster, Server
from tests.support.servers.server import HOST, free_port
from tests.support.stores import PATIENCE, names_of, new_store

PREFIXES = ["ratelimit", "a*", "a?b", "[ab]", "a\\", "^a", "my app"]


async def use(store: RedisStore) -> Limiter:
    limiter = Limiter(
        ["5/day", TokenBucket("9/day", scope="global"), FixedWindow("9/day", scope="shared")], store=store
    )
    for number in range(20):
        await limiter.try_acquire(f"user:{number}", per=f"room{number}")
        await limiter.block(f"user:{number}", 3600)
    return limiter


@pytest.mark.anyio
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_all_records_of_its_prefix_go_and_no_others(any_redis: Server, prefix: str) -> None:
    others = ["ratelimit:mine", "ab", "a", "b:{x}:block", "ratelimits:{x}:block", "axb:{x}", "ab:{x}", "a\\x:{y}"]
    for name in others:
        any_redis.command("SET", name, "1")
    async with new_store(any_redis.url, prefix=prefix) as store:
        limiter = await use(store)
        assert len(names_of(any_redis)) > 40
        await store.clear()
        assert names_of(any_redis) == sorted(others)
        assert (await limiter.try_acquire("user:1", cost=5, per="room1")).allowed


@pytest.mark.anyio
async def test_every_node_of_a_cluster_is_cleared(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        await use(store)
        assert all(names_of(node) for node in cluster.nodes)
        await store.clear()
        assert [names_of(node) for node in cluster.nodes] == [[]] * len(cluster.nodes)


def test_it_can_be_called_from_a_fixture_without_an_event_loop(any_redis: Server) -> None:
    store = new_store(any_redis.url)

    async def count() -> int:
        decision = await Limiter("5/day", store=store).try_acquire("ada")
        await store.aclose()
        return decision.remaining

    seen = []
    for _ in range(2):
        seen.append(asyncio.run(count()))
        asyncio.run(store.clear())
    assert seen == [4, 4]


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_server_that_is_down_is_reported_and_this_process_forgets_all_the_same(scheme: str) -> None:
    async with RedisStore(f"{scheme}://{HOST}:{free_port()}", timeout=PATIENCE) as store:
        limiter = Limiter("1/day", store=store)
        assert (await limiter.try_acquire("ada")).allowed
        assert not (await limiter.try_acquire("ada")).allowed
        with pytest.raises(StoreUnavailable, match="cannot be cleared"):
            await store.clear()
        assert (await limiter.try_acquire("ada")).allowed
