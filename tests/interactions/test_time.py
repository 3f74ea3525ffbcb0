"""One deadline for all that is decided about an interaction: the key function, the store, replays and delays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from asgi_ratelimit import Decision, LeakyBucket, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.interactions import endpoint
from asgi_ratelimit.memory.buckets import MemoryBuckets
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import REACHED, as_dependency, limited, reached
from tests.support.signing import PING, PONG, URL, Discord, command, content

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_SECONDS", 0.05)


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


def is_put_off(discord: Any) -> bool:
    return "try again shortly" in content(discord)


class SlowStore(MemoryStore):
    """A store that counts as shared. Each of its answers takes `seconds`."""

    shared = True

    def __init__(self, seconds: float) -> None:
        super().__init__(clock=ManualClock())
        self.seconds, self.refunds = seconds, 0

    def open(self, name: str, policies: Any) -> Any:
        return SlowBuckets(self, super().open(name, policies))


class SlowBuckets:
    def __init__(self, store: SlowStore, buckets: MemoryBuckets) -> None:
        self._store, self._buckets = store, buckets

    async def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        await asyncio.sleep(self._store.seconds)
        return self._buckets.decide(key, cost, per, waiting)

    async def peek(self, key: str, cost: int, per: str) -> Decision:
        await asyncio.sleep(self._store.seconds)
        return self._buckets.peek(key, cost, per)

    async def refund(self, decision: Decision) -> None:
        await asyncio.sleep(self._store.seconds)
        self._buckets.refund(decision)
        self._store.refunds += 1


async def test_a_key_function_that_hangs_is_not_waited_for(store: MemoryStore, clock: ManualClock) -> None:
    assert is_put_off(await Discord(as_dependency(limited(store, key=never)), clock).post(command()))


async def test_a_text_function_that_hangs_is_not_waited_for(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(as_dependency(limited(store, "1/10s", text=never)), clock)
    assert reached(await discord.post(command()))
    assert is_put_off(await discord.post(command()))


async def test_the_time_of_the_key_function_is_no_longer_there_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_SECONDS", 0.5)
    store = SlowStore(0.3)  # the record of replays has that time too

    async def slowly(interaction: Any) -> str:
        await asyncio.sleep(0.3)
        return "1"

    assert is_put_off(await Discord(as_dependency(limited(store, key=slowly)), store.clock).post(command()))


@pytest.mark.parametrize("kind", [2, 4], ids=["command", "autocomplete"])
async def test_a_store_that_is_slow_for_every_question_is_not_waited_for(kind: int) -> None:
    store = SlowStore(0.04)
    answer = await Discord(as_dependency(limited(store)), store.clock).post(command(type=kind))
    assert answer.status_code == 200
    assert not reached(answer)


async def test_a_delay_that_would_end_too_late_is_given_back(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    discord = Discord(as_dependency(limited(store, LeakyBucket("4/s", queue=1))), clock)
    assert reached(await discord.post(command()))
    assert is_put_off(await discord.post(command()))  # it would be held for 0.25 s, but this clock stands still
    clock.advance(0.25)
    assert reached(await discord.post(command()))


async def test_two_limits_of_one_route_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_SECONDS", 0.5)

    async def slowly(interaction: Any) -> str:
        await asyncio.sleep(0.3)
        return "1"

    store = MemoryStore(clock=ManualClock())
    app = FastAPI(dependencies=[Depends(limited(store, "9/s", key=slowly, name="one"))])
    guards = [Depends(limited(store, "9/s", key=slowly, name="two"))]
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=guards)
    assert is_put_off(await Discord(app, store.clock).post(command()))


async def test_the_refund_of_an_outer_middleware_is_part_of_it_and_a_ping_gets_its_pong() -> None:
    outer = SlowStore(0.0)
    guard = limited(MemoryStore(clock=outer.clock))
    app = RateLimitMiddleware(as_dependency(guard), limit="9/s", store=outer)
    discord = Discord(slow_after_the_middleware(app, outer), outer.clock)
    with pytest.warns(match="ARL111"):
        assert (await discord.post(PING)).json() == PONG
    assert is_put_off(await discord.post(command()))
    assert outer.refunds == 0


def slow_after_the_middleware(app: RateLimitMiddleware, store: SlowStore) -> Any:
    """The app, whose store is slow once the middleware has checked."""
    inner = app.app

    async def slow_from_now_on(scope: Any, receive: Any, send: Any) -> None:
        store.seconds = 60.0
        try:
            await inner(scope, receive, send)
        finally:
            store.seconds = 0.0

    app.app = slow_from_now_on
    return app


async def test_an_error_of_the_key_function_is_its_own(store: MemoryStore, clock: ManualClock) -> None:
    async def times_out(interaction: Any) -> str:
        raise TimeoutError("a database, say")

    with pytest.raises(TimeoutError, match="a database"):
        await Discord(as_dependency(limited(store, key=times_out)), clock).post(command())
