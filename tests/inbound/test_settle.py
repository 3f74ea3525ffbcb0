"""`settle=`: what a request has really cost, once its response has ended, however that comes about."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware, Served, StoreUnavailable, TokenBucket
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_middleware import Trouble, door
from tests.support.asgi import (
    Exchange,
    ask,
    body,
    http,
    respond,
    settle,
    statuses,
)

pytestmark = pytest.mark.anyio


class Record:
    """A settle function that remembers what was served, and says what it was told to."""

    def __init__(self, used: int = 1) -> None:
        self.used = used
        self.served: list[Served] = []

    def __call__(self, served: Served) -> int:
        self.served.append(served)
        return self.used

    @property
    def statuses(self) -> list[int]:
        return [served.status for served in self.served]


async def left(store: MemoryStore, limit: Any, name: str = "app") -> int:
    """What is left for the client of the tests."""
    return (await Limiter(limit, store=store, name=name).peek("203.0.113.7")).remaining


# What a request has cost


async def test_less_is_given_back(store: MemoryStore) -> None:
    used = Record(30)
    app = door(store, "100/minute", cost=50, settle=used)
    answers = [await ask(app) for _ in range(2)]
    assert [answer["x-ratelimit-remaining"] for answer in answers] == ["50", "20"]  # the headers show the estimate
    assert await left(store, "100/minute") == 40


async def test_of_five_at_once_only_two_fit_into_what_is_reserved(store: MemoryStore) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await respond(send)

    limited = door(store, "100/minute", app=app, cost=50, settle=lambda served: 30)
    exchanges = [Exchange(limited, http(), *body(b"")) for _ in range(5)]
    await settle()
    go_on.set()
    assert sorted([(await one.answer()).status for one in exchanges]) == [200, 200, 429, 429, 429]
    assert await left(store, "100/minute") == 40


async def test_more_is_owed_to_the_microsecond(store: MemoryStore, clock: ManualClock) -> None:
    used = Record(150)
    app = door(store, "100/minute", cost=lambda conn: 10 if "x-big" in conn.headers else 1, settle=used)
    assert (await ask(app, headers=[("x-big", "1")])).status == 200
    clock.advance(30.599_999)
    assert (await ask(app)).status == 429
    clock.advance(0.000_001)
    used.used = 1
    assert (await ask(app)).status == 200


async def test_every_limit_of_a_list_is_settled(store: MemoryStore) -> None:
    limits: list[str | TokenBucket] = ["100/minute", TokenBucket("1000/hour", scope="global")]
    await ask(door(store, limits, cost=10, settle=lambda served: 60))
    parts = (await Limiter(limits, store=store, name="app").peek("203.0.113.7")).parts
    assert [part.remaining for part in parts] == [40, 940]


async def test_the_function_may_be_async_and_may_say_nothing_was_used(store: MemoryStore) -> None:
    async def nothing(served: Served) -> int:
        await asyncio.sleep(0)
        return 0

    assert await statuses(door(store, "1/hour", settle=nothing), 5) == [200] * 5


async def test_each_middleware_settles_its_own_charge(store: MemoryStore) -> None:
    inner = door(store, "100/minute", name="inner", settle=lambda served: served.body_bytes)
    await ask(door(store, "100/minute", app=inner, name="outer", settle=lambda served: 7))
    assert (await left(store, "100/minute", "inner"), await left(store, "100/minute", "outer")) == (95, 93)


# What was served


async def test_it_learns_what_was_served(store: MemoryStore, clock: ManualClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = "set by the app"
        clock.advance(0.25)
        await send({"type": "http.response.start", "status": 201, "headers": iter([(b"X-Tokens", b"12")])})
        for chunk in (b"abc", b"de"):
            clock.advance(1)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    used = Record()
    answer = await ask(door(store, app=app, settle=used))
    assert answer["x-tokens"] == "12"
    (served,) = used.served
    assert (served.status, served.headers["x-tokens"], served.body_bytes, served.seconds) == (201, "12", 5, 2.25)
    assert served.scope["route"] == "set by the app"
    assert "x-ratelimit-limit" not in served.headers
    with pytest.raises(AttributeError):
        served.status = 1  # type: ignore[misc]


async def test_time_includes_the_wait_before_the_app(store: MemoryStore, clock: ManualClock) -> None:
    used = Record()
    app = door(store, "1/s", max_wait=5, settle=used)
    await ask(app)
    second = Exchange(app, http(), *body(b""))
    await settle()
    clock.advance(1)
    await second.answer()
    assert [served.seconds for served in used.served] == [0.0, 1.0]


async def test_it_is_settled_at_the_end_of_the_response_before_background_tasks(store: MemoryStore) -> None:
    events: list[str] = []

    def note(served: Served) -> int:
        events.append("settled")
        return 1

    async def chunks() -> Any:
        for number in range(2):
            events.append(f"chunk {number}")
            yield b"x"

    def stream(request: Request) -> Response:
        return StreamingResponse(chunks(), background=BackgroundTask(events.append, "background"))

    await ask(door(store, app=Starlette(routes=[Route("/", stream)]), settle=note))
    assert events == ["chunk 0", "chunk 1", "settled", "background"]


async def test_a_response_without_a_body_has_no_bytes(store: MemoryStore) -> None:
    used = Record()
    await ask(door(store, settle=used), method="HEAD")
    assert [served.body_bytes for served in used.served] == [0]


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ({"type": "http.response.pathsend", "path": "hello.txt"}, 5),
        ({"type": "http.response.pathsend", "path": "gone.txt"}, 0),
        ({"type": "http.response.zerocopysend", "file": 3, "count": 9}, 9),
        ({"type": "http.response.body", "body": None}, 0),
    ],
    ids=["a file", "a file that is gone", "a part of a file", "nothing"],
)
async def test_files_that_the_server_sends_count(
    store: MemoryStore, tmp_path: Path, message: Message, size: int
) -> None:
    (tmp_path / "hello.txt").write_bytes(b"hello")
    if "path" in message:
        message = {**message, "path": str(tmp_path / message["path"])}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(message)

    used = Record()
    await Exchange(door(store, app=app, settle=used), http()).settled()
    assert [(served.status, served.body_bytes) for served in used.served] == [(200, size)]


async def test_a_mounted_app_is_settled_by_the_middleware_around_it(store: MemoryStore) -> None:
    def page(request: Request) -> Response:
        return PlainTextResponse("page")

    inner = Starlette(routes=[Route("/", page)])
    inner.add_middleware(RateLimitMiddleware, limit="100/s", store=store, name="inner", settle=lambda served: 3)
    app = Starlette(routes=[Mount("/inner", inner)])
    app.add_middleware(RateLimitMiddleware, limit="100/s", store=store, settle=lambda served: served.body_bytes)
    assert (await ask(app, "/inner/")).status == 200
    assert (await left(store, "100/s"), await left(store, "100/s", "inner")) == (96, 97)


# Never


async def test_a_refused_request_is_not_settled(store: MemoryStore) -> None:
    used = Record()
    assert await statuses(door(store, "1/60s", settle=used), 3) == [200, 429, 429]
    assert used.statuses == [200]


async def test_what_shadow_mode_let_pass_uncharged_is_not_settled(store: MemoryStore) -> None:
    used = Record()
    assert await statuses(door(store, "1/60s", settle=used, enforce=False), 3) == [200] * 3
    assert used.statuses == [200]


async def test_what_another_limit_refuses_further_in_is_not_settled(store: MemoryStore) -> None:
    used = Record(5)
    app = door(store, "9/60s", app=door(store, "1/60s", name="inner"), settle=used)
    assert await statuses(app, 3) == [200, 429, 429]
    assert used.statuses == [200]
    assert await left(store, "9/60s") == 4


@pytest.mark.parametrize("error", ["refused", "unavailable"])
async def test_what_the_app_refuses_itself_is_not_settled(store: MemoryStore, error: str) -> None:
    own = Limiter("0/day", store=store, name="own")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if error == "unavailable":
            raise StoreUnavailable("no")
        await own.acquire("k", timeout=0)

    used = Record(5)
    answer = await ask(door(store, "9/60s", app=app, settle=used))
    assert answer.status == (429 if error == "refused" else 503)
    assert used.served == []
    assert await left(store, "9/60s") == 9


async def test_what_is_not_counted_is_not_settled(store: MemoryStore) -> None:
    used = Record()
    await ask(door(store, settle=used, exempt=("/",)))
    await ask(door(store, settle=used, cost=lambda conn: 0))
    await ask(door(store, None, settle=used))
    assert used.served == []


# Failures


async def _fails(served: Served) -> int:
    raise Trouble


@pytest.mark.parametrize("rule", [lambda served: 1 // 0, _fails], ids=["sync", "async"])
async def test_a_function_that_raises_leaves_the_charge_and_the_response(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, rule: Any
) -> None:
    with caplog.at_level(logging.ERROR, "asgi_ratelimit"):
        answer = await ask(door(store, "9/60s", cost=4, settle=rule))
    assert (answer.status, answer.body) == (200, b"hello")
    assert await left(store, "9/60s") == 5
    (record,) = caplog.records
    assert record.exc_info is not None


@pytest.mark.parametrize("nonsense", [-1, 1.5, 2.0, True, None, "3", float("nan"), [1]], ids=repr)
async def test_a_value_that_is_no_cost_changes_nothing(store: MemoryStore, nonsense: Any) -> None:
    with pytest.warns(UserWarning, match="ARL205"):
        answers = await statuses(door(store, "9/60s", cost=4, settle=lambda served: nonsense), 2)
    assert answers == [200, 200]
    assert await left(store, "9/60s") == 1


async def test_a_huge_cost_is_cut_to_what_a_bucket_can_owe(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, "60/60s", settle=lambda served: 10**400)
    await ask(app)
    assert (await ask(app))["retry-after"] == "61"


class OutBuckets:
    """The buckets of a store whose server has gone."""

    def __init__(self, buckets: Any) -> None:
        self.decide = buckets.decide

    def settle(self, *_: object) -> None:
        raise StoreUnavailable("gone")


async def test_a_settlement_that_an_outage_has_lost_is_no_error(store: MemoryStore, clock: ManualClock) -> None:
    class Out(MemoryStore):
        def open(self, name: str, policies: Any) -> Any:
            return OutBuckets(super().open(name, policies))

    assert await statuses(door(Out(clock=clock), "9/60s", settle=lambda served: 3), 2) == [200, 200]


def test_a_charge_is_given_back_or_settled_not_both(store: MemoryStore) -> None:
    with pytest.raises(ValueError, match="settle= return 0"):
        door(store, refund=lambda status: True, settle=lambda served: 1)


@pytest.mark.parametrize("wrong", [5, "3", lambda: 1, lambda served, more: 1])
def test_a_settle_that_is_no_function_of_what_was_served_is_an_error(store: MemoryStore, wrong: Any) -> None:
    with pytest.raises(ValueError, match="settle"):
        door(store, settle=wrong)


async def test_only_requests_with_it_pay_for_it(store: MemoryStore) -> None:
    sends: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(type(send).__name__)
        await respond(send)

    await ask(door(store, app=app))
    await ask(door(store, app=app, settle=lambda served: 1))
    assert sends == ["function", "method"]
