"""A resolver that is slow, gone or wrong: it holds up nothing else, and the addresses known before are used."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore, StoreEvent
from asgi_ratelimit.redis.resolver import Resolver
from tests.support.servers import Server
from tests.support.servers.server import HOST

pytestmark = pytest.mark.anyio

NAME = "redis.example"
PATIENCE = 20.0  # seconds until a hanging test fails


class Dns:
    """Stands in for the system's resolver, which knows one name besides."""

    def __init__(self) -> None:
        self.lookups = 0
        self._numeric = socket.getaddrinfo
        self.error: Exception | None = None
        self.addresses = [HOST]
        self._open = threading.Event()
        self._open.set()

    def stall(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def getaddrinfo(self, host: str, *rest: Any, **options: Any) -> list[Any]:
        if host == HOST:
            return self._numeric(host, *rest, **options)
        if host != NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.lookups += 1
        self._open.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.addresses]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    dns = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", dns.getaddrinfo)
    yield dns
    dns.resume()


class Pool(ThreadPoolExecutor):
    """The default thread pool of the loop, which belongs to the app."""

    used = 0

    def submit(self, *args: Any, **options: Any) -> Any:
        self.used += 1
        return super().submit(*args, **options)


@pytest.fixture
async def pool() -> Pool:
    pool = Pool(max_workers=2)
    asyncio.get_running_loop().set_default_executor(pool)
    return pool


def url(server: Server) -> str:
    return f"redis://{NAME}:{server.port}"


async def until_used(limiter: Limiter) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await limiter.peek("a")).reason == "degraded":
            await asyncio.sleep(0.01)


async def test_the_thread_pool_is_left_to_the_app(dns: Dns, pool: Pool, any_redis: Server) -> None:
    async with RedisStore(url(any_redis), timeout=5.0, outage="closed") as store:
        assert (await Limiter("5/day", store=store).try_acquire("a")).reason == "ok"
    assert dns.lookups == 1
    assert pool.used == 0


async def test_a_server_is_used_soon_after_its_resolver_is_back(
    dns: Dns, pool: Pool, any_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(url(any_redis), timeout=0.5)
    limiter = Limiter("5/day", store=store)
    dns.stall()
    await store.start()  # gives up after a second
    assert (await limiter.try_acquire("a")).reason == "degraded"
    assert await asyncio.to_thread(lambda: "the app's own work") == "the app's own work"
    dns.resume()
    await until_used(limiter)
    await store.aclose()
    assert not [record for record in caplog.records if record.name == "asyncio" and record.exc_info]


async def test_known_addresses_are_used_while_the_resolver_does_not_answer(dns: Dns, any_redis: Server) -> None:
    events: list[StoreEvent] = []
    async with RedisStore(url(any_redis), timeout=5.0, on_event=events.append) as store:
        limiter = Limiter("5/day", store=store)
        await limiter.peek("a")
        dns.stall()
        any_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until_used(limiter)
        dns.resume()
    assert dns.lookups > 1


async def test_they_are_used_after_a_temporary_failure_and_not_for_a_name_that_is_gone(dns: Dns) -> None:
    resolver = Resolver()
    assert await resolver.addresses(NAME) == (HOST,)
    dns.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert await resolver.addresses(NAME) == (HOST,)
    dns.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(socket.gaierror):
        await resolver.addresses(NAME)


async def test_a_name_that_moves_is_followed(dns: Dns) -> None:
    resolver = Resolver()
    assert await resolver.addresses(NAME) == (HOST,)
    dns.addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    assert await resolver.addresses(NAME) == ("10.0.0.1", "10.0.0.2")


async def test_an_address_is_not_looked_up(dns: Dns) -> None:
    for address in (HOST, "::1", "fe80::1%eth0"):
        assert await Resolver().addresses(address) == (address,)
    assert dns.lookups == 0


async def test_one_look_up_serves_all_who_wait_for_it_and_none_of_them_ends_it(dns: Dns) -> None:
    resolver = Resolver()
    dns.stall()
    tasks = [asyncio.ensure_future(resolver.addresses(NAME)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    dns.resume()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [(HOST,)] * 4
    assert dns.lookups == 1


async def test_stuck_look_ups_are_repeated_but_not_without_end(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_ratelimit.redis.resolver._AGAIN", 0.0)
    resolver = Resolver()
    dns.stall()
    tasks = [asyncio.ensure_future(resolver.addresses(NAME)) for _ in range(100)]
    await asyncio.sleep(0)
    dns.resume()
    assert set(await asyncio.gather(*tasks)) == {(HOST,)}
    assert dns.lookups == 30


async def test_the_second_address_of_a_name_is_tried_too(dns: Dns, any_redis: Server) -> None:
    dns.addresses = ["127.0.0.77", HOST]  # nothing listens at the first
    async with RedisStore(url(any_redis), timeout=5.0, outage="closed") as store:
        assert (await Limiter("5/day", store=store).try_acquire("a")).reason == "ok"


@pytest.mark.parametrize("host", ["nowhere.example", "a" * 300])
async def test_a_name_without_an_address_is_an_outage(dns: Dns, host: str) -> None:
    events: list[StoreEvent] = []
    async with RedisStore(f"redis://{host}", on_event=events.append):
        pass
    assert [event.kind for event in events] == ["down"]
