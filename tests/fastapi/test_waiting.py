"""Requests that are held rather than refused, and many that come at once."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.requests import HTTPConnection

from asgi_ratelimit import Decision, LeakyBucket, Limiter, MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import GONE, Exchange, body, http

pytestmark = pytest.mark.anyio


def app_with(limit: RateLimit) -> FastAPI:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit)])
    async def root() -> str:
        return "ok"

    return app


def client_of(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")


async def settled(rounds: int = 50) -> None:
    """Let everything run that does not wait for the clock."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def get(client: httpx2.AsyncClient) -> int:
    return (await client.get("/")).status_code


async def test_a_request_is_held_until_its_turn(store: MemoryStore, clock: ManualClock) -> None:
    async with client_of(app_with(RateLimit("1/s", max_wait=5, store=store))) as client:
        assert await get(client) == 200
        held = asyncio.create_task(get(client))
        await settled()
        clock.advance(0.999_999)
        await settled()
        assert not held.done()
        clock.advance(0.000_001)
        assert await held == 200


async def test_a_client_that_leaves_is_no_longer_waited_for(store: MemoryStore, clock: ManualClock) -> None:
    app = app_with(RateLimit("1/10s", max_wait=100, store=store))
    async with client_of(app) as client:
        assert await get(client) == 200
    left, patient = (Exchange(app, http("/"), *body(b"")) for _ in range(2))
    await settled()
    left.feed(GONE)
    await left.answer()
    clock.advance(10)
    assert (await patient.answer()).status == 200


async def test_the_endpoint_reads_its_body_after_a_wait(store: MemoryStore, clock: ManualClock) -> None:
    app = FastAPI()

    @app.post("/", dependencies=[Depends(RateLimit("1/10s", max_wait=100, store=store))])
    async def endpoint(request: Request) -> str:
        return (await request.body()).decode()

    async with client_of(app) as client:
        for content in ("", "first", "second"):
            held = asyncio.create_task(client.post("/", content=content))
            await settled()
            clock.advance(10)
            assert (await held).json() == content


async def test_a_request_that_would_be_held_too_long_is_refused_at_once(store: MemoryStore) -> None:
    async with client_of(app_with(RateLimit("1/10s", max_wait=9.9, store=store))) as client:
        assert [await get(client) for _ in range(2)] == [200, 429]


async def test_held_requests_go_on_one_by_one(store: MemoryStore, clock: ManualClock) -> None:
    async with client_of(app_with(RateLimit("1/s", max_wait=2.5, store=store))) as client:
        tasks = [asyncio.create_task(get(client)) for _ in range(5)]
        done = []
        for _ in range(4):
            await settled()
            done.append(sum(task.done() and task.result() == 200 for task in tasks))
            clock.advance(1)
        assert done == [1, 2, 3, 3]
        assert sorted(await asyncio.gather(*tasks)) == [200, 200, 200, 429, 429]


async def test_a_leaky_buckets_delay_is_waited(store: MemoryStore, clock: ManualClock) -> None:
    async with client_of(app_with(RateLimit(LeakyBucket("1/s", queue=2), store=store))) as client:
        assert await get(client) == 200
        tasks = [asyncio.create_task(get(client)) for _ in range(3)]
        await settled()
        assert [task.done() for task in tasks] == [False, False, True]
        assert tasks[2].result() == 429
        clock.advance(1)
        await settled()
        assert [task.done() for task in tasks] == [True, False, True]
        clock.advance(1)
        assert await asyncio.gather(*tasks) == [200, 200, 429]


async def test_a_delay_that_was_waited_is_in_the_decision(store: MemoryStore, clock: ManualClock) -> None:
    app, limit = FastAPI(), RateLimit(LeakyBucket("2/s", queue=2), store=store)

    @app.get("/")
    async def root(quota: Annotated[Decision, Depends(limit)]) -> float:
        return quota.delay

    async with client_of(app) as client:
        assert (await client.get("/")).json() == 0.0
        held = asyncio.create_task(client.get("/"))
        await settled()
        clock.advance(0.5)
        assert (await held).json() == 0.5


async def test_shadow_mode_refuses_nothing_after_waiting_for_nothing(store: MemoryStore) -> None:
    async with client_of(app_with(RateLimit("1/hour", enforce=False, max_wait=5, store=store))) as client:
        assert [await get(client) for _ in range(3)] == [200, 200, 200]


async def answer() -> str:
    await asyncio.sleep(0)
    return "ok"


@pytest.mark.parametrize(
    ("limit", "endpoint"),
    [
        ("100/hour", answer),
        ("100/hour", lambda: "ok"),
        (TokenBucket("100/hour", scope="global"), answer),
        (["100/hour", TokenBucket("500/hour", scope="global")], answer),
        (lambda conn: "100/hour", answer),
    ],
)
async def test_of_a_thousand_requests_at_once_exactly_the_limit_gets_in(
    store: MemoryStore, limit: Any, endpoint: Callable[..., Any]
) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit(limit, key=lambda conn: "everybody", store=store))])
    app.get("/")(endpoint)
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(1_000)))
    allowed = [answer for answer in answers if answer.status_code == 200]
    assert len(allowed) == 100
    assert sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in allowed) == list(range(100))
    assert {answer.status_code for answer in answers} == {200, 429}


async def test_a_key_that_takes_its_time_lets_no_one_slip_in(store: MemoryStore) -> None:
    async def slow(conn: HTTPConnection) -> str:
        await asyncio.sleep(0)
        return "everybody"

    app = FastAPI(dependencies=[Depends(RateLimit("100/hour", key=slow, store=store))])
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    app.get("/")(answer)
    async with client_of(app) as client:
        answers = await asyncio.gather(*(get(client) for _ in range(1_000)))
    assert answers.count(200) == 100
    assert answers.count(429) == 900


async def test_a_limiter_of_ones_own_may_share_a_routes_bucket(store: MemoryStore) -> None:
    app = app_with(RateLimit("2/hour", key=lambda conn: "ada", name="mail", store=store))
    limiter = Limiter("2/hour", name="mail", store=store)
    async with client_of(app) as client:
        assert (await limiter.try_acquire("ada")).allowed
        assert [await get(client) for _ in range(2)] == [200, 429]
        await limiter.reset("ada")
        assert await get(client) == 200
        await limiter.block("ada", 60)
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
