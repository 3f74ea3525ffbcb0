"""The 429: what a real Discord client needs of it, word for word."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response

from asgi_ratelimit import Decision, Limiter, MemoryStore, RateLimitMiddleware, RateLimitWarning, TokenBucket
from asgi_ratelimit.inbound.responses import LimitedResponse, limited_body
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import Answer, ask, hello

pytestmark = pytest.mark.anyio


async def refusal(store: MemoryStore, limit: Any = "1/60s", **options: Any) -> Answer:
    app = RateLimitMiddleware(hello, limit=limit, store=store, **options)
    assert (await ask(app)).status == 200
    answer = await ask(app)
    assert answer.status == 429
    return answer


async def test_a_refusal_word_for_word(store: MemoryStore) -> None:
    answer = await refusal(store)
    assert answer.body == b'{"message": "You are being rate limited.", "retry_after": 60.0, "global": false}'
    bucket = answer["x-ratelimit-bucket"]
    assert re.fullmatch("[0-9a-f]{32}", bucket)
    assert dict(answer.headers) == {
        "content-length": str(len(answer.body)),
        "content-type": "application/json",
        "via": "1.1 asgi_ratelimit",
        "retry-after": "60",
        "x-ratelimit-limit": "1",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1700000060.000",
        "x-ratelimit-reset-after": "60.000",
        "x-ratelimit-bucket": bucket,
        "x-ratelimit-scope": "user",
    }


async def test_a_global_refusal_word_for_word(store: MemoryStore) -> None:
    answer = await refusal(store, TokenBucket("1/60s", scope="global"))
    assert answer.json == {"message": "You are being rate limited.", "retry_after": 60.0, "global": True}
    assert dict(answer.headers) == {
        "content-length": str(len(answer.body)),
        "content-type": "application/json",
        "via": "1.1 asgi_ratelimit",
        "retry-after": "60",
        "x-ratelimit-global": "true",
        "x-ratelimit-scope": "global",
    }


async def test_a_shared_refusal_blames_the_resource(store: MemoryStore) -> None:
    answer = await refusal(store, TokenBucket("1/60s", scope="shared"))
    assert answer.json == {"message": "The resource is being rate limited.", "retry_after": 60.0, "global": False}
    assert answer["x-ratelimit-scope"] == "shared"
    assert answer["x-ratelimit-limit"] == "1"
    assert "x-ratelimit-global" not in answer


async def test_the_scope_is_that_of_the_limit_that_refused(store: MemoryStore) -> None:
    limits = [TokenBucket("1/60s"), TokenBucket("9/s", scope="global"), TokenBucket("8/s", scope="shared")]
    answer = await refusal(store, limits)
    assert answer["x-ratelimit-scope"] == "user"
    assert answer.json["global"] is False


async def test_retry_after_is_whole_in_the_header_and_exact_in_the_body(store: MemoryStore, clock: ManualClock) -> None:
    app = RateLimitMiddleware(hello, limit="1/65s", store=store)
    await ask(app)
    clock.advance(0.430_001)
    answer = await ask(app)
    assert answer["retry-after"] == "65"
    assert answer.json["retry_after"] == 64.57


async def test_retry_after_is_at_least_a_second(store: MemoryStore) -> None:
    answer = await refusal(store, "1/1ms")
    assert answer["retry-after"] == "1"
    assert answer.json["retry_after"] == 0.001


async def test_retry_after_is_until_this_cost_is_allowed_not_until_the_bucket_is_full(store: MemoryStore) -> None:
    answer = await refusal(store, "60/minute", cost=40)
    assert answer["retry-after"] == "20"
    assert answer["x-ratelimit-reset-after"] == "40.000"


async def test_only_a_refusal_has_retry_after_and_scope(store: MemoryStore) -> None:
    answer = await ask(RateLimitMiddleware(hello, limit="1/60s", store=store, headers="both"))
    assert answer.status == 200
    assert not {"retry-after", "x-ratelimit-scope", "x-ratelimit-global", "via"} & {name for name, _ in answer.headers}


async def test_the_bucket_is_the_same_on_every_response_and_for_every_key(store: MemoryStore) -> None:
    app = RateLimitMiddleware(hello, limit="1/60s", store=store)
    answers = [await ask(app), await ask(app), await ask(app, client=("203.0.113.8", 1))]
    assert [answer.status for answer in answers] == [200, 429, 200]
    assert len({answer["x-ratelimit-bucket"] for answer in answers}) == 1


async def test_another_period_or_name_is_another_bucket_and_another_count_is_not(store: MemoryStore) -> None:
    buckets = []
    for limit, name in (("1/60s", "app"), ("1/30s", "app"), ("1/60s", "other"), ("2/60s", "app")):
        answer = await ask(RateLimitMiddleware(hello, limit=limit, store=MemoryStore(clock=store.clock), name=name))
        buckets.append(answer["x-ratelimit-bucket"])
    assert len(set(buckets[:3])) == 3
    assert buckets[3] == buckets[0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("ietf", {"ratelimit", "ratelimit-policy", "retry-after"}),
        (None, {"retry-after"}),
        (
            "both",
            {"ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-scope"}
            | {f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset", "reset-after", "bucket")},
        ),
    ],
)
async def test_a_refusal_carries_the_headers_that_were_asked_for(
    store: MemoryStore, headers: Any, expected: set[str]
) -> None:
    answer = await refusal(store, headers=headers)
    assert answer.about_limits == expected
    assert answer.json["retry_after"] == 60.0


async def test_the_ietfs_headers_of_a_refusal_word_for_word(store: MemoryStore) -> None:
    answer = await refusal(store, ["1/60s", "100/day"], headers="ietf")
    assert answer["ratelimit-policy"] == '"app 1/minute";q=1;w=60, "app 100/day";q=100;w=86400'
    assert answer["ratelimit"] == '"app 1/minute";r=0;t=60, "app 100/day";r=99', "more a day is there after Retry-After"
    assert answer["retry-after"] == "60"


# on_limited


async def test_on_limited_answers_in_its_own_words_and_the_headers_are_added(store: MemoryStore) -> None:
    asked: list[tuple[str, Decision]] = []

    def slow_down(conn: HTTPConnection, decision: Decision) -> Response:
        asked.append((conn.url.path, decision))
        return PlainTextResponse("slow down", 503)

    app = RateLimitMiddleware(hello, limit="1/60s", store=store, on_limited=slow_down)
    assert (await ask(app)).body == b"hello"
    assert asked == []
    answer = await ask(app, "/here")
    assert (answer.status, answer.body) == (503, b"slow down")
    assert answer["retry-after"] == "60"
    assert answer["x-ratelimit-scope"] == "user"
    [(path, decision)] = asked
    assert (path, decision.allowed, decision.retry_after) == ("/here", False, 60.0)


async def test_without_headers_a_refusal_still_names_the_time_to_come_back(store: MemoryStore) -> None:
    silent = await refusal(store, headers=None, on_limited=lambda c, d: PlainTextResponse("slow down", 429))
    assert silent["retry-after"] == "60"
    again = MemoryStore(clock=store.clock)
    own = await refusal(again, headers=None, on_limited=lambda c, d: Response(None, 429, {"Retry-After": "90"}))
    assert own["retry-after"] == "90"


async def test_on_limited_may_be_async(store: MemoryStore) -> None:
    async def slow_down(conn: HTTPConnection, decision: Decision) -> Response:
        return JSONResponse({"wait": decision.retry_after}, 429)

    answer = await refusal(store, on_limited=slow_down)
    assert answer.json == {"wait": 60.0}


async def test_a_retry_after_of_on_limiteds_own_is_the_only_one(store: MemoryStore) -> None:
    answer = await refusal(store, on_limited=lambda c, d: Response(status_code=429, headers={"Retry-After": "90"}))
    assert answer["retry-after"] == "90"


@pytest.mark.parametrize("garbage", [None, "slow down", {"detail": "no"}, 429], ids=repr)
async def test_on_limited_that_gives_no_response_gives_discords(store: MemoryStore, garbage: Any) -> None:
    with pytest.warns(RateLimitWarning, match=r"^ARL204 "):
        answer = await refusal(store, on_limited=lambda conn, decision: garbage)
    assert answer.json["message"] == "You are being rate limited."


# The response itself


async def test_a_refusal_says_how_long_even_when_it_is_built_by_hand(clock: ManualClock) -> None:
    limiter = Limiter("1/60s", store=MemoryStore(clock=clock))
    await limiter.try_acquire("k")
    decision = await limiter.try_acquire("k")
    assert json.loads(limited_body(decision))["retry_after"] == decision.retry_after == 60.0
    response = LimitedResponse(decision)
    assert (response.status_code, response.headers["content-type"]) == (429, "application/json")
