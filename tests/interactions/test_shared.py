"""Several processes, a Redis that fails, a store that hangs: Discord gets its answer within 3 s all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx
import pytest

from asgi_ratelimit import Decision, MemoryStore, StoreUnavailable
from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import as_dependency, limited, reached, refusals, with_limit
from tests.support.servers import KINDS, Server
from tests.support.signing import PING, PONG, Discord, command, content, encoded, signature_of

pytestmark = pytest.mark.anyio

DISCORDS_PATIENCE = 3.0  # seconds
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def redis() -> Any:
    with Server(KINDS[0]) as server:
        yield server


@pytest.fixture
async def stores(redis: Server) -> AsyncIterator[list[RedisStore]]:
    """As two processes would have them."""
    redis.resume()
    redis.command("FLUSHALL")
    stores = [RedisStore(redis.url, timeout=1.0) for _ in range(2)]
    yield stores
    redis.resume()
    for store in stores:
        await store.aclose()


async def in_time(answer: Awaitable[httpx.Response]) -> httpx.Response:
    began = time.monotonic()
    answered = await answer
    assert time.monotonic() - began < DISCORDS_PATIENCE
    return answered


async def test_processes_share_the_limit_and_the_memory_of_replays(stores: list[RedisStore]) -> None:
    one, two = [Discord(as_dependency(limited(store, "2/60s")), CLOCK) for store in stores]
    body = encoded(command("1"))
    headers = signature_of(body, int(time.time()))
    assert reached(await one.send(body, headers))
    assert [(await each.send(body, headers)).status_code for each in (two, one, two)] == [401] * 3
    assert await refusals(two, command("1"), command("1"), command("2")) == [False, True, False]


async def test_a_replay_is_remembered_for_as_long_as_any_clock_may_believe_it(
    stores: list[RedisStore], redis: Server
) -> None:
    await Discord(as_dependency(limited(stores[0], tolerance=30)), CLOCK).post(command("1"), late=-25)
    lives = [redis.command("PTTL", key) for key in redis.command("KEYS", "*")]
    assert max(lives) > 55_000


@pytest.mark.parametrize("outage", ["local", "open", "closed"])
async def test_a_redis_that_stops_costs_no_answer(redis: Server, stores: list[RedisStore], outage: Outage) -> None:
    store = RedisStore(redis.url, outage=outage)
    discord = Discord(as_dependency(limited(store, "2/60s")), CLOCK)
    assert reached(await discord.post(command("0")))
    redis.pause()
    try:
        answers = [await in_time(discord.post(command())) for _ in range(5)]
        typed = await in_time(discord.post(command(type=4)))
        assert (await in_time(discord.post(PING))).json() == PONG
        body = encoded(command("3"))
        headers = signature_of(body, int(time.time()))
        replays = [await in_time(discord.send(body, headers)) for _ in range(2)]
        assert (await in_time(discord.post(command(), forged=True))).status_code == 401
    finally:
        redis.resume()
        await store.aclose()
    assert [reached(each) for each in answers] == {
        "local": [True, True, False, False, False], "open": [True] * 5, "closed": [False] * 5,
    }[outage]  # fmt: skip
    assert typed.status_code == 200
    assert replays[1].status_code == 401
    if outage == "closed":
        assert "try again shortly" in content(answers[0])
        assert typed.json() == {"type": 8, "data": {"choices": []}}


async def test_a_redis_that_is_not_there_costs_no_answer() -> None:
    store = RedisStore("redis://127.0.0.1:9", outage="closed")
    discord = Discord(as_dependency(limited(store, unavailable={"de": "Gleich wieder."})), CLOCK)
    assert content(await in_time(discord.post(command(locale="de")))) == "Gleich wieder."
    assert "try again shortly" in content(await in_time(discord.post(command(locale="fr"))))
    await store.aclose()


class _Broken(MemoryStore):
    """Its buckets hang, or say that they cannot answer."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__(clock=ManualClock())
        self._hangs = hangs

    def open(self, name: str, policies: Any) -> Any:
        return _BrokenBuckets(self._hangs)


class _BrokenBuckets:
    def __init__(self, hangs: bool) -> None:
        self._hangs = hangs

    def decide(self, *_: Any) -> Any:
        return self._fail()

    def peek(self, *_: Any) -> Any:
        return self._fail()

    async def _fail(self) -> Decision:
        if self._hangs:
            await asyncio.Event().wait()
        raise StoreUnavailable("no room")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_store_that_does_not_answer_is_not_waited_for(hangs: bool) -> None:
    store = _Broken(hangs=hangs)
    discord = with_limit(store, store.clock)
    assert "try again shortly" in content(await in_time(discord.post(command())))
    assert (await in_time(discord.post(command(type=4)))).json()["type"] == 8
