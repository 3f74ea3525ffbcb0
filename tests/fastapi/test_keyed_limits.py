"""`by` in a dependency: limits of one list with a key of their own, from a function or from another dependency."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware, RateLimitWarning, by
from asgi_ratelimit.fastapi import RateLimit, document_limits, usage_router
from tests.fastapi.traffic import as_user, statuses


def account_of(conn: HTTPConnection) -> str | None:
    return conn.headers.get("x-user")


def current_user(x_user: Annotated[str | None, Header()] = None) -> dict[str, str] | None:
    return {"id": x_user} if x_user else None


async def current_team(x_team: Annotated[str, Header()] = "red") -> str:
    return x_team


def app_with(limit: RateLimit, store: MemoryStore) -> TestClient:
    app = FastAPI()
    app.state.ratelimit_store = store
    document_limits(app)

    @app.get("/search")
    async def search(decision: Annotated[Decision, Depends(limit)], used: int = 1) -> list[int]:
        await limit.settle(decision, used)
        return [part.remaining for part in decision.parts]

    app.include_router(usage_router(), prefix="/limits")
    return TestClient(app)


def test_a_function_gives_the_key_of_a_limit(store: MemoryStore) -> None:
    client = app_with(RateLimit(["4/hour", by(account_of, "2/hour")]), store)
    assert statuses(client, *["/search"] * 3, headers=as_user("ada")) == [200, 200, 429]
    assert client.get("/search", headers=as_user("bob")).json() == [1, 1]
    assert statuses(client, *["/search"] * 2, headers=as_user("eve")) == [200, 429]
    assert "429" in client.get("/openapi.json").json()["paths"]["/search"]["get"]["responses"]


def test_dependencies_give_the_keys_of_limits(store: MemoryStore) -> None:
    limit = RateLimit(
        ["9/hour", by(Depends(current_user), "3/hour"), by(Depends(current_team), ["4/hour", "9/day"], name="team")],
        key=Depends(lambda: "everybody"),
    )
    client = app_with(limit, store)
    assert statuses(client, *["/search"] * 4, headers=as_user("ada")) == [200] * 3 + [429]
    assert statuses(client, *["/search"] * 2, headers=as_user("bob")) == [200, 429]
    blue = {**as_user("bob"), "x-team": "blue"}
    assert client.get("/search", headers=blue).json() == [4, 1, 3, 8]
    names = {one["name"] for one in client.get("/openapi.json").json()["paths"]["/search"]["get"]["parameters"]}
    assert names == {"x-user", "x-team", "used"}


def test_a_charge_is_settled_in_each_bucket(store: MemoryStore) -> None:
    client = app_with(RateLimit(["90/hour", by(Depends(current_user), "9/hour")], cost=5), store)
    client.get("/search?used=2", headers=as_user("ada"))
    assert client.get("/search?used=2", headers=as_user("ada")).json() == [83, 2]


def test_no_user_is_one_bucket_with_a_warning_or_no_key_at_all(store: MemoryStore) -> None:
    client = app_with(RateLimit(["9/hour", by(Depends(current_user), "1/hour")]), store)
    with pytest.warns(RateLimitWarning, match="ARL103"):
        assert statuses(client, "/search", "/search") == [200, 429]
    optional = app_with(RateLimit(["3/day", by(Depends(current_user), "1/hour", optional=True)]), store)
    assert optional.get("/search").json() == [2]
    assert statuses(optional, *["/search"] * 3) == [200, 200, 429]


def test_what_is_left_is_listed_for_a_function_and_left_out_for_a_dependency(store: MemoryStore) -> None:
    client = app_with(RateLimit(["4/hour", by(account_of, "2/hour")]), store)
    client.get("/search", headers=as_user("ada"))
    listed = client.get("/limits/me", headers=as_user("ada")).json()["limits"]
    assert [(one["rate"], one["remaining"]) for one in listed] == [("4/hour", 3), ("2/hour", 1)]
    client = app_with(RateLimit(["4/hour", by(Depends(current_user), "2/hour")]), store)
    assert client.get("/limits/me", headers=as_user("ada")).json() == {"limits": []}


def test_a_middleware_lists_its_limits_for_the_caller(store: MemoryStore) -> None:
    client = app_with(RateLimit("9/s"), store)
    options: dict[str, Any] = {"limit": ["4/hour", by(account_of, "2/hour")], "store": store, "exempt": ("/limits/me",)}
    client.app.add_middleware(RateLimitMiddleware, **options)  # type: ignore[attr-defined]
    client.get("/search", headers=as_user("ada"))
    listed = client.get("/limits/me", headers=as_user("ada")).json()["limits"]
    assert [(one["name"], one["remaining"]) for one in listed] == [("app", 3), ("app", 1), ("/search", 8)]


def test_a_dependency_that_none_would_resolve_is_an_error_in_words() -> None:
    with pytest.raises(ValueError, match=r"needs a route, as does by\(Depends"):
        RateLimit(by(Depends(current_user), "1/s")).wrap(FastAPI())
    with pytest.raises(ValueError, match="FastAPI resolves for Depends"):
        RateLimitMiddleware(FastAPI(), limit=by(Depends(current_user), "1/s"))

    class Depended:
        dependency = staticmethod(current_user)

    with pytest.raises(ValueError, match=r"written by\(Depends\(account\)"):
        RateLimit(by(Depended(), "1/s"))  # type: ignore[arg-type]
