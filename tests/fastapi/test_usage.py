"""GET /limits/me: each limit of the caller, at no cost. Under it: the decision that a request would get."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.testclient import TestClient
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit, usage_router
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.traffic import as_user, limit_names, statuses


def by_name(conn: Any) -> str | None:
    name: str | None = conn.headers.get("x-user")
    return name


def limited_app(store: MemoryStore | None, **routes: RateLimit) -> FastAPI:
    """An app with a route for each of these limits, and the visitor's view."""
    app = FastAPI()
    app.state.ratelimit_store = store

    async def endpoint() -> None: ...

    for name, limit in routes.items():
        app.get(f"/{name}", dependencies=[Depends(limit)])(endpoint)
    app.include_router(usage_router(), prefix="/limits")
    return app


def left(client: TestClient, query: str = "", **options: Any) -> dict[str, int]:
    answer = client.get(f"/limits/me{query}", **options)
    assert answer.status_code == 200
    return {f"{one['name']} {one['rate']}": one["remaining"] for one in answer.json()["limits"]}


# The view


def test_each_route_is_listed_with_what_is_left(store: MemoryStore, clock: ManualClock) -> None:
    client = TestClient(limited_app(store, search=RateLimit("5/5s"), reports=RateLimit(["3/s", "9/hour"])))
    assert left(client) == {"/search 5/5s": 5, "/reports 3/second": 3, "/reports 9/hour": 9}
    assert statuses(client, *["/search"] * 6) == [200] * 5 + [429]
    assert client.get("/limits/me").json()["limits"][0] == {
        "name": "/search",
        "rate": "5/5s",
        "scope": "user",
        "unit": None,
        "limit": 5,
        "remaining": 0,
        "reset_after": 5.0,
        "retry_after": 1.0,
        "over": False,
    }
    clock.advance(1)
    assert left(client)["/search 5/5s"] == 1


def test_a_unit_and_a_soft_limit_that_is_used_up_are_shown(store: MemoryStore) -> None:
    limits = [TokenBucket("1/hour", enforce=False, name="soft"), TokenBucket("9/hour", unit="tokens")]
    client = TestClient(limited_app(store, chat=RateLimit(limits)))
    statuses(client, "/chat")
    seen = client.get("/limits/me").json()["limits"]
    assert [(one["rate"], one["unit"], one["remaining"], one["over"]) for one in seen] == [
        ("1/hour", None, 0, True),
        ("9/hour", "tokens", 8, False),
    ]


def test_asking_costs_nothing(store: MemoryStore) -> None:
    app = limited_app(store, search=RateLimit("5/5s"))
    app.add_middleware(RateLimitMiddleware, limit="3/hour", store=store)
    client = TestClient(app)
    for _ in range(5):
        answer = client.get("/limits/me")
        assert answer.headers["cache-control"] == "no-store"
        assert limit_names(answer.headers) == set()  # it says what is left in its body
        assert [one["remaining"] for one in answer.json()["limits"]] == [3, 5]


def test_an_exempt_view_answers_a_caller_who_is_limited(store: MemoryStore) -> None:
    app = limited_app(store, search=RateLimit("5/5s"))
    app.add_middleware(RateLimitMiddleware, limit="1/hour", store=store, exempt=("/limits/me",))
    client = TestClient(app)
    assert statuses(client, "/search", "/search") == [200, 429]
    assert left(client) == {"app 1/hour": 0, "/search 5/5s": 4}


def test_every_caller_sees_buckets_of_their_own(store: MemoryStore) -> None:
    client = TestClient(limited_app(store, search=RateLimit("5/5s", key=by_name)))
    statuses(client, "/search", "/search", headers=as_user("ada"))
    assert left(client, headers=as_user("ada")) == {"/search 5/5s": 3}
    assert left(client, headers=as_user("bob")) == {"/search 5/5s": 5}


def test_middleware_around_the_app_and_of_a_route_is_listed_too(store: MemoryStore) -> None:
    uploads = RateLimit("2/s", name="uploads", store=store)

    async def endpoint(request: Request) -> Response:
        return Response()

    app = FastAPI(routes=[Route("/upload", endpoint, middleware=[Middleware(uploads.wrap)])])
    app.include_router(usage_router(), prefix="/limits")
    client = TestClient(RateLimitMiddleware(app, limit="3/hour", store=store))
    assert [left(client) for _ in range(4)] == [{"app 3/hour": 3, "uploads 2/second": 2}] * 4


def test_a_bucket_that_several_routes_share_is_listed_once(store: MemoryStore) -> None:
    everybody = RateLimit(TokenBucket("9/s", scope="global"))
    client = TestClient(limited_app(store, a=everybody, b=everybody))
    assert client.get("/a").status_code == 200
    assert left(client) == {"routes 9/second": 8}


def test_the_query_names_the_resource(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("5/5s", per=("channel_id",), store=store)

    @app.post("/channels/{channel_id}/messages", dependencies=[Depends(limit)])
    async def post(channel_id: int) -> None: ...

    app.include_router(usage_router(), prefix="/limits")
    client = TestClient(app)
    assert client.post("/channels/7/messages").status_code == 200
    assert left(client) == {}
    assert left(client, "?channel_id=007") == {"/channels/{channel_id}/messages 5/5s": 4}  # the endpoint's 7
    assert left(client, "?channel_id=8") == {"/channels/{channel_id}/messages 5/5s": 5}


def test_a_key_that_is_a_dependency_is_given_to_the_router(store: MemoryStore) -> None:
    def current_user(x_user: Annotated[str, Header()]) -> str:
        return x_user

    limit = RateLimit("5/5s", key=Depends(current_user), store=store)
    app = FastAPI()

    @app.get("/search", dependencies=[Depends(limit)])
    async def search() -> None: ...

    app.include_router(usage_router(), prefix="/strangers")
    app.include_router(usage_router(key=Depends(current_user)), prefix="/limits")
    client = TestClient(app)
    statuses(client, "/search", "/search", headers=as_user("ada"))
    assert left(client, headers=as_user("ada")) == {"/search 5/5s": 3}
    assert left(client, headers=as_user("bob")) == {"/search 5/5s": 5}
    assert client.get("/strangers/me").json() == {"limits": []}


def test_prefixes_of_routers_and_mounts_are_part_of_the_name(store: MemoryStore) -> None:
    app, inner, versioned = FastAPI(), limited_app(store, search=RateLimit("5/5s")), APIRouter()

    @versioned.get("/items", dependencies=[Depends(RateLimit("2/s", store=store))])
    async def items() -> None: ...

    inner.include_router(versioned, prefix="/v1")
    app.mount("/sub", inner)
    client = TestClient(app, root_path="/proxy")
    assert statuses(client, "/proxy/sub/search", "/proxy/sub/v1/items") == [200, 200]
    seen = {one["name"]: one["remaining"] for one in client.get("/proxy/sub/limits/me").json()["limits"]}
    assert seen == {"/sub/search": 4, "/sub/v1/items": 1}


def test_a_limit_that_cannot_be_looked_at_from_here_is_left_out(store: MemoryStore) -> None:
    app = limited_app(store, search=RateLimit("5/5s"))
    limit = RateLimit("1/s", key=lambda conn: str(conn.path_params["item"]))

    @app.get("/items/{item}", dependencies=[Depends(limit)])
    async def item(item: str) -> None: ...

    assert left(TestClient(app)) == {"/search 5/5s": 5}


def test_a_limit_of_other_paths_or_methods_is_asked_as_its_own_route_would(store: MemoryStore) -> None:
    posts = RateLimit("1/s", methods=("POST",), store=store)
    app = FastAPI()

    @app.get("/notes", dependencies=[Depends(posts)])
    @app.post("/notes", dependencies=[Depends(posts)])
    async def notes() -> None: ...

    app.include_router(usage_router(), prefix="/limits")
    client = TestClient(app)
    assert client.post("/notes").status_code == 200
    assert left(client) == {"/notes 1/second": 0}


def test_it_is_in_the_openapi_document(store: MemoryStore) -> None:
    document = TestClient(limited_app(store)).get("/openapi.json").json()
    assert "limits" in document["components"]["schemas"]["CallerLimits"]["properties"]
    assert set(document["components"]["schemas"]["Usage"]["required"]) == {
        "name", "rate", "scope", "limit", "remaining", "reset_after", "retry_after",
    }  # fmt: skip


def test_a_key_that_is_no_dependency_is_refused() -> None:
    with pytest.raises(ValueError, match=r"key=Depends\(current_user\)"):
        usage_router(key=by_name)


# The verb under it


@pytest.mark.parametrize("used", [0, 1, 2])
def test_peek_is_the_decision_that_the_request_would_get(store: MemoryStore, used: int) -> None:
    limit, app = RateLimit("2/hour", store=store), FastAPI()
    peeked = []

    async def look(request: Request) -> None:
        peeked.extend([await limit.peek(request), await limit.peek(request)])

    @app.get("/", dependencies=[Depends(look), Depends(limit)])
    async def root() -> None: ...

    client = TestClient(app)
    codes = statuses(client, *["/"] * (used + 1))
    first, second = peeked[-2:]
    assert first is not None
    assert first == second
    assert first.remaining == 2 - used
    assert first.allowed is (codes[-1] == 200)


def test_peek_needs_the_user_of_a_limit_whose_key_is_a_dependency(store: MemoryStore) -> None:
    limit = RateLimit("2/hour", key=Depends(by_name), store=store)
    app = FastAPI()
    seen = []

    @app.get("/")
    async def root(request: Request) -> None:
        with pytest.raises(ValueError, match=r"peek\(conn, user\)"):
            await limit.peek(request)
        seen.append(await limit.peek(request, "ada"))

    TestClient(app).get("/")
    assert seen[0] is not None
    assert seen[0].remaining == 2


def test_peek_of_what_nothing_limits_is_none(store: MemoryStore) -> None:
    limits = [
        RateLimit("1/s", exempt=("/",), store=store),
        RateLimit(lambda conn: None, store=store),
        RateLimit("1/s", cost=lambda conn: 0, store=store),
    ]
    app, seen = FastAPI(), []

    @app.get("/")
    async def root(request: Request) -> None:
        seen.extend([await limit.peek(request) for limit in limits])

    TestClient(app).get("/")
    assert seen == [None, None, None]
