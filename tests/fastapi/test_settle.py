"""`limit.settle` and `limit.refund`: what a request has really cost, said by its endpoint, its stream or later."""

import copy
from typing import Annotated, Any

import anyio.from_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.requests import Request

from asgi_ratelimit import (
    Decision,
    Estimate,
    Limiter,
    MemoryStore,
    RateLimited,
    RateLimitMiddleware,
    StoreUnavailable,
    TokenBucket,
)
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.traffic import statuses
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

CALLER = "testclient"


def app_with(limit: RateLimit, used: int, *, middleware: bool = False, store: MemoryStore | None = None) -> FastAPI:
    """An app whose endpoint settles its request at so much."""
    app = FastAPI()
    if middleware:
        app.add_middleware(RateLimitMiddleware, limit=None, store=store, headers="both")

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> int:
        await limit.settle(quota, used)
        return quota.cost

    return app


async def left(store: Any, limit: Any, name: str = "/chat", key: str = CALLER) -> int:
    return (await Limiter(limit, store=store, name=name).peek(key)).remaining


def token_limit(store: Any = None, **options: Any) -> RateLimit:
    return RateLimit(TokenBucket("100/minute", unit="tokens"), cost=50, store=store, **options)


async def test_less_is_given_back(store: MemoryStore) -> None:
    client = TestClient(app_with(token_limit(store), 30))
    assert statuses(client, "/chat", "/chat", "/chat") == [200, 200, 429]
    assert await left(store, "100/minute") == 40


async def test_more_is_owed(store: MemoryStore, clock: ManualClock) -> None:
    client = TestClient(app_with(token_limit(store), 170))
    assert statuses(client, "/chat", "/chat") == [200, 429]
    clock.advance(71.999_999)  # 70 are owed, and 50 have to be there
    assert statuses(client, "/chat") == [429]
    clock.advance(0.000_001)
    assert statuses(client, "/chat") == [200]


def test_a_middleware_reports_the_settled_state(store: MemoryStore) -> None:
    answer = TestClient(app_with(token_limit(), 30, middleware=True, store=store)).get("/chat")
    assert answer.headers["x-ratelimit-remaining"] == "70"
    assert answer.headers["ratelimit"] == '"/chat";r=70;t=1'
    assert answer.headers["ratelimit-policy"] == '"/chat";q=100;qu="tokens";w=60'


def test_without_a_middleware_the_headers_show_the_estimate(store: MemoryStore) -> None:
    assert TestClient(app_with(token_limit(store), 30)).get("/chat").headers["x-ratelimit-remaining"] == "50"


async def test_a_refund_gives_back_everything(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.refund(quota)

    assert statuses(TestClient(app), *["/chat"] * 5) == [200] * 5
    assert await left(store, "100/minute") == 100


async def test_a_second_settlement_changes_nothing(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.settle(quota, 30)
        await limit.settle(quota, 90)
        await limit.refund(quota)

    assert TestClient(app).get("/chat").headers["x-ratelimit-remaining"] == "70"
    assert await left(store, "100/minute") == 70


async def test_what_is_never_settled_stays_charged(store: MemoryStore) -> None:
    app = FastAPI()
    app.add_api_route("/chat", lambda: None, dependencies=[Depends(token_limit(store))])
    assert statuses(TestClient(app), "/chat") == [200]
    assert await left(store, "100/minute") == 50


async def test_a_sync_endpoint_settles_from_its_thread(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()

    @app.get("/chat")
    def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        anyio.from_thread.run(limit.settle, quota, 10)

    assert statuses(TestClient(app), "/chat") == [200]
    assert await left(store, "100/minute") == 90


async def test_a_background_task_settles(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)], tasks: BackgroundTasks) -> None:
        tasks.add_task(limit.settle, quota, 10)

    answer = TestClient(app).get("/chat")
    assert answer.headers["x-ratelimit-remaining"] == "50"
    assert await left(store, "100/minute") == 90


async def test_a_decision_may_be_settled_long_after_its_request(store: MemoryStore) -> None:
    limit, app, kept = token_limit(store), FastAPI(), []

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        kept.append(quota)

    with TestClient(app) as client:
        client.get("/chat")
    await limit.settle(kept[0], 10)
    assert await left(store, "100/minute") == 90


async def test_every_limit_of_a_list_and_of_a_function_is_settled(store: MemoryStore) -> None:
    limits: list[str | TokenBucket] = ["100/minute", TokenBucket("1000/hour", scope="global", name="all")]
    client = TestClient(app_with(RateLimit(lambda conn: limits, cost=50, store=store), 60))
    assert statuses(client, "/chat") == [200]
    assert await left(store, limits[0]) == 40
    assert await left(store, limits[1], "routes") == 940


async def test_limits_in_two_stores_are_settled_each_in_its_own(store: MemoryStore, clock: ManualClock) -> None:
    other = MemoryStore(clock=clock)
    first, second, app = token_limit(store, name="a"), token_limit(other, name="b"), FastAPI()

    @app.get("/chat")
    async def chat(one: Annotated[Decision, Depends(first)], two: Annotated[Decision, Depends(second)]) -> None:
        await first.settle(one, 1)
        await second.settle(two, 2)

    assert statuses(TestClient(app), "/chat") == [200]
    assert (await left(store, "100/minute", "a"), await left(other, "100/minute", "b")) == (99, 98)


async def test_a_mounted_app_settles(store: MemoryStore) -> None:
    app = FastAPI()
    app.mount("/v1", app_with(token_limit(store), 10))
    assert statuses(TestClient(app), "/v1/chat") == [200]
    assert await left(store, "100/minute", "/v1/chat") == 90


# What is settled is spent


async def test_a_later_refusal_gives_back_no_settled_charge(store: MemoryStore) -> None:
    limit, app = token_limit(store), FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    own = Limiter("0/day", store=store, name="own")

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.settle(quota, 10)
        await own.acquire("k", timeout=0)

    assert statuses(TestClient(app), "/chat") == [429]
    assert await left(store, "100/minute") == 90


async def test_a_refund_by_status_comes_too_late(store: MemoryStore) -> None:
    limit, app = token_limit(store, refund=lambda status: status >= 400), FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.settle(quota, 10)
        raise HTTPException(502)

    assert statuses(TestClient(app), "/chat") == [502]
    assert await left(store, "100/minute") == 90


# What changes nothing


async def test_a_request_that_nothing_limits_has_nothing_to_settle(store: MemoryStore) -> None:
    limit = token_limit(store, exempt=("/chat",))
    app = FastAPI()

    @app.get("/chat")
    async def chat(quota: Annotated[Decision | None, Depends(limit)]) -> bool:
        await limit.settle(quota, 10)
        await limit.refund(quota)
        return quota is None

    assert TestClient(app).get("/chat").json() is True
    assert len(store) == 0


async def test_shadow_mode_settles_what_it_has_charged(store: MemoryStore) -> None:
    client = TestClient(app_with(token_limit(store, enforce=False), 60, middleware=True, store=store))
    answers = [client.get("/chat") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[-1].headers["x-ratelimit-remaining"] == "40"
    assert await left(store, "100/minute") == 40


async def test_a_soft_limit_that_is_over_is_not_settled(store: MemoryStore) -> None:
    limits = [TokenBucket("40/minute", enforce=False, name="soft"), TokenBucket("100/hour")]
    assert statuses(TestClient(app_with(RateLimit(limits, cost=50, store=store), 60)), "/chat") == [200]
    assert [await left(store, limit) for limit in limits] == [40, 40]


async def test_during_an_outage_nothing_breaks(store: MemoryStore) -> None:
    class Buckets:
        def __init__(self, buckets: Any) -> None:
            self.decide = buckets.decide

        def settle(self, *_: object) -> None:
            raise StoreUnavailable("gone")

    class Out(MemoryStore):
        def open(self, name: str, policies: Any) -> Any:
            return Buckets(super().open(name, policies))

    assert statuses(TestClient(app_with(token_limit(Out()), 10)), "/chat") == [200]


async def test_what_a_fallback_has_decided_is_settled_there() -> None:
    async with new_store("redis://127.0.0.1:9", outage="local") as store:  # nothing listens there
        limit = RateLimit("100/hour", cost=50, store=store)
        client = TestClient(app_with(limit, 10, middleware=True))
        answers = [client.get("/chat") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["90", "80", "70"]


@pytest.mark.parametrize("used", [-1, 1.5, True, None, "12", float("nan")], ids=repr)
async def test_a_value_that_is_no_cost_is_an_error(used: Any) -> None:
    with pytest.raises(ValueError, match=r"a call has cost a whole number from 0, e\.g\. 1200"):
        await RateLimit("5/s").settle(None, used)


async def test_a_decision_of_another_limit_is_an_error(store: MemoryStore) -> None:
    first, second, app = token_limit(store, name="a"), token_limit(store, name="b"), FastAPI()
    errors: list[str] = []

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(first)], request: Request) -> None:
        for limit, decision in (
            (second, quota),
            (first, await first.peek(request)),
            (first, copy.copy(quota)),
            (first, await Limiter("5/s", store=store, name="a").try_acquire(CALLER)),
        ):
            try:
                await limit.settle(decision, 1)
            except ValueError as error:
                errors.append(str(error))

    assert statuses(TestClient(app), "/chat") == [200]
    assert len(errors) == 4
    assert all("no decision of this RateLimit" in error for error in errors)


async def test_a_refusal_has_nothing_to_settle(store: MemoryStore) -> None:
    limit = RateLimit("0/day", store=store)
    refused = await Limiter("0/day", store=store).try_acquire("k")
    await limit.settle(refused, 10)
    with pytest.raises(RateLimited):
        await Limiter("0/day", store=store).acquire("k", timeout=0)


# Estimates


def test_an_estimate_learns_from_settlements_by_route(store: MemoryStore) -> None:
    estimate = Estimate(start=40)
    limit, app = RateLimit("1000/day", cost=estimate, store=store), FastAPI()

    @app.get("/chat/{model}")
    async def chat(model: str, quota: Annotated[Decision, Depends(limit)]) -> int:
        await limit.settle(quota, 20)
        return quota.cost

    @app.get("/search")
    async def search(quota: Annotated[Decision, Depends(limit)]) -> int:
        await limit.refund(quota)
        return quota.cost

    client = TestClient(app)
    assert [client.get(f"/chat/{number}").json() for number in range(22)] == [40] * 20 + [20] * 2
    assert [client.get("/search").json() for _ in range(21)] == [40] * 21
    assert (estimate.of("/chat/{model}"), estimate.of("/search")) == (20, 40)


def test_an_estimate_learns_once_from_a_decision(store: MemoryStore) -> None:
    estimate = Estimate(quantile=1, start=40)
    limit, app = RateLimit("1000/day", cost=estimate, store=store), FastAPI()

    @app.get("/chat")
    async def chat(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.settle(quota, 50)
        await limit.settle(quota, 60)

    assert statuses(TestClient(app), "/chat") == [200]
    assert estimate.of("/chat") == 50
