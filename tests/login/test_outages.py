"""A guard whose server is down: it counts in this process, fails open or fails closed, and fails no log-in."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from asgi_ratelimit import MemoryStore, RateLimited, StoreUnavailable
from asgi_ratelimit.login import LoginGuard
from asgi_ratelimit.observe import Event
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.log_ins import log_in, results

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"
HOME, ELSEWHERE = "198.51.100.7", "192.0.2.9"


async def test_counting_in_this_process() -> None:
    async with RedisStore(NOWHERE, secret="of the app") as store:
        guard = LoginGuard(store=store)
        assert await log_in(guard, "ada", HOME, right=True) == "in"
        assert await results(guard, [("ada", ELSEWHERE)] * 9) == {"wrong": 5, "blocked": 4}
        assert await log_in(guard, "ada", HOME, right=True) == "in"
        with pytest.raises(RateLimited) as refused:
            await guard.attempt("ada", ELSEWHERE).__aenter__()
        assert 55 < refused.value.retry_after <= 60


async def test_an_attempt_is_held_in_an_outage_as_well() -> None:
    async with RedisStore(NOWHERE, secret="of the app") as store:
        guard = LoginGuard(address="5/15 minutes", store=store)

        async def visit(account: str) -> str:
            async with guard.attempt(account, HOME) as attempt:
                await asyncio.sleep(0)
                attempt.succeeded()
            return "in"

        assert Counter(await asyncio.gather(*(visit(f"user {n}") for n in range(20)))) == {"in": 20}


async def test_failing_open() -> None:
    async with RedisStore(NOWHERE, secret="of the app", outage="open") as store:
        guard = LoginGuard(store=store)
        assert await results(guard, [("ada", HOME)] * 20) == {"wrong": 20}
        assert (await guard.peek("ada", HOME)).allowed


async def test_failing_closed() -> None:
    events: list[Event] = []
    async with RedisStore(NOWHERE, secret="of the app", outage="closed", observers=[events.append]) as store:
        guard = LoginGuard(store=store)
        with pytest.raises(StoreUnavailable):
            await guard.attempt("ada", HOME).__aenter__()
    assert [event.limiter for event in events if event.kind == "unavailable"] == ["login:address"]


class LateOutage(MemoryStore):
    """Its server goes down while an attempt is in flight."""

    is_down = False

    def open(self, name: str, policies: Any) -> Any:
        return _Buckets(self, super().open(name, policies))


class _Buckets:
    def __init__(self, store: LateOutage, buckets: Any) -> None:
        self._store, self._buckets = store, buckets

    def __getattr__(self, verb: str) -> Any:
        if self._store.is_down:
            raise StoreUnavailable("no server")
        return getattr(self._buckets, verb)


@pytest.mark.parametrize("word", ["succeeded", "failed"])
async def test_no_log_in_fails_because_its_result_is_lost(word: str, clock: ManualClock) -> None:
    store = LateOutage(clock=clock)
    guard = LoginGuard(store=store)
    async with guard.attempt("ada", HOME) as attempt:
        store.is_down = True
        getattr(attempt, word)()
    store.is_down = False
    assert (await guard.peek("ada", ELSEWHERE)).remaining == 4  # what has no result is a failure
