"""Every request through a door is one event: counted, refused, let through uncounted, or answered with 503."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from asgi_ratelimit import LeakyBucket, Limiter, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.events import Event
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_preflight import PREFLIGHT, cross_origin
from tests.support.asgi import CONNECT, GONE, Exchange, ask, body, frame, hello, http, settle, statuses, websocket
from tests.support.stores import UnavailableStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def events(store: MemoryStore) -> list[Event]:
    events: list[Event] = []
    store.observers.add(events.append)
    return events


def door(store: MemoryStore, limit: Any = "2/60s", *, app: Any = hello, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limit=limit, store=store, **options)


def kinds(events: list[Event]) -> dict[str, int]:
    return dict(Counter(event.kind for event in events if event.kind != "near"))


async def test_allowed_and_refused(store: MemoryStore, events: list[Event]) -> None:
    assert await statuses(door(store, name="site"), 5) == [200, 200, 429, 429, 429]
    assert kinds(events) == {"allowed": 2, "limited": 3}
    assert {event.limiter for event in events} == {"site"}
    assert {event.key_digest for event in events} == {store.observers.digest("203.0.113.7")}


async def test_shadow_mode_tells_what_would_have_been_refused(store: MemoryStore, events: list[Event]) -> None:
    assert await statuses(door(store, enforce=False), 5) == [200] * 5
    assert kinds(events) == {"allowed": 2, "shadow": 3}


async def test_an_exempt_request_is_seen_though_it_is_not_counted(store: MemoryStore, events: list[Event]) -> None:
    app = door(store, exempt=("/health",))
    assert await statuses(app, 4, path="/health") == [200] * 4
    assert kinds(events) == {"exempt": 4}
    assert [event.limiter for event in events] == ["app"] * 4


@pytest.mark.parametrize(
    "options",
    [{"limit": lambda conn: None}, {"cost": lambda conn: 0}, {"only": ("/login",)}, {"methods": ("POST",)}],
    ids=["no limit", "no cost", "only", "methods"],
)
async def test_so_is_one_that_a_function_lets_through(
    store: MemoryStore, events: list[Event], options: dict[str, Any]
) -> None:
    assert await statuses(door(store, **options), 3) == [200] * 3
    assert kinds(events) == {"exempt": 3}


async def test_a_middleware_without_a_limit_has_nothing_to_report(store: MemoryStore, events: list[Event]) -> None:
    assert await statuses(door(store, None), 3) == [200] * 3
    assert events == []


async def test_a_blocked_key(store: MemoryStore, events: list[Event]) -> None:
    await Limiter("2/60s", store=store, name="app").block("203.0.113.7", 60)
    assert await statuses(door(store), 2) == [429, 429]
    assert kinds(events) == {"blocked": 2}


async def test_preflights_are_exempt_and_what_only_looks_like_one_is_not(
    store: MemoryStore, events: list[Event]
) -> None:
    await statuses(door(store, app=cross_origin()), 3, method="OPTIONS", headers=PREFLIGHT)
    assert kinds(events) == {"exempt": 3}
    events.clear()
    await statuses(door(store, name="other"), 3, method="OPTIONS", headers=PREFLIGHT)
    assert kinds(events) == {"allowed": 2, "limited": 1}


async def test_a_request_that_was_held_has_waited(store: MemoryStore, clock: ManualClock, events: list[Event]) -> None:
    app = door(store, "1/10s", max_wait=15)
    await ask(app)
    held = await Exchange(app, http(), *body(b"")).settled()
    clock.advance(10)
    await held.settled()
    assert kinds(events) == {"allowed": 2, "waited": 1}
    assert [event.seconds for event in events if event.kind == "waited"] == [10.0]


async def test_so_has_one_that_was_spaced(store: MemoryStore, clock: ManualClock, events: list[Event]) -> None:
    app = door(store, LeakyBucket("1/10s", queue=3))
    await ask(app)
    held = await Exchange(app, http(), *body(b"")).settled()
    clock.advance(10)
    await held.settled()
    assert kinds(events) == {"allowed": 2, "waited": 1}


HELD = [("1/10s", {"max_wait": 15}), (LeakyBucket("1/10s", queue=3), {})]


@pytest.mark.parametrize(("limit", "options"), HELD, ids=["max_wait", "spaced"])
@pytest.mark.parametrize("leaves", ["client", "cancelled"])
async def test_one_that_leaves_while_it_is_held_is_gone(
    store: MemoryStore, events: list[Event], limit: Any, options: dict[str, Any], leaves: str
) -> None:
    app = door(store, limit, **options)
    await ask(app)
    held = await Exchange(app, http(), *body(b"")).settled()
    if leaves == "client":
        held.feed(GONE)
    else:
        held.task.cancel()
    await held.settled()
    assert held.task.done()
    assert kinds(events) == {"allowed": 1, "gone": 1}
    assert [event.key_digest for event in events if event.kind == "gone"] == [store.observers.digest("203.0.113.7")]


async def test_a_caller_that_leaves_the_queue_is_gone(store: MemoryStore, events: list[Event]) -> None:
    limiter = Limiter("1/10s", store=store)
    await limiter.acquire("a")
    waiting = asyncio.ensure_future(limiter.acquire("a"))
    await settle()
    waiting.cancel()
    await settle()
    assert kinds(events) == {"allowed": 1, "gone": 1}


async def test_a_preflight_is_seen_though_there_is_no_answer_to_it(store: MemoryStore, events: list[Event]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await ask(door(store, app=broken), method="OPTIONS", headers=PREFLIGHT)
    assert kinds(events) == {"allowed": 2}


@pytest.mark.parametrize(("enforce", "status"), [(True, 503), (False, 200)])
async def test_a_preflight_without_a_store_is_seen(clock: ManualClock, enforce: bool, status: int) -> None:
    events: list[Event] = []
    app = door(UnavailableStore(clock=clock, observers=[events.append]), app=cross_origin(), enforce=enforce)
    assert await statuses(app, 2, method="OPTIONS", headers=PREFLIGHT) == [status, status]
    assert kinds(events) == {"unavailable": 2}


async def test_a_503_is_an_event(clock: ManualClock) -> None:
    events: list[Event] = []
    assert await statuses(door(UnavailableStore(clock=clock, observers=[events.append])), 2) == [503, 503]
    assert kinds(events) == {"unavailable": 2}


async def test_shadow_mode_refuses_nothing_though_the_limit_fails_closed(clock: ManualClock) -> None:
    events: list[Event] = []
    app = door(UnavailableStore(clock=clock, observers=[events.append]), enforce=False)
    assert await statuses(app, 2) == [200, 200]
    assert kinds(events) == {"unavailable": 2}


async def test_too_many_frames_are_refused_under_the_name_of_the_door(store: MemoryStore, events: list[Event]) -> None:
    app = door(store, None, messages="1/60s", name="chat")
    await Exchange(app, websocket(), CONNECT, frame("a"), frame("b")).answer()
    assert [(event.kind, event.limiter, event.decision) for event in events] == [("limited", "chat:messages", None)]


async def test_two_limits_of_one_request_are_two_events(store: MemoryStore, events: list[Event]) -> None:
    inner = door(store, "1/60s", name="inner")
    outer = door(store, "9/60s", name="outer", app=inner)
    assert await statuses(outer, 2) == [200, 429]
    named = [(event.limiter, event.kind) for event in events if event.kind != "near"]
    assert named == [("outer", "allowed"), ("inner", "allowed"), ("outer", "allowed"), ("inner", "limited")]


async def test_no_event_shows_a_key(store: MemoryStore, events: list[Event]) -> None:
    def secret(conn: HTTPConnection) -> str:
        return "secret-key"

    await statuses(door(store, key=secret), 4)
    assert events
    assert "secret" not in repr(events)
