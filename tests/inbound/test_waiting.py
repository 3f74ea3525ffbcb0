"""Requests that are held instead of refused: admitted in time, bounded in number, let go when their client leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import LeakyBucket, MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.inbound import holding
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import (
    CONNECT,
    DENIAL,
    GONE,
    LEFT,
    Answer,
    Exchange,
    ask,
    body,
    hello,
    http,
    respond,
    settle,
    websocket,
)

pytestmark = pytest.mark.anyio


def door(store: MemoryStore, limit: Any = "1/10s", *, app: Any = hello, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limit=limit, store=store, **options)


async def start(app: RateLimitMiddleware, client: str = "203.0.113.7", *chunks: bytes) -> Exchange:
    return await Exchange(app, http(client=(client, 1)), *body(*(chunks or (b"",)))).settled()


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with what it was sent."""
    more = True
    chunks = []
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        chunks.append(message["body"])
        more = message["more_body"]
    await respond(send, 200, *chunks)


async def test_without_max_wait_nobody_is_held(store: MemoryStore) -> None:
    app = door(store)
    await ask(app)
    assert (await start(app)).types == ["http.response.start", "http.response.body"]


async def test_a_held_request_is_admitted_when_its_turn_has_come(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=10)
    await ask(app)
    held = await start(app)
    assert held.sent == []
    clock.advance(9.999999)
    assert (await held.settled()).sent == []
    clock.advance(0.000001)
    answer = await held.answer()
    assert answer.status == 200
    assert answer["x-ratelimit-remaining"] == "0"


async def test_a_wait_that_would_be_too_long_is_refused_at_once(store: MemoryStore) -> None:
    app = door(store, max_wait=9.9)
    await ask(app)
    refusal = await (await start(app)).answer()
    assert (refusal.status, refusal["retry-after"]) == (429, "10")


async def test_the_held_are_admitted_in_the_order_in_which_they_came(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=100)
    await ask(app)
    held = [await start(app) for _ in range(4)]
    for admitted in range(1, 5):
        clock.advance(10)
        await settle()
        assert [bool(one.sent) for one in held] == [True] * admitted + [False] * (4 - admitted)


async def test_nobody_waits_for_somebody_elses_bucket(store: MemoryStore) -> None:
    app = door(store, max_wait=100)
    await ask(app)
    await start(app)
    assert (await (await start(app, "203.0.113.8")).answer()).status == 200


@pytest.mark.parametrize("chunks", [(b"one",), (b"one", b"two", b"three"), (b"x" * 40_000,) * 4], ids=len)
async def test_what_was_read_while_waiting_reaches_the_app(
    store: MemoryStore, clock: ManualClock, chunks: tuple[bytes, ...]
) -> None:
    app = door(store, app=count_body, max_wait=100)
    await start(app)
    held = await start(app, "203.0.113.7", *chunks)
    assert held.sent == []
    clock.advance(10)
    assert (await held.answer()).chunks[:-1] == list(chunks)


async def test_no_more_than_a_little_of_a_body_is_kept_while_waiting(store: MemoryStore) -> None:
    app = door(store, app=count_body, max_wait=100)
    await start(app)
    held = await start(app, "203.0.113.7", *(b"x" * 1_000 for _ in range(1_000)))
    assert 930 < held.unread < 940


async def test_a_body_that_arrives_after_the_wait_reaches_the_app(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, app=count_body, max_wait=100)
    await start(app)
    held = await Exchange(app, http()).settled()
    held.feed({"type": "http.request", "body": b"early", "more_body": True})
    await settle()
    clock.advance(10)
    await settle()
    held.feed({"type": "http.request", "body": b"late", "more_body": False})
    assert (await held.answer()).body == b"earlylate"


async def test_a_client_that_leaves_is_no_longer_waited_for(store: MemoryStore, clock: ManualClock) -> None:
    reached = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["client"])
        await hello(scope, receive, send)

    limited = door(store, app=app, max_wait=100)
    await start(limited)
    left, patient = await start(limited), await start(limited)
    left.feed(GONE)
    assert (await left.answer()).sent == []
    clock.advance(10)
    assert (await patient.answer()).status == 200
    assert len(reached) == 2


async def test_the_app_learns_that_its_client_left_after_the_wait(store: MemoryStore, clock: ManualClock) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    limited = door(store, app=app, max_wait=100)
    await Exchange(limited, http(), *body(b""), GONE).answer()
    held = await start(limited)
    clock.advance(10)
    await settle()
    held.feed(GONE)
    await held.answer()
    assert seen == ["http.request", "http.disconnect"] * 2


async def test_a_held_request_that_is_cancelled_charges_nothing(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=100)
    await ask(app)
    held = await start(app)
    held.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held.task
    clock.advance(10)
    assert (await ask(app)).status == 200


# How many


async def fill(app: RateLimitMiddleware, places: int, client: str = "203.0.113.7") -> list[Exchange]:
    """Use up the client's bucket, then have so many of its requests held."""
    await start(app, client)
    held = [await start(app, client) for _ in range(places)]
    assert not any(one.sent for one in held)
    return held


async def refused(exchange: Exchange) -> Answer:
    assert exchange.task.done(), "held, though every place is taken"
    answer = await exchange.answer()
    assert answer.status == 429
    return answer


async def test_the_held_are_bounded_in_number(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 3)
    monkeypatch.setattr(holding, "SHARE", 1)
    app = door(store, max_wait=100)
    await fill(app, 3)
    refusal = await refused(await start(app))
    assert int(refusal["retry-after"]) >= 10


async def test_a_client_that_leaves_frees_its_place(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 2)
    monkeypatch.setattr(holding, "SHARE", 1)
    app = door(store, max_wait=100)
    leaving, _ = await fill(app, 2)
    await refused(await start(app))
    leaving.feed(GONE)
    await leaving.answer()
    assert (await start(app)).sent == []
    await refused(await start(app))


async def test_an_admitted_request_frees_its_place(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 1)
    app = door(store, max_wait=100)
    [held] = await fill(app, 1)
    clock.advance(10)
    await held.answer()
    assert (await start(app)).sent == []


async def test_one_client_who_takes_every_place_locks_nobody_else_out(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 2)
    monkeypatch.setattr(holding, "SHARE", 1)
    app = door(store, max_wait=100)
    await fill(app, 2)
    stranger = await (await start(app, "203.0.113.8")).answer()
    assert stranger.status == 200


async def test_no_client_has_more_than_a_share_of_the_places(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 20)
    app = door(store, max_wait=1000)
    await fill(app, 2)
    await refused(await start(app))
    for client in ("203.0.113.8", "203.0.113.9"):
        await fill(app, 2, client)


async def test_whoever_cannot_be_served_in_time_takes_no_place(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=30)  # a call every 10 s
    held = await fill(app, 3)
    for _ in range(20):
        await refused(await start(app))
    for one in held:
        clock.advance(10)
        assert (await one.answer()).status == 200


# A LeakyBucket's slots


async def test_a_delay_is_waited_out_before_the_app_is_asked(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, LeakyBucket("1/10s", queue=2))
    first, second, third, fourth = [await start(app) for _ in range(4)]
    assert (await first.answer()).status == 200
    assert second.sent == third.sent == []
    assert (await fourth.answer()).status == 429
    clock.advance(10)
    assert (await second.answer()).status == 200
    assert (await third.settled()).sent == []
    clock.advance(10)
    assert (await third.answer()).status == 200


async def test_a_delay_longer_than_max_wait_is_refused_and_charges_nothing(
    store: MemoryStore, clock: ManualClock
) -> None:
    app = door(store, LeakyBucket("1/10s", queue=5), max_wait=15)
    first, second, third = [await start(app) for _ in range(3)]
    assert (await first.answer()).status == 200
    assert second.sent == []
    refusal = await third.answer()
    assert refusal.status == 429
    clock.advance(10)
    assert (await second.answer()).status == 200
    fourth = await start(app)
    assert fourth.sent == []
    clock.advance(10)
    assert (await fourth.answer()).status == 200


async def test_who_was_refused_a_long_delay_is_not_refused_again_after_retry_after(
    store: MemoryStore, clock: ManualClock
) -> None:
    app = door(store, LeakyBucket("1/10s", queue=5), max_wait=15)
    await start(app)
    held = await start(app)
    refusal = await (await start(app)).answer()
    clock.advance(int(refusal["retry-after"]))
    again = await start(app)
    assert again.sent == [] or (await again.answer()).status == 200
    held.task.cancel()
    again.task.cancel()


async def test_a_client_that_leaves_gives_its_slot_back(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, LeakyBucket("1/10s", queue=1))
    await start(app)
    leaving = await start(app)
    assert (await (await start(app)).answer()).status == 429
    leaving.feed(GONE)
    assert (await leaving.answer()).sent == []
    patient = await start(app)
    assert patient.sent == []
    clock.advance(10)
    assert (await patient.answer()).status == 200


async def test_delayed_requests_take_places_too(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", 1)
    app = door(store, LeakyBucket("1/10s", queue=5))
    await start(app)
    delayed = await start(app)
    await refused(await start(app))
    assert (await (await start(app, "203.0.113.8")).answer()).status == 200
    delayed.feed(GONE)
    await delayed.answer()
    assert (await start(app)).sent == []


async def test_a_limit_that_a_function_gives_may_delay(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, lambda conn: [LeakyBucket("1/10s"), TokenBucket("100/s")], app=count_body)
    await start(app)
    delayed = await start(app, "203.0.113.7", b"kept")
    assert delayed.sent == []
    clock.advance(10)
    assert (await delayed.answer()).body == b"kept"


# WebSockets


async def test_a_handshake_is_held_and_admitted(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=100)
    await ask(app)
    held = await Exchange(app, websocket(), CONNECT).settled()
    assert held.sent == []
    clock.advance(10)
    assert (await held.settled()).types == ["websocket.accept"]
    held.feed(LEFT)
    await held.answer()


async def test_a_handshake_whose_client_leaves_is_let_go(store: MemoryStore) -> None:
    app = door(store, max_wait=100)
    await ask(app)
    held = await Exchange(app, websocket(**DENIAL), CONNECT).settled()
    held.feed(LEFT)
    assert (await held.answer()).sent == []


async def test_a_decision_that_comes_at_the_moment_of_a_cancellation_is_given_back() -> None:
    lost: list[str] = []

    async def decide() -> str:
        request.cancel()  # the decision and the cancellation are there at once
        return "decision"

    async def leave() -> None:
        await asyncio.Event().wait()

    async def give_back(decision: str) -> None:
        lost.append(decision)

    request = asyncio.ensure_future(holding.Holding().wait("key", decide(), leave, give_back))
    with pytest.raises(asyncio.CancelledError):
        await request
    assert lost == ["decision"]


async def test_a_leaky_bucket_whose_queue_is_full_refuses(store: MemoryStore) -> None:
    app = door(store, LeakyBucket("1/10s", queue=0))
    assert [(await ask(app)).status for _ in range(2)] == [200, 429]


async def test_a_client_that_leaves_as_its_turn_comes_is_not_served() -> None:
    lost: list[str] = []

    async def turn() -> str:
        return "charged"

    async def gone() -> None:
        """At the same moment."""

    async def on_lost(result: str) -> None:
        lost.append(result)

    with pytest.raises(holding.ClientGone):
        await holding.Holding().wait("key", turn(), gone, on_lost)
    assert lost == ["charged"]
