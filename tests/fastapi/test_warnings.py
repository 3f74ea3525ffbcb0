"""Misconfiguration is loud: each mistake of this door is one warning with a stable code, and never an error."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, RateLimitWarning, TokenBucket
from asgi_ratelimit.fastapi import RateLimit, rate_limit
from tests.fastapi.traffic import statuses


@contextmanager
def codes() -> Iterator[list[str]]:
    """The codes of the warnings that are given meanwhile."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(warning.message).split()[0] for warning in caught if issubclass(warning.category, RateLimitWarning)]


def app_with(*limits: RateLimit, paths: tuple[str, ...] = ("/",)) -> FastAPI:
    app = FastAPI()
    for path in paths:
        app.add_api_route(path, lambda: None, dependencies=[Depends(limit) for limit in limits])
    return app


def test_a_limit_used_well_warns_of_nothing(store: MemoryStore) -> None:
    limit = RateLimit("1/hour", per=("x",), name="one", store=store)
    app = app_with(limit, paths=("/a/{x}", "/b/{x}"))
    app.add_middleware(RateLimitMiddleware, limit="100/s", store=store)
    with codes() as found:
        statuses(TestClient(app), "/a/1", "/b/1", "/a/2", "/b/2")
    assert found == []


def test_two_limits_of_one_name_that_differ_are_noticed(store: MemoryStore) -> None:
    app = app_with(RateLimit("5/5s", name="search", store=store), paths=("/a",))
    other = RateLimit("9/9s", name="search", store=store)
    app.add_api_route("/b", lambda: None, dependencies=[Depends(other)])
    client = TestClient(app)
    with codes() as found:
        assert statuses(client, "/a") == [200]
    assert found == []
    with pytest.warns(RateLimitWarning, match="ARL101") as caught:
        assert statuses(client, "/b", "/b") == [200, 200]
    assert len(caught) == 1
    assert "search" in str(caught[0].message)


def test_two_limits_of_one_name_that_agree_are_meant_to_share(store: MemoryStore) -> None:
    app = app_with(RateLimit("5/5s", name="search", store=store), paths=("/a",))
    other = RateLimit("5/5s", name="search", store=store)
    app.add_api_route("/b", lambda: None, dependencies=[Depends(other)])
    with codes() as found:
        assert statuses(TestClient(app), "/a", "/b") == [200, 200]
    assert found == []


def test_two_limits_of_one_name_in_two_stores_have_nothing_to_do_with_each_other() -> None:
    app = app_with(RateLimit("5/5s", name="search", store=MemoryStore()), paths=("/a",))
    other = RateLimit("9/9s", name="search", store=MemoryStore())
    app.add_api_route("/b", lambda: None, dependencies=[Depends(other)])
    with codes() as found:
        assert statuses(TestClient(app), "/a", "/b") == [200, 200]
    assert found == []


def test_two_limits_on_a_route_that_nobody_named_are_no_mistake(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("100/hour", store=store))])
    app.add_api_route("/", lambda: None, dependencies=[Depends(RateLimit("2/s", store=store))])
    with codes() as found:
        answers = [TestClient(app).get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert found == []


def test_a_bucket_that_is_charged_twice_in_a_request_is_noticed(store: MemoryStore) -> None:
    limits = [RateLimit("10/hour", name="same", store=store) for _ in range(2)]
    app = app_with(*limits)
    client = TestClient(app)
    with pytest.warns(RateLimitWarning, match="ARL102") as caught:
        answers = [client.get("/") for _ in range(2)]
    assert len(caught) == 1
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["8", "6"]


def test_a_bucket_that_a_route_and_the_middleware_both_charge_is_noticed(store: MemoryStore) -> None:
    app = app_with(RateLimit("10/hour", name="app"))
    app.add_middleware(RateLimitMiddleware, limit="10/hour", store=store)
    with pytest.warns(RateLimitWarning, match="ARL102"):
        assert TestClient(app).get("/").headers["x-ratelimit-remaining"] == "8"


def test_two_buckets_of_one_request_are_no_mistake(store: MemoryStore) -> None:
    app = app_with(RateLimit("10/hour", name="a", store=store), RateLimit("10/hour", name="b", store=store))
    with codes() as found:
        assert statuses(TestClient(app), "/", "/") == [200, 200]
    assert found == []


@pytest.mark.parametrize("is_async", [True, False])
def test_a_limit_made_anew_for_each_request_is_noticed(is_async: bool) -> None:
    app = FastAPI()

    async def awaited(request: Request, response: Response) -> None:
        await RateLimit("1/hour")(request, response)

    def plain() -> None:
        RateLimit("1/hour")

    app.get("/")(awaited if is_async else plain)
    with pytest.warns(RateLimitWarning, match="ARL106"):
        assert TestClient(app).get("/").status_code == 200


@pytest.mark.parametrize("is_async", [True, False])
def test_a_limit_made_anew_in_a_dependency_is_noticed(is_async: bool) -> None:
    def plain() -> RateLimit:
        return RateLimit("1/hour")

    async def awaited() -> RateLimit:
        return RateLimit("1/hour")

    app = FastAPI()

    @app.get("/", dependencies=[Depends(awaited if is_async else plain)])
    async def root() -> None: ...

    with pytest.warns(RateLimitWarning, match="ARL106"):
        assert TestClient(app).get("/").status_code == 200


@pytest.mark.usefixtures("no_test_run")
def test_a_memory_store_under_several_workers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with pytest.warns(RateLimitWarning, match="ARL105") as caught:
        assert statuses(TestClient(app_with(RateLimit("1/hour"), paths=("/a", "/b"))), "/a", "/b") == [200, 200]
    assert len(caught) == 1


def test_a_limit_made_beside_its_route_is_made_once() -> None:
    with codes() as found:
        app = app_with(RateLimit("1/hour"))
        assert statuses(TestClient(app), "/") == [200]
    assert found == []


def test_a_limit_made_as_the_app_starts_is_made_once() -> None:
    async def lifespan(app: FastAPI) -> Any:
        app.add_api_route("/", lambda: None, dependencies=[Depends(RateLimit("1/hour"))])
        yield

    app = FastAPI(lifespan=asynccontextmanager(lifespan))
    with codes() as found, TestClient(app) as client:
        assert statuses(client, "/", "/") == [200, 429]
    assert found == []


def test_filters_that_make_errors_of_warnings_make_no_500(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(RateLimit("5/hour", key=lambda conn: None, store=store))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "asgi_ratelimit"):
        warnings.simplefilter("error")
        assert statuses(TestClient(app), "/", "/") == [200, 200]
    messages = [record.getMessage() for record in caplog.records if record.name == "asgi_ratelimit"]
    assert [message.split()[0] for message in messages] == ["ARL103"]


def test_a_limit_function_that_makes_no_sense_refuses_and_is_noticed(store: MemoryStore) -> None:
    app = app_with(RateLimit(lambda conn: "many", store=store))
    with pytest.warns(RateLimitWarning, match="ARL202"):
        assert statuses(TestClient(app), *["/"] * 2) == [429, 429]


@pytest.mark.parametrize("cost", [-1, "x", None])
def test_a_cost_function_that_makes_no_sense_charges_one_and_is_noticed(store: MemoryStore, cost: Any) -> None:
    app = app_with(RateLimit("2/hour", cost=lambda conn: cost, store=store))
    with pytest.warns(RateLimitWarning, match="ARL203"):
        assert statuses(TestClient(app), *["/"] * 3) == [200, 200, 429]


def test_a_cost_above_the_capacity_is_the_capacity_and_is_noticed(store: MemoryStore) -> None:
    app = app_with(RateLimit("2/hour", cost=lambda conn: 50, store=store))
    with pytest.warns(RateLimitWarning, match="ARL203"):
        assert statuses(TestClient(app), *["/"] * 2) == [200, 429]


def test_the_one_that_is_ready_to_use_may_stand_everywhere() -> None:
    app = FastAPI(dependencies=[Depends(rate_limit)])

    @app.get("/", dependencies=[Depends(rate_limit)])
    async def root(quota: Annotated[Any, Depends(rate_limit)]) -> int:
        return int(quota.remaining)

    with codes() as found:
        assert TestClient(app).get("/").json() == 4
    assert found == []


def test_a_global_limit_beside_a_routes_own_is_no_mistake(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit(TokenBucket("100/s", scope="global"), store=store))])
    app.add_api_route("/", lambda: None, dependencies=[Depends(RateLimit("5/s", store=store))])
    with codes() as found:
        assert statuses(TestClient(app), "/") == [200]
    assert found == []


def test_a_misspelt_resource_is_one_bucket_with_a_warning(store: MemoryStore) -> None:
    app = FastAPI()

    @app.get("/channels/{channel_id}", dependencies=[Depends(RateLimit("1/hour", per=["chanel_id"], store=store))])
    async def read(channel_id: int) -> None: ...

    client = TestClient(app)
    with pytest.warns(RateLimitWarning, match="ARL109.*no {chanel_id}"):
        assert [client.get(f"/channels/{n}").status_code for n in (1, 2)] == [200, 429]


def test_shadow_mode_says_what_it_would_have_refused(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", enforce=False, store=store))])
    app.get("/")(lambda: None)
    client = TestClient(app)
    assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    said = [record.getMessage() for record in caplog.records if record.name == "asgi_ratelimit"]
    assert len(said) == 1
    assert "1 requests would have been refused (enforce=False)" in said[0]
