"""Together with the middleware: one store, one writer of headers, one bucket that they are about."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import DISCORD_ON_REFUSAL, DISCORD_ON_SUCCESS, limit_names, repeated, statuses


def both(store: MemoryStore, outer: Any, *limits: RateLimit, style: Any = "discord", **options: Any) -> TestClient:
    """An app with a middleware, and routes that have all of those limits."""
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=outer, store=store, headers=style, **options)
    dependencies = [Depends(limit) for limit in limits]

    @app.get("/", dependencies=dependencies)
    async def root() -> str:
        return "ok"

    @app.get("/stream", dependencies=dependencies)
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"%d" % number

        return StreamingResponse(chunks())

    @app.get("/error", dependencies=dependencies)
    async def error() -> None:
        raise HTTPException(404)

    @app.get("/free")
    async def free() -> str:
        return "free"

    return TestClient(app)


def test_a_routes_limit_is_kept_in_the_middlewares_store(store: MemoryStore) -> None:
    client = both(store, None, RateLimit("1/hour"))
    assert statuses(client, "/", "/") == [200, 429]
    assert len(store) == 1
    assert client.app.state._state == {}  # type: ignore[attr-defined]


def test_a_routes_own_store_is_used_before_the_middlewares(store: MemoryStore) -> None:
    own = MemoryStore(clock=store.clock)
    client = both(store, None, RateLimit("1/hour", store=own))
    assert statuses(client, "/", "/") == [200, 429]
    assert (len(own), len(store)) == (1, 0)


def test_a_middleware_without_a_limit_limits_nothing_and_writes_nothing_of_its_own(store: MemoryStore) -> None:
    client = both(store, None, RateLimit("1/hour"))
    answers = [client.get("/free") for _ in range(20)]
    assert {(answer.status_code, *limit_names(answer.headers)) for answer in answers} == {(200,)}
    assert len(store) == 0


@pytest.mark.parametrize("path", ["/", "/stream", "/error"])
@pytest.mark.parametrize(
    ("outer", "inner", "shown"),
    [("9/hour", "3/hour", "3"), ("3/hour", "9/hour", "3"), (["9/hour", "4/day"], ["8/hour", "5/day"], "4")],
)
def test_a_success_shows_the_bucket_with_the_fewest_left(
    store: MemoryStore, path: str, outer: Any, inner: Any, shown: str
) -> None:
    answer = both(store, outer, RateLimit(inner)).get(path)
    assert repeated(answer) == []
    assert limit_names(answer.headers) == DISCORD_ON_SUCCESS
    assert answer.headers["x-ratelimit-limit"] == shown
    assert answer.headers["x-ratelimit-remaining"] == str(int(shown) - 1)


def test_a_refusal_of_the_route_is_about_the_routes_bucket(store: MemoryStore) -> None:
    client = both(store, "2/minute", RateLimit("1/hour"))
    client.get("/")
    refused = client.get("/")  # the middleware's has none left either, but it did not refuse
    assert refused.status_code == 429
    assert repeated(refused) == []
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL
    assert [refused.headers["x-ratelimit-limit"], refused.headers["retry-after"]] == ["1", "3600"]
    assert refused.json()["retry_after"] == 3600.0
    assert refused.headers["content-type"] == "application/json"


def test_a_refusal_of_the_middleware_is_about_its_bucket_and_charges_no_route(store: MemoryStore) -> None:
    client = both(store, "1/hour", RateLimit("5/hour"))
    client.get("/")
    refused = client.get("/")
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL
    assert refused.headers["x-ratelimit-limit"] == "1"
    again = both(store, None, RateLimit("5/hour")).get("/")
    assert again.headers["x-ratelimit-remaining"] == "3"


def test_the_ietf_headers_name_every_limit_of_both(store: MemoryStore) -> None:
    client = both(store, "9/hour", RateLimit("2/hour", name="strict"), RateLimit("5/day", name="day"), style="both")
    first = client.get("/stream")
    assert repeated(first) == []
    assert first.headers["ratelimit-policy"] == '"app";q=9;w=3600, "strict";q=2;w=3600, "day";q=5;w=86400'
    assert first.headers["ratelimit"] == '"app";r=8;t=400, "strict";r=1;t=1800, "day";r=4;t=17280'
    assert first.headers["x-ratelimit-limit"] == "2"
    client.get("/")  # another route with the same two names
    refused = client.get("/")
    assert refused.status_code == 429
    assert repeated(refused) == []
    assert refused.headers["ratelimit"].startswith('"strict";r=0;t=')
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL | {"ratelimit", "ratelimit-policy"}


@pytest.mark.parametrize("style", ["ietf", "discord", "both"])
@pytest.mark.parametrize("own", ["ietf", "discord", "both", None])
def test_the_middleware_decides_in_which_style_it_is_said(store: MemoryStore, style: Any, own: Any) -> None:
    client = both(store, None, RateLimit("1/hour", headers=own), style=style)
    ietf = {"ratelimit", "ratelimit-policy"} if style in ("ietf", "both") else set()
    on_success = ietf | (DISCORD_ON_SUCCESS if style in ("discord", "both") else set())
    on_refusal = ietf | {"via", "retry-after"} | (DISCORD_ON_REFUSAL if style in ("discord", "both") else set())
    first, second = client.get("/"), client.get("/")
    assert (limit_names(first.headers), repeated(first)) == (on_success, [])
    assert (limit_names(second.headers), repeated(second)) == (on_refusal, [])


def test_a_middleware_that_writes_nothing_leaves_it_to_the_route(store: MemoryStore) -> None:
    client = both(store, None, RateLimit("1/hour"), style=None)
    assert limit_names(client.get("/").headers) == DISCORD_ON_SUCCESS
    assert limit_names(client.get("/").headers) == DISCORD_ON_REFUSAL


def test_a_global_limit_of_the_routes_and_one_of_the_middleware_are_two(store: MemoryStore) -> None:
    whole = TokenBucket("2/hour", scope="global")
    client = both(store, whole, RateLimit(whole))
    assert statuses(client, "/free", "/", "/") == [200, 200, 429]
    assert len(store) == 2


def test_refunds_of_the_middleware_give_back_its_own_charge_only(store: MemoryStore) -> None:
    client = both(store, "2/hour", RateLimit("3/hour", name="routes"), refund=lambda status: status < 500)
    assert statuses(client, *["/"] * 4) == [200, 200, 200, 429]
    assert client.get("/free").headers["x-ratelimit-remaining"] == "2"


def test_two_middlewares_and_a_route_write_each_header_once(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("5/hour"))])
    app.add_middleware(RateLimitMiddleware, limit="9/hour", name="inner", store=store)
    app.add_middleware(RateLimitMiddleware, limit="7/hour", name="outer", store=store, headers="both")

    @app.get("/")
    async def root() -> None: ...

    answer = TestClient(app).get("/")
    assert repeated(answer) == []
    assert answer.headers["x-ratelimit-limit"] == "5"
    assert [item.partition(";")[0] for item in answer.headers["ratelimit"].split(", ")] == ['"outer"', '"inner"', '"/"']
