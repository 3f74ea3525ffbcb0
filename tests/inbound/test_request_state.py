"""Several limiters in one request: one value per header, and the limiter that refused is the one shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.inbound.request_state import STATE, RequestState, merge_headers, state_of
from tests.support.asgi import Answer, ask, hello, http, respond

pytestmark = pytest.mark.anyio

BUCKET_HEADERS = {f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset", "reset-after", "bucket")}


def nested(store: MemoryStore, outer: Any, inner: Any, *, app: Any = hello, **options: Any) -> RateLimitMiddleware:
    """A limiter outside another one; `options` are the outer's."""
    door = RateLimitMiddleware(app, limit=inner, store=store, name="inner")
    return RateLimitMiddleware(door, limit=outer, store=store, name="outer", **options)


def assert_single_values(answer: Answer) -> None:
    names = [name for name, _ in answer.headers]
    assert len(names) == len(set(names)), names
    assert not any("," in answer[name] for name in BUCKET_HEADERS & set(names))


@pytest.mark.parametrize(("outer", "inner", "shown"), [("9/s", "4/s", "4"), ("4/s", "9/s", "4")])
async def test_the_bucket_with_the_least_left_is_shown(store: MemoryStore, outer: str, inner: str, shown: str) -> None:
    answer = await ask(nested(store, outer, inner))
    assert answer.status == 200
    assert_single_values(answer)
    assert answer.about_limits == BUCKET_HEADERS
    assert answer["x-ratelimit-limit"] == shown


@pytest.mark.parametrize(("outer", "inner"), [("100/s", "2/60s"), ("2/60s", "100/s"), ("100/s", "2/s")])
async def test_the_one_that_refused_is_shown(store: MemoryStore, outer: str, inner: str) -> None:
    app = nested(store, outer, inner)
    answers = [await ask(app) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    refusal = answers[-1]
    assert_single_values(refusal)
    assert refusal["x-ratelimit-limit"] == "2"
    assert refusal["x-ratelimit-remaining"] == "0"
    assert refusal.about_limits == {*BUCKET_HEADERS, "x-ratelimit-scope", "retry-after"}
    assert int(refusal["retry-after"]) >= refusal.json["retry_after"]


async def test_an_inner_refusal_is_shown_though_an_outer_bucket_has_less_left(store: MemoryStore) -> None:
    app = nested(store, "3/60s", "1/60s")
    await ask(app)
    await ask(app, client=("203.0.113.8", 1))
    refusal = await ask(app)
    assert refusal.status == 429
    assert refusal["x-ratelimit-limit"] == "1"


async def test_three_doors_write_each_header_once(store: MemoryStore) -> None:
    app = RateLimitMiddleware(nested(store, "9/s", "4/s"), limit="7/s", store=store, name="outermost", headers="both")
    answer = await ask(app)
    assert_single_values(answer)
    assert answer["x-ratelimit-limit"] == "4"
    assert answer["ratelimit-policy"].count(";q=") == 3


async def test_the_outermost_door_that_writes_headers_chooses_their_form(store: MemoryStore) -> None:
    answer = await ask(nested(store, "9/s", "4/s", headers="ietf"))
    assert answer.about_limits == {"ratelimit", "ratelimit-policy"}
    answer = await ask(nested(store, "9/s", "4/s", headers=None))
    assert answer.about_limits == BUCKET_HEADERS
    assert answer["x-ratelimit-limit"] == "4"


async def test_a_silent_refusal_inside_is_still_written_outside(store: MemoryStore) -> None:
    silent = RateLimitMiddleware(hello, limit="1/60s", store=store, name="inner", headers=None)
    app = RateLimitMiddleware(silent, limit="9/s", store=store, name="outer")
    assert [(await ask(app)).status for _ in range(2)] == [200, 429]
    assert (await ask(app))["retry-after"] == "60"


async def test_an_outer_refusal_does_not_reach_the_inner_door(store: MemoryStore) -> None:
    app = nested(store, "1/60s", "2/60s")
    assert [(await ask(app)).status for _ in range(9)] == [200] + [429] * 8
    inner = RateLimitMiddleware(hello, limit="2/60s", store=store, name="inner")
    assert (await ask(inner))["x-ratelimit-remaining"] == "0"


async def test_what_the_app_says_about_limits_itself_is_left_alone(store: MemoryStore) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, headers=[("X-RateLimit-Limit", "77"), ("content-length", "0")])

    answer = await ask(RateLimitMiddleware(app, limit="5/s", store=store, headers="both"))
    assert answer.headers == [("x-ratelimit-limit", "77"), ("content-length", "0")]


async def test_a_retry_after_of_the_apps_own_is_left_alone(store: MemoryStore) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 503, headers=[("Retry-After", "120")])

    answer = await ask(RateLimitMiddleware(app, limit="5/s", store=store))
    assert answer["retry-after"] == "120"
    assert answer["x-ratelimit-limit"] == "5"


async def test_global_limits_of_two_doors_are_told_apart(store: MemoryStore) -> None:
    app = nested(store, TokenBucket("3/60s", scope="global"), TokenBucket("5/60s", scope="global"), headers="both")
    answer = await ask(app)
    assert answer["x-ratelimit-limit"] == "3"
    assert answer["ratelimit-policy"] == '"outer";q=3;w=60, "inner";q=5;w=60'


# The state itself

OURS = [b"x-ratelimit-limit", b"x-ratelimit-reset", b"ratelimit", b"ratelimit-policy", b"retry-after"]
THEIRS = [
    *OURS,
    *(name.title() for name in OURS),
    b"RETRY-AFTER",
    b"Content-Type",
    b"x-my-ratelimit",
    b"rate",
    b"limit",
]


def headers_of(names: list[bytes]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    pair = st.tuples(st.sampled_from(names), st.binary(max_size=3))
    return st.lists(pair, unique_by=lambda pair: pair[0].lower())


@given(headers_of(THEIRS), headers_of(OURS))
def test_merging_never_repeats_a_name_and_never_changes_what_was_there(theirs: list[Any], ours: list[Any]) -> None:
    together = merge_headers(theirs, ours)
    names = [name.lower() for name, _ in together]
    assert len(names) == len(set(names))
    assert together[: len(theirs)] == theirs


def test_merging_keeps_what_the_app_repeats_on_purpose() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert merge_headers(cookies, [(b"retry-after", b"1")]) == [*cookies, (b"retry-after", b"1")]


def test_a_request_has_one_state() -> None:
    scope = http()
    assert state_of(scope) is state_of(scope) is scope[STATE]
    assert state_of(http()) is not state_of(scope)


def test_an_empty_state_writes_no_headers() -> None:
    assert RequestState().headers("both", 0.0) == []
    assert RequestState().shown is None
