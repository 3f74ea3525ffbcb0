"""LoadShedMiddleware: who is let in, who is shed, and that no place is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.errors import RateLimitWarning
from asgi_ratelimit.events import Event
from asgi_ratelimit.load import LoadShedMiddleware
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.testing import ManualClock
from tests.load.conftest import HeldApp
from tests.support.asgi import CONNECT, GONE, LEFT, Exchange, ask, body, frame, hello, http, respond, settle, websocket

pytestmark = pytest.mark.anyio

FIRST = 32  # requests may be in flight while nothing is known of the app


def by_header(conn: HTTPConnection) -> int:
    return int(conn.headers.get("x-class", "1"))


def of_class(one: int) -> dict[str, Any]:
    return {"headers": [("x-class", str(one))]}


async def fill(app: Any, number: int = FIRST, **more: Any) -> list[Exchange]:
    """So many requests in flight."""
    exchanges = [Exchange(app, http(**more), *body(b"")) for _ in range(number)]
    await settle()
    return exchanges


async def statuses_of(exchanges: Sequence[Exchange]) -> Counter[int]:
    return Counter([(await exchange.answer()).status for exchange in exchanges])


async def places(middleware: Any, held: HeldApp) -> int:
    """How many of many requests are let in, beside those that are in flight."""
    before = held.started
    exchanges = [Exchange(middleware, http(headers=[("x-class", "3")]), *body(b"")) for _ in range(2 * FIRST)]
    await settle()
    found = held.started - before
    for exchange in exchanges:
        exchange.task.cancel()
    await asyncio.gather(*[exchange.task for exchange in exchanges], return_exceptions=True)
    return found


async def test_what_is_too_much_gets_a_503_at_once(held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, priority=lambda conn: 3)
    exchanges = await fill(app)
    shed = await ask(app)
    assert (shed.status, shed["content-type"], shed["retry-after"]) == (503, "application/json", "1")
    assert shed.json == {"message": "The server is overloaded.", "retry_after": 1.0}
    assert int(shed["content-length"]) == len(shed.body)
    held.release()
    assert await statuses_of(exchanges) == {200: FIRST}
    assert (await ask(app)).status == 200


async def test_the_less_important_are_shed_first(held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, priority=by_header)
    exchanges = await fill(app)
    assert (await ask(app, **of_class(3))).status == 503
    assert (await ask(app, **of_class(99))).status == 503
    exchanges += await fill(app, 1, **of_class(2))
    assert (await ask(app, **of_class(2))).status == (await ask(app, **of_class(1))).status == 503
    exchanges += await fill(app, 4, **of_class(0))
    held.release()
    assert await statuses_of(exchanges) == {200: FIRST + 5}


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/internal/metrics"])
async def test_health_checks_and_exempt_paths_are_never_shed(path: str, held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, exempt=("/internal/*",), priority=lambda conn: 3)
    await fill(app)
    assert (await ask(app, "/other")).status == 503
    exchanges = await fill(app, 3 * FIRST, path=path)
    held.release()
    assert await statuses_of(exchanges) == {200: 3 * FIRST}


async def test_functions_are_called_only_if_a_request_may_be_shed(held: HeldApp, store: MemoryStore) -> None:
    called: list[str] = []

    async def exempt(conn: HTTPConnection) -> bool:
        called.append("exempt")
        return False

    async def priority(conn: HTTPConnection) -> int:
        called.append("priority")
        return 3

    app = LoadShedMiddleware(held, store=store, exempt=exempt, priority=priority)
    for _ in range(FIRST):  # one after the other: none of them waits
        await fill(app, 1)
    assert called == []
    assert (await ask(app)).status == 503
    assert called == ["exempt", "priority"]


@pytest.mark.parametrize("answer", [None, -1, True, "0", 1.5])
async def test_a_priority_that_is_none_counts_as_the_usual_one(answer: Any, held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, priority=lambda conn: answer)
    with pytest.warns(RateLimitWarning, match="ARL206"):
        await fill(app, FIRST + 1)
    assert held.started == FIRST + 1
    assert (await ask(app)).status == 503


@pytest.mark.parametrize("end", ["raise", "cancel", "leave", "answer"])
async def test_no_place_is_lost(end: str, held: HeldApp, store: MemoryStore) -> None:
    app = LoadShedMiddleware(held, store=store, priority=by_header)
    path = {"raise": "/fails"}.get(end, "/")
    exchanges = await fill(app, path=path)
    assert await places(app, held) == 0
    if end == "cancel":
        for exchange in exchanges:
            exchange.task.cancel()
    elif end == "leave":
        for exchange in exchanges:
            exchange.feed(GONE)
    held.release()
    done = await asyncio.gather(*[exchange.task for exchange in exchanges], return_exceptions=True)
    expected = {"raise": RuntimeError, "cancel": asyncio.CancelledError}.get(end, type(None))
    assert {type(one) for one in done} == {expected}
    held.hold()
    assert await places(app, held) == FIRST


async def test_an_app_that_sends_nothing_or_twice_frees_its_place_once(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/twice":
            await respond(send)
            await send({"type": "http.response.start", "status": 500, "headers": []})

    middleware = LoadShedMiddleware(app, store=store)
    for path in ["/nothing", "/twice"] * (2 * FIRST):
        exchange = Exchange(middleware, http(path), *body(b""))
        await exchange.task
        assert exchange.types[:1] != ["http.response.start"] or exchange.sent[0]["status"] == 200


async def test_a_stream_leaves_its_place_with_its_start(store: MemoryStore) -> None:
    more = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"b"})

    app = LoadShedMiddleware(stream, store=store)
    exchanges = await fill(app, 3 * FIRST)
    more.set()
    assert {(await exchange.answer()).body for exchange in exchanges} == {b"ab"}
    assert await statuses_of(exchanges) == {200: 3 * FIRST}


async def test_a_client_that_is_slow_to_send_holds_no_place(store: MemoryStore) -> None:
    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await respond(send, 200, b"%d" % size)

    app = LoadShedMiddleware(read, store=store)
    slow = [Exchange(app, http(), {"type": "http.request", "body": b"ab", "more_body": True}) for _ in range(3 * FIRST)]
    await settle()
    assert (await ask(app)).status == 200
    for exchange in slow:
        exchange.feed(*body(b"c"))
    assert {(await exchange.answer()).body for exchange in slow} == {b"3"}
    assert (await ask(app)).status == 200


async def test_a_body_that_is_cancelled_frees_its_place_once(store: MemoryStore, held: HeldApp) -> None:
    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/read":
            await receive()
        await held(scope, receive, send)

    app = LoadShedMiddleware(read, store=store, priority=by_header)
    slow = [Exchange(app, http("/read")) for _ in range(FIRST)]
    await settle()
    for exchange in slow:
        exchange.task.cancel()
    await asyncio.gather(*[exchange.task for exchange in slow], return_exceptions=True)
    assert await places(app, held) == FIRST


async def test_a_request_that_takes_very_long_is_left_out(
    held: HeldApp, store: MemoryStore, clock: ManualClock
) -> None:
    app = LoadShedMiddleware(held, store=store, priority=by_header)
    exchanges = await fill(app)
    assert await places(app, held) == 0
    clock.advance(1.5)
    assert await places(app, held) >= FIRST
    held.release()
    assert await statuses_of(exchanges) == {200: FIRST}


async def test_websockets_and_lifespans_pass(held: HeldApp, store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (held if scope["type"] == "http" else hello)(scope, receive, send)

    seen: list[str] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    middleware = LoadShedMiddleware(app, store=store, priority=lambda conn: 3)
    await fill(middleware)
    assert (await ask(middleware)).status == 503
    sockets = [Exchange(middleware, websocket(), CONNECT, frame("a")) for _ in range(FIRST)]
    for socket in sockets:
        await socket.settled()
        assert socket.types == ["websocket.accept", "websocket.send"]
        socket.feed(LEFT)
        await socket.answer()
    await Exchange(LoadShedMiddleware(lifespan, store=store), {"type": "lifespan"}).task
    assert seen == ["lifespan"]


async def test_each_is_an_event_of_the_store(held: HeldApp, store: MemoryStore, events: list[Event]) -> None:
    stats = Stats()
    store.observers.add(stats)
    app = LoadShedMiddleware(held, store=store, name="shop", priority=lambda conn: 3)
    await fill(app)
    for _ in range(3):
        await ask(app)
    assert [(event.kind, event.limiter, event.priority) for event in events] == [("shed", "shop", 3)] * 3
    counts = stats.snapshot().limiters["shop"]
    assert (counts.shed, counts.refused, counts.total) == (3, 3, 3)


async def test_what_is_shed_before_it_has_begun_is_one_event_and_no_answer_of_the_app(
    held: HeldApp, store: MemoryStore, clock: ManualClock, events: list[Event]
) -> None:
    app = LoadShedMiddleware(held, store=store, priority=by_header)
    exchanges = await fill(app, FIRST + 10, **of_class(1))
    for _ in range(20):  # the app ends as many requests as come in, and all of them wait
        clock.advance(0.06)
        await settle()
    held.release()
    statuses = await statuses_of(exchanges)
    assert statuses[503] == len(events) >= 1
    assert statuses[200] == held.started
    assert {event.priority for event in events} == {1}
    assert await places(app, held) >= 1


async def test_observers_without_a_store(held: HeldApp) -> None:
    events: list[Event] = []
    app = LoadShedMiddleware(held, observers=[events.append], priority=lambda conn: 3)
    await fill(app)
    await ask(app)
    assert [event.kind for event in events] == ["shed"]


async def test_the_log_has_one_warning_a_minute(
    held: HeldApp, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = LoadShedMiddleware(held, store=store, priority=lambda conn: 3)
    await fill(app)
    for _ in range(5):
        await ask(app)
    assert not caplog.records
    clock.advance(60)
    await settle()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "load: 5 shed under load in 60 s (keys: 1, the most of one: 5 (no key))")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 1}, "priority is a function such as"),
        ({"priority": lambda: 1}, "priority is a function such as"),
        ({"exempt": ("health",)}, "an exempt path looks like"),
        ({"observers": print}, "observers is a list"),
        ({"store": MemoryStore(), "observers": [print]}, "give the observers to the store"),
        ({"store": "redis://localhost"}, "store"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadShedMiddleware(hello, **options)


async def test_an_exception_of_the_users_function_is_passed_on_and_costs_no_place(
    held: HeldApp, store: MemoryStore
) -> None:
    def priority(conn: HTTPConnection) -> int:
        return {"3": 3}[conn.headers["x-class"]]

    app = LoadShedMiddleware(held, store=store, priority=priority)
    exchanges = await fill(app, **of_class(3))
    with pytest.raises(KeyError):
        await ask(app, **of_class(1))
    for exchange in exchanges:
        exchange.task.cancel()
    await asyncio.gather(*[exchange.task for exchange in exchanges], return_exceptions=True)
    assert await places(app, held) == FIRST
