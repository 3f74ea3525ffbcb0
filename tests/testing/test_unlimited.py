"""`unlimited`: everything is allowed, nothing is counted, in every thread; afterwards all is as before."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.testclient import TestClient

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, Limiter, MemoryStore, RateLimitMiddleware, SlidingWindow
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.off_switch import OFF_SWITCH, OffSwitch
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock, unlimited
from tests.docs.markdown import DOCS, blocks
from tests.interactions.endpoints import as_dependency, limited
from tests.support.servers.server import HOST, free_port
from tests.support.signing import Discord, command
from tests.support.stores import new_store

LIMITS: list[Any] = ["1/day", "0/day", LeakyBucket("1/day"), [FixedWindow("1/day"), SlidingWindow("2/day")]]
search_limit = RateLimit("1/day", name="search")


def app_of(store: MemoryStore) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit="1/day", messages="1/day", store=store)

    @app.get("/search")
    def search(quota: Annotated[Decision, Depends(search_limit)]) -> int:
        return quota.remaining

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(3):
            await websocket.send_text(await websocket.receive_text())

    return app


@pytest.mark.anyio
@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_a_limiter_allows_everything_and_counts_nothing(store: MemoryStore, limit: Any) -> None:
    limiter = Limiter(limit, store=store)
    await limiter.block("mallory", 60)
    before = len(store)
    with unlimited():
        for other in (limiter, Limiter(limit, store=store)):
            for _ in range(3):
                decision = await other.acquire("ada")
                assert (decision.allowed, decision.reason, decision.delay, decision.retry_after) == (True, "ok", 0, 0)
                assert len(decision.parts) == len(limiter.limits)
                assert (await other.try_acquire("mallory")).allowed
                assert (await other.peek("ada")).remaining == min(one.capacity for one in limiter.limits)
                await other.refund(decision)
    assert len(store) == before
    assert not (await limiter.try_acquire("mallory")).allowed


@pytest.mark.anyio
async def test_a_charge_from_before_is_refunded_within(store: MemoryStore) -> None:
    limiter = Limiter("5/day", store=store)
    charged = await limiter.try_acquire("ada", 3)
    with unlimited():
        await limiter.refund(charged)
    assert (await limiter.peek("ada")).remaining == 5


@pytest.mark.anyio
async def test_a_cost_that_is_a_mistake_remains_one(store: MemoryStore) -> None:
    with unlimited(), pytest.raises(ValueError, match="from 1 to 5"):
        await Limiter("5/day", store=store).try_acquire("ada", 6)


def test_an_app_in_another_thread_is_unlimited(store: MemoryStore) -> None:
    with TestClient(app_of(store)) as client:
        with unlimited():
            answers = [client.get("/search") for _ in range(3)]
            assert [(answer.status_code, answer.json()) for answer in answers] == [(200, 1)] * 3
            assert answers[0].headers["x-ratelimit-remaining"] == "1"
            with client.websocket_connect("/ws") as socket:
                for _ in range(3):
                    socket.send_text("hello")
                    assert socket.receive_text() == "hello"
        assert len(store) == 0
        assert [client.get("/search").status_code for _ in range(2)] == [200, 429]


@pytest.mark.anyio
async def test_interactions_are_unlimited(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(as_dependency(limited(store)), clock)
    with unlimited():
        types = [(await discord.post(command("7"))).json()["data"].get("flags") for _ in range(5)]
    assert types == [None] * 5


@pytest.mark.anyio
async def test_a_redis_need_not_be_there() -> None:
    async with new_store(f"redis://{HOST}:{free_port()}") as store:
        limiter = Limiter("1/day", store=store)
        with unlimited():
            assert [(await limiter.try_acquire("ada")).reason for _ in range(2)] == ["ok", "ok"]
            assert (await asyncio.to_thread(SyncLimiter("1/day", store=store).acquire, "ada")).allowed


def test_it_may_be_nested_and_ends_after_an_error(store: MemoryStore) -> None:
    limiter = SyncLimiter("1/day", store=store)
    with unlimited():
        with unlimited():
            limiter.acquire("ada")
        assert limiter.acquire("ada").remaining == 1
    with pytest.raises(ZeroDivisionError), unlimited():
        raise ZeroDivisionError
    assert [limiter.try_acquire("ada").allowed for _ in range(2)] == [True, False]
    assert not OFF_SWITCH.is_off


@unlimited()
def test_it_may_decorate_a_test() -> None:
    assert [SyncLimiter("0/day").try_acquire("ada").allowed for _ in range(2)] == [True, True]


@pytest.fixture
def no_limits() -> Iterator[None]:
    with unlimited():
        yield


@pytest.mark.usefixtures("no_limits")
def test_it_may_be_a_fixture() -> None:
    assert OFF_SWITCH.is_off
    assert [SyncLimiter("0/day").try_acquire("ada").allowed for _ in range(2)] == [True, True]


def test_the_fixture_ends_with_its_test() -> None:
    assert not OFF_SWITCH.is_off


def test_limiters_that_are_made_meanwhile_are_all_turned(store: MemoryStore) -> None:
    """A thread makes limiters while another turns the switch. None is left in the other position."""
    made: list[SyncLimiter] = []

    def make() -> None:
        made.extend(SyncLimiter("1/day", store=store, name=f"limiter{number}") for number in range(1_000))

    maker = threading.Thread(target=make)
    maker.start()
    while maker.is_alive():
        with unlimited():
            assert all(limiter.try_acquire("ada").remaining == 1 for limiter in made[-20:])
    maker.join()
    assert [limiter for limiter in made if limiter.try_acquire("ada").remaining] == []


def test_the_switch_keeps_no_limiter_alive() -> None:
    switch = OffSwitch()

    class Bulb:
        def turn(self, *, off: bool) -> None: ...

    bulb = Bulb()
    switch.register(bulb)
    references: list[Any] = switch._limiters.valuerefs()
    del bulb
    gc.collect()
    assert [reference() for reference in references] == [None]


CONFTEST = next(block for block in blocks(DOCS / "testing.md") if "unlimited" in block.source)
APP = """
from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from starlette.applications import Starlette
store = MemoryStore()
app = Starlette()
app.add_middleware(RateLimitMiddleware, limit="1/day", store=store)
"""
TESTS = """
import pytest
from myapp import app
from starlette.testclient import TestClient
statuses = lambda: [TestClient(app).get("/").status_code for _ in range(2)]
def test_one(): assert statuses() == [404, 404]
@pytest.mark.limits
def test_two(): assert statuses() == [404, 429]
@pytest.mark.limits
def test_three(): assert statuses() == [404, 429]
def test_four(): assert statuses() == [404, 404]
"""


def test_the_conftest_of_the_guide_switches_limits_off_and_wipes_the_store(tmp_path: Path) -> None:
    assert "store = MemoryStore()" in CONFTEST.source
    (tmp_path / "myapp.py").write_text(APP)
    conftest = CONFTEST.source.replace("store = MemoryStore()", "from myapp import store")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers = limits\n")
    (tmp_path / "test_app.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.anyio
async def test_it_decorates_tests_sync_and_async() -> None:
    limiter, sync_limiter = Limiter("1/day", name="decorated"), SyncLimiter("1/day", name="decorated")

    @unlimited()
    def sync_test(calls: int) -> list[bool]:
        return [sync_limiter.try_acquire("ada").allowed for _ in range(calls)]

    @unlimited()
    async def async_test(calls: int) -> list[bool]:
        return [(await limiter.try_acquire("ada")).allowed for _ in range(calls)]

    assert sync_test(3) == await async_test(3) == [True] * 3
    assert not OFF_SWITCH.is_off
