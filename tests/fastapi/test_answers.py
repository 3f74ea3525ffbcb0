"""What a client is told: Discord's 429 to the letter, and how much is left on a success."""

import json
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from asgi_ratelimit import Decision, LeakyBucket, MemoryStore, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.traffic import DISCORD_ON_REFUSAL, DISCORD_ON_SUCCESS, limit_names, repeated

IETF = {"ratelimit", "ratelimit-policy"}


def app_with(*limits: RateLimit, path: str = "/") -> TestClient:
    app = FastAPI(dependencies=[Depends(limit) for limit in limits])

    async def endpoint() -> str:
        return "ok"

    app.get(path)(endpoint)
    return TestClient(app)


def test_a_refusal_has_discords_body_and_nothing_around_it(store: MemoryStore) -> None:
    client = app_with(RateLimit("2/3s", store=store))
    client.get("/"), client.get("/")
    refused = client.get("/")
    assert refused.status_code == 429
    assert json.loads(refused.content) == {
        "message": "You are being rate limited.",
        "retry_after": 1.5,
        "global": False,
    }
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["content-length"] == str(len(refused.content))


def test_a_refusal_has_every_header_of_discords_once(store: MemoryStore) -> None:
    client = app_with(RateLimit("2/3s", store=store))
    allowed = [client.get("/"), client.get("/")][0]
    refused = client.get("/")
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL
    assert repeated(refused) == []
    assert refused.headers["via"].split() == ["1.1", "asgi_ratelimit"]
    assert refused.headers["retry-after"] == "2"  # 1.5 s, rounded up
    assert refused.headers["x-ratelimit-limit"] == "2"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.headers["x-ratelimit-reset-after"] == "3.000"
    assert refused.headers["x-ratelimit-reset"] == "1700000003.000"
    assert refused.headers["x-ratelimit-scope"] == "user"
    assert refused.headers["x-ratelimit-bucket"] == allowed.headers["x-ratelimit-bucket"]
    assert len(bytes.fromhex(refused.headers["x-ratelimit-bucket"])) == 16


def test_a_success_says_what_is_left_and_when_it_is_full(store: MemoryStore, clock: ManualClock) -> None:
    client = app_with(RateLimit("2/3s", store=store))
    seen = []
    for _ in range(3):
        answer = client.get("/")
        assert limit_names(answer.headers) == DISCORD_ON_SUCCESS
        seen.append([answer.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset", "reset-after")])
        clock.advance(1)
    assert seen == [
        ["2", "1", "1700000001.500", "1.500"],
        ["2", "0", "1700000003.000", "2.000"],
        ["2", "0", "1700000004.500", "2.500"],
    ]


def test_whoever_obeys_retry_after_is_let_in(store: MemoryStore, clock: ManualClock) -> None:
    client = app_with(RateLimit("3/7s", store=store))
    [client.get("/") for _ in range(3)]
    clock.advance(0.123_456)
    refused = client.get("/")
    wait = refused.json()["retry_after"]
    assert 7 / 3 - 0.123_456 <= wait < 7 / 3 - 0.123_456 + 0.001_001
    assert int(refused.headers["retry-after"]) >= wait
    clock.advance(wait)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("period", ["1ms", "10ms"])
def test_retry_after_is_never_zero(store: MemoryStore, period: str) -> None:
    client = app_with(RateLimit(f"1/{period}", store=store))
    client.get("/")
    refused = client.get("/")
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["retry_after"] > 0


def test_a_global_refusal_names_no_bucket(store: MemoryStore) -> None:
    client = app_with(RateLimit(TokenBucket("1/hour", scope="global"), store=store))
    client.get("/")
    refused = client.get("/")
    assert limit_names(refused.headers) == {"x-ratelimit-global", "x-ratelimit-scope", "retry-after", "via"}
    assert refused.headers["x-ratelimit-global"] == "true"
    assert refused.headers["x-ratelimit-scope"] == "global"
    assert refused.json() == {"message": "You are being rate limited.", "retry_after": 3600.0, "global": True}


def test_a_shared_refusal_is_about_the_resource(store: MemoryStore) -> None:
    limit = RateLimit(TokenBucket("1/hour", scope="shared"), per=("room",), store=store)
    client = app_with(limit, path="/rooms/{room}")
    client.get("/rooms/1")
    refused = client.get("/rooms/1")
    assert refused.headers["x-ratelimit-scope"] == "shared"
    assert refused.json() == {"message": "The resource is being rate limited.", "retry_after": 3600.0, "global": False}


def test_a_list_of_limits_speaks_of_the_one_that_is_nearest(store: MemoryStore, clock: ManualClock) -> None:
    client = app_with(RateLimit(["3/s", "5/hour"], store=store))
    limits = []
    for _ in range(5):
        limits.append(client.get("/").headers["x-ratelimit-limit"])
        clock.advance(1)
    assert [limits[0], limits[1], limits[3], limits[4]] == ["3", "3", "5", "5"]  # the third time they are even
    refused = client.get("/")
    assert [refused.headers["x-ratelimit-limit"], refused.json()["retry_after"]] == ["5", 720.0 - 5]


@pytest.mark.parametrize(
    ("style", "on_success", "on_refusal"),
    [
        ("discord", DISCORD_ON_SUCCESS, DISCORD_ON_REFUSAL),
        ("ietf", IETF, IETF | {"retry-after", "via"}),
        ("both", IETF | DISCORD_ON_SUCCESS, IETF | DISCORD_ON_REFUSAL),
        (None, set(), {"retry-after", "via"}),
    ],
)
def test_the_style_of_the_headers_may_be_chosen(
    store: MemoryStore, style: Any, on_success: set[str], on_refusal: set[str]
) -> None:
    client = app_with(RateLimit("1/hour", headers=style, store=store))
    assert limit_names(client.get("/").headers) == on_success
    assert limit_names(client.get("/").headers) == on_refusal


def test_the_ietf_headers_name_every_limit(store: MemoryStore) -> None:
    limits = [TokenBucket("2/s", name="burst"), TokenBucket("1000/day", name="day")]
    answer = app_with(RateLimit(limits, headers="ietf", store=store)).get("/")
    assert answer.headers["ratelimit-policy"] == '"burst";q=2;w=1, "day";q=1000;w=86400'
    assert answer.headers["ratelimit"] == '"burst";r=1;t=1, "day";r=999;t=87'


def test_shadow_mode_counts_and_reports_and_refuses_nothing(store: MemoryStore) -> None:
    client = app_with(RateLimit("2/hour", enforce=False, store=store))
    answers = [client.get("/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0", "0"]
    assert [limit_names(answer.headers) for answer in answers] == [DISCORD_ON_SUCCESS] * 4


def test_shadow_mode_tells_the_endpoint_what_would_have_been(store: MemoryStore) -> None:
    limit = RateLimit("1/hour", enforce=False, store=store)
    app = FastAPI()
    seen: list[bool] = []

    @app.get("/")
    async def root(quota: Annotated[Decision, Depends(limit)]) -> None:
        seen.append(quota.allowed)

    client = TestClient(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    assert seen == [True, False]


def test_two_limits_on_a_route_show_one_bucket_each_header_once(store: MemoryStore) -> None:
    client = app_with(
        RateLimit("2/hour", name="strict", headers="both", store=store),
        RateLimit("9/day", name="wide", headers="both", store=store),
    )
    first = client.get("/")
    assert repeated(first) == []
    assert [first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]] == ["2", "1"]
    assert first.headers["ratelimit-policy"] == '"strict";q=2;w=3600, "wide";q=9;w=86400'
    assert first.headers["ratelimit"] == '"strict";r=1;t=1800, "wide";r=8;t=9600'


@pytest.mark.parametrize("strict_first", [True, False])
def test_two_limits_on_a_route_show_the_one_with_the_fewest_left_then_the_one_that_refused(
    store: MemoryStore, strict_first: bool
) -> None:
    limits = [RateLimit("2/hour", name="strict", store=store), RateLimit("9/day", name="wide", store=store)]
    client = app_with(*(limits if strict_first else limits[::-1]))
    answers = [client.get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["2", "2", "2"]
    assert [repeated(answer) for answer in answers] == [[], [], []]
    assert len({answer.headers["x-ratelimit-bucket"] for answer in answers}) == 1
    assert limit_names(answers[2].headers) == DISCORD_ON_REFUSAL


def test_a_limit_function_that_says_none_lets_pass_without_a_decision(store: MemoryStore) -> None:
    app = FastAPI()
    seen: list[object] = []
    limit = RateLimit(lambda conn: None if "x-staff" in conn.headers else "1/hour", store=store)

    @app.get("/")
    async def root(quota: Annotated[Decision | None, Depends(limit)]) -> None:
        seen.append(quota)

    client = TestClient(app)
    for _ in range(3):
        free = client.get("/", headers={"x-staff": "yes"})
        assert (free.status_code, limit_names(free.headers)) == (200, set())
    assert seen == [None] * 3
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_an_async_limit_function_is_awaited(store: MemoryStore) -> None:
    async def by_plan(conn: Any) -> str:
        return "3/hour" if conn.headers.get("x-plan") == "gold" else "1/hour"

    gold, client = {"x-plan": "gold"}, app_with(RateLimit(by_plan, store=store))
    assert [client.get("/", headers=gold).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client.get("/").headers["x-ratelimit-limit"] == "1"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cost_may_depend_on_the_request(store: MemoryStore, is_async: bool) -> None:
    def cost(conn: Any) -> int:
        return int(conn.query_params.get("n", "1"))

    async def awaited(conn: Any) -> int:
        return cost(conn)

    client = app_with(RateLimit("10/hour", cost=awaited if is_async else cost, store=store))
    left = [client.get("/", params={"n": n}).headers.get("x-ratelimit-remaining") for n in (4, 0, 5)]
    assert left == ["6", None, "1"]
    assert client.get("/", params={"n": 2}).status_code == 429
    assert client.get("/", params={"n": 1}).status_code == 200


def test_a_refusal_in_a_queue_counts_from_the_whole_queue(store: MemoryStore) -> None:
    client = app_with(RateLimit(LeakyBucket("1/s", queue=0), store=store))
    client.get("/")
    assert client.get("/").json()["retry_after"] == 1.0
