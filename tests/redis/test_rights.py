"""The rights that a user needs in Redis: the docs list enough, and the start names each that is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, SlidingWindow, StoreUnavailable, TokenBucket
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.redis import RedisStore, StoreEvent
from tests.support.servers import Cluster, Server

pytestmark = pytest.mark.anyio

RIGHTS = ("+eval", "+evalsha", "+get", "+set", "+del", "+time", "~ratelimit:*")
OF_CLUSTERS = ("+cluster|slots", "+asking")
OF_DISCORD = ("+pexpire", "+pttl", "+zadd", "+zcard", "+zrange", "+zrem", "+zremrangebyscore")
DOCS = Path(__file__).parents[2] / "docs" / "redis.md"


def allow(server: Server, *rights: str) -> str:
    """The URL of a user who has these rights only."""
    server.command("ACL", "SETUSER", "app", "reset", "on", ">word", "-@all", *rights)
    return f"redis://app:word@127.0.0.1:{server.port}"


@pytest.fixture
def server(redis_server: Server) -> Iterator[Server]:
    yield redis_server
    redis_server.command("ACL", "DELUSER", "app")


async def refusal(url: str) -> str:
    store = RedisStore(url, timeout=5.0)
    with pytest.raises(StoreUnavailable) as caught:
        await store.start()
    await store.aclose()
    return str(caught.value)


def test_the_docs_list_them() -> None:
    text = DOCS.read_text()
    assert " ".join(RIGHTS) in text
    assert " ".join(OF_CLUSTERS) in text
    assert " ".join(OF_DISCORD) in text


async def test_they_are_enough_for_all_that_a_limiter_does(server: Server) -> None:
    kinds: list[Any] = [TokenBucket("5/m"), FixedWindow("5/m"), SlidingWindow("5/m"), LeakyBucket("5/m", queue=5)]
    async with RedisStore(allow(server, *RIGHTS), timeout=5.0, outage="closed", deny_cache=0) as store:
        for number, limit in enumerate([*kinds, kinds[:3]]):
            limiter = Limiter(limit, store=store, name=f"limiter {number}")
            decision = await limiter.try_acquire("a", cost=5)
            assert not (await limiter.try_acquire("a", cost=5)).allowed
            await limiter.refund(decision)
            assert (await limiter.peek("a")).reason == "ok"
            await limiter.block("a", 5)
            assert (await limiter.try_acquire("a")).reason == "blocked"
            await limiter.reset("a")
            assert (await limiter.acquire("a", timeout=5)).reason == "ok"


@pytest.mark.parametrize("missing", RIGHTS)
async def test_one_that_is_missing_is_an_error_that_names_it(server: Server, missing: str) -> None:
    message = await refusal(allow(server, *(right for right in RIGHTS if right != missing)))
    first, _, rest = message.partition(". ")
    assert (f"'{missing[1:]}'" if missing[0] == "+" else "key") in first
    assert " ".join(RIGHTS) in rest
    assert "word" not in message


async def test_the_prefix_of_the_store_is_the_one_that_is_named(any_redis: Server) -> None:
    store = RedisStore(allow(any_redis, *RIGHTS), prefix="mine", timeout=5.0)
    with pytest.raises(StoreUnavailable, match=r"~mine:\*"):
        await store.start()
    await store.aclose()
    any_redis.command("ACL", "DELUSER", "app")


async def test_another_database_needs_select(server: Server) -> None:
    assert "'select'" in await refusal(allow(server, *RIGHTS) + "/1")
    async with RedisStore(allow(server, *RIGHTS, "+select") + "/1", timeout=5.0, outage="closed") as store:
        assert (await Limiter("5/m", store=store).try_acquire("a")).reason == "ok"


async def test_a_cluster_needs_two_more(cluster: Cluster) -> None:
    def url(*rights: str) -> str:
        for node in cluster.nodes:
            allow(node, *rights)
        return "redis+cluster://app:word@" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)

    async with RedisStore(url(*RIGHTS, *OF_CLUSTERS), timeout=5.0, outage="closed") as store:
        assert (await Limiter("5/m", store=store).try_acquire("a")).reason == "ok"
    assert "'cluster" in await refusal(url(*RIGHTS, OF_CLUSTERS[1]))
    assert "'asking'" in await refusal(url(*RIGHTS, OF_CLUSTERS[0]))
    for node in cluster.nodes:
        node.command("ACL", "DELUSER", "app")


async def test_a_discord_client_needs_more(any_redis: Server) -> None:
    url = allow(any_redis, *RIGHTS, *OF_DISCORD)
    limits = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset-after": "0.2"}
    statuses = iter([200] * 6 + [429] + [200] * 6)

    def answer(request: httpx.Request) -> httpx.Response:
        status = next(statuses)
        headers = {**limits, "x-ratelimit-bucket": "abc", **({"retry-after": "0.01"} if status == 429 else {})}
        return httpx.Response(status, json={"retry_after": 0.01, "global": False}, headers=headers)

    events: list[StoreEvent] = []
    async with RedisStore(url, timeout=5.0, outage="closed", on_event=events.append) as store:
        transport = httpx.MockTransport(answer)
        async with DiscordClient("token", store=store, transport=transport) as client, asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(client.get("/channels/1/messages"))
    assert events == []
    any_redis.command("ACL", "DELUSER", "app")
