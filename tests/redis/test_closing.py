"""The end: with checks in flight, in the app's lifespan, by the garbage collector, or not at all; and use after it."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import textwrap
import threading
import warnings

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from asgi_ratelimit import Limiter, RateLimitMiddleware
from asgi_ratelimit.redis import RedisStore, StoreEvent
from tests.support.server_counts import clients, until_alone
from tests.support.servers import Cluster, Proxy, Server, wait_until

PATIENCE = 30.0  # seconds until a hanging test fails


@pytest.fixture(autouse=True)
def no_other_client(any_redis: Server) -> None:
    """Close the connections that an earlier test may have left open."""
    any_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


def app_with(store: RedisStore) -> Starlette:
    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(RateLimitMiddleware, limit="100/h", store=store)
    return app


# aclose


@pytest.mark.anyio
async def test_checks_in_flight_are_answered_before_the_connection_closes(any_redis: Server, proxy: Proxy) -> None:
    store = RedisStore(proxy.url, timeout=2)
    limiter = Limiter("500/day", store=store)
    await store.start()
    proxy.delay(0.2)
    tasks = asyncio.ensure_future(limiter.try_acquire("a"))
    await asyncio.sleep(0)
    await store.aclose()
    assert tasks.done()
    assert (await tasks).reason == "ok"
    until_alone(any_redis)


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(6))
async def test_every_check_is_answered_when_a_busy_store_is_closed(any_redis: Server, turns: int) -> None:
    store = RedisStore(any_redis.url, timeout=2)
    limiter = Limiter("5000/day", store=store)
    tasks = [asyncio.ensure_future(limiter.try_acquire("a")) for _ in range(1000)]
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await store.aclose()
        answers = await asyncio.gather(*tasks)
        assert {answer.reason for answer in answers} <= {"ok", "degraded"}
        assert all(answer.allowed for answer in answers)
        await store.aclose()
    until_alone(any_redis)


@pytest.mark.anyio
async def test_a_closed_store_may_be_used_again(redis_server: Server) -> None:
    store = RedisStore(redis_server.url, timeout=2)
    limiter = Limiter("5/h", store=store)
    for left in (4, 3, 2):
        answer = await limiter.try_acquire("a")
        assert (answer.reason, answer.remaining) == ("ok", left)
        await store.aclose()
        await store.aclose()
        until_alone(redis_server)


@pytest.mark.anyio
async def test_a_closed_cluster_store_may_be_used_again(cluster: Cluster) -> None:
    store = RedisStore(cluster.url, timeout=2)
    limiter = Limiter("5/h", store=store)
    before = [len(clients(node)) for node in cluster.nodes]
    for _ in range(3):
        answers = await asyncio.gather(*(limiter.try_acquire(f"user:{n}") for n in range(100)))
        assert {answer.reason for answer in answers} == {"ok"}
        await store.aclose()
        for node, count in zip(cluster.nodes, before, strict=True):
            until_alone(node, besides=count)


@pytest.mark.anyio
async def test_a_store_that_has_done_nothing_may_be_closed(any_redis: Server) -> None:
    await RedisStore(any_redis.url).aclose()
    async with RedisStore(any_redis.url):
        pass
    until_alone(any_redis)


@pytest.mark.anyio
async def test_closing_while_it_connects_hangs_up_and_answers(any_redis: Server, proxy: Proxy) -> None:
    store = RedisStore(proxy.url, timeout=2)
    proxy.silence()
    tasks = asyncio.ensure_future(Limiter("5/h", store=store).try_acquire("a"))
    await asyncio.to_thread(wait_until, lambda: proxy.open_connections or tasks.done(), "it connects")
    async with asyncio.timeout(PATIENCE):
        await store.aclose()
        assert (await tasks).reason == "degraded"
    proxy.pass_through()
    until_alone(any_redis)


# With the app


def test_the_app_s_lifespan_connects_and_closes(redis_server: Server) -> None:
    app = app_with(RedisStore(redis_server.url, timeout=2))
    for left in ("99", "98"):  # the app may be started again
        with TestClient(app) as client:
            assert len(clients(redis_server)) == 1
            assert client.get("/").headers["x-ratelimit-remaining"] == left
        until_alone(redis_server)


@pytest.mark.anyio
async def test_the_store_is_closed_with_the_app_though_the_loop_goes_on(any_redis: Server) -> None:
    app = app_with(RedisStore(any_redis.url, timeout=2))
    received: asyncio.Queue[Message] = asyncio.Queue()
    sent: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}, "state": {}}, received.get, sent.put))
    for word, connections in (("startup", 1), ("shutdown", 0)):
        received.put_nowait({"type": f"lifespan.{word}"})
        assert await sent.get() == {"type": f"lifespan.{word}.complete"}
        until_alone(any_redis, besides=connections)
    await living


def test_an_app_without_a_lifespan_leaves_nothing_open(any_redis: Server) -> None:
    """Each request of this test client has an event loop of its own."""
    client = TestClient(app_with(RedisStore(any_redis.url, timeout=2)))
    for left in range(99, 79, -1):
        assert client.get("/").headers["x-ratelimit-remaining"] == str(left)
    until_alone(any_redis)


def test_uvicorn_closes_the_store_when_it_ends(any_redis: Server) -> None:
    app = app_with(RedisStore(any_redis.url, timeout=2))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started, "it serves")
            answer = httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}/", trust_env=False)
            assert answer.headers["x-ratelimit-remaining"] == "99"
            assert len(clients(any_redis)) == 1
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
    until_alone(any_redis)


@pytest.mark.anyio
async def test_a_client_that_was_handed_over_is_neither_used_nor_closed(any_redis: Server) -> None:
    async with Redis.from_url(any_redis.url) as client:
        own = await client.client_id()
        async with RedisStore(client, timeout=2) as store:
            assert (await Limiter("5/h", store=store).try_acquire("a")).reason == "ok"
            assert len(clients(any_redis)) == 2
            assert await client.client_id() == own
        until_alone(any_redis, besides=1)
        assert clients(any_redis) == {own} == {await client.client_id()}


# Not at all


async def left_open(server: Server, *, in_use: bool = False) -> None:
    """A store that has been used, and is dropped in a loop that goes on. `in_use`: a call is in flight."""
    store = RedisStore(server.url, timeout=PATIENCE)
    limiter = Limiter("5/h", store=store)
    await limiter.try_acquire("a")
    assert len(clients(server)) == 1
    if in_use:
        asyncio.ensure_future(limiter.try_acquire("b"))  # noqa: RUF006


async def until_closed(server: Server, *, besides: int = 0) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(clients(server)) > besides:
            await asyncio.sleep(0.01)
            gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.filterwarnings("always::ResourceWarning")
async def test_a_store_that_is_dropped_is_closed_with_a_warning(
    any_redis: Server, recwarn: pytest.WarningsRecorder, in_use: bool
) -> None:
    await left_open(any_redis, in_use=in_use)
    await until_closed(any_redis)
    (warning,) = recwarn
    assert str(warning.message).startswith(f"the RedisStore at 127.0.0.1:{any_redis.port} was not closed: use `async")


@pytest.mark.anyio
@pytest.mark.filterwarnings("always::ResourceWarning")
async def test_a_cluster_store_that_is_dropped_is_closed_with_a_warning(
    cluster: Cluster, recwarn: pytest.WarningsRecorder
) -> None:
    before = [len(clients(node)) for node in cluster.nodes]
    store = RedisStore(cluster.url, timeout=PATIENCE)
    await store.start()
    del store
    for node, count in zip(cluster.nodes, before, strict=True):
        await until_closed(node, besides=count)
    assert [str(warning.message).partition(" 127")[0] for warning in recwarn] == ["the RedisStore at cluster"]


class Owner:
    """An object of the app that has a store, and receives its events."""

    def __init__(self, where: str) -> None:
        self.events: list[StoreEvent] = []
        self.store = RedisStore(where, timeout=PATIENCE, on_event=self.note)

    def note(self, event: StoreEvent) -> None:
        self.events.append(event)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["single", "cluster"])
@pytest.mark.filterwarnings("always::ResourceWarning")
async def test_a_store_is_dropped_with_the_object_that_receives_its_events(
    request: pytest.FixtureRequest, recwarn: pytest.WarningsRecorder, kind: str
) -> None:
    servers = request.getfixturevalue("any_redis" if kind == "single" else "cluster")
    nodes = [servers] if kind == "single" else servers.nodes
    before = [len(clients(node)) for node in nodes]
    owner = Owner(servers.url)
    await owner.store.start()
    owner.store.session().suspend(OSError("gone"))
    assert len(owner.events) == (kind == "single")
    del owner
    for node, count in zip(nodes, before, strict=True):
        await until_closed(node, besides=count)
    assert ["was not closed" in str(warning.message) for warning in recwarn] == [True]


@pytest.mark.anyio
async def test_a_store_that_was_closed_or_never_used_is_dropped_in_silence(any_redis: Server) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = RedisStore(any_redis.url)
        del store
        async with RedisStore(any_redis.url, timeout=PATIENCE) as closed:
            await Limiter("5/h", store=closed).try_acquire("a")
        del closed
        gc.collect()


@pytest.mark.anyio
async def test_a_limiter_or_a_script_keeps_the_connections_of_its_store(any_redis: Server) -> None:
    store = RedisStore(any_redis.url, timeout=PATIENCE)
    limiter = Limiter("5/h", store=store)
    await limiter.try_acquire("a")
    aclose = store.aclose
    del store
    gc.collect()
    assert (await limiter.try_acquire("a")).reason == "ok"
    assert len(clients(any_redis)) == 1
    await aclose()


BEGINNING = """
import asyncio, gc, logging, sys, threading
from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore, StoreEvent

logging.getLogger("asyncio").setLevel(logging.ERROR)  # it would report how busy the machine is
store = RedisStore(sys.argv[1], timeout=5)
limiter = Limiter("5/h", store=store)

async def check():
    assert (await limiter.try_acquire("a")).reason == "ok"
"""
ENDS = {
    "never closed": "asyncio.run(check())",
    "never closed, in one loop after the other": """
        asyncio.run(check())
        asyncio.run(check())
        """,
    "let go of after the loop": """
        asyncio.run(check())
        del store, limiter
        gc.collect()
        """,
    "with checks under way": """
        async def main():
            await check()
            tasks.extend(asyncio.ensure_future(limiter.try_acquire("b")) for _ in range(100))
            await asyncio.sleep(0)
        tasks = []
        asyncio.run(main())
        """,
    "while it connects": """
        async def main():
            tasks.append(asyncio.ensure_future(limiter.try_acquire("b")))
            await asyncio.sleep(0)
        tasks = []
        asyncio.run(main())
        """,
    "in a daemon thread whose loop never ends": """
        done = threading.Event()
        async def main():
            await check()
            done.set()
            await asyncio.Event().wait()
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert done.wait(20)
        """,
    "in a loop that is stopped and closed by hand": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(check())
        loop.run_until_complete(store.aclose())
        loop.close()
        """,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_script_ends_in_silence_when_the_store_is(any_redis: Server, end: str) -> None:
    source = BEGINNING + textwrap.dedent(ENDS[end])
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", source, any_redis.url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    until_alone(any_redis)
