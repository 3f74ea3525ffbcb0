"""Each answer, 429, wait, retry, stop and ban of a run is an event for the observers of the client's store."""

from __future__ import annotations

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordProxy
from asgi_ratelimit.events import Event
from asgi_ratelimit.testing import ManualClock
from tests.discord.test_event_log import Answers, ban, refusal
from tests.support.asgi import ask
from tests.support.clients import bot_of, passing

pytestmark = pytest.mark.anyio

ROUTE = "GET /channels/{channel_id}"


def recorder(clock: ManualClock) -> tuple[MemoryStore, list[Event]]:
    events: list[Event] = []
    return MemoryStore(clock=clock, observers=[events.append]), events


def shown(events: list[Event]) -> list[tuple[str, object]]:
    """The kind of each event, with what matters most of it."""
    detail = {"response": "status", "refused": "scope", "wait": "cause", "waited": "cause", "invalid": "checks"}
    return [(event.kind, getattr(event, detail.get(event.kind, "seconds"))) for event in events]


async def test_a_429_is_refused_waited_for_and_answered(clock: ManualClock) -> None:
    store, events = recorder(clock)
    async with bot_of(Answers(refusal(2.5)), clock, store=store) as discord:
        await passing(clock, discord.get("/channels/1"))
    assert shown(events) == [
        ("response", 429),
        ("refused", "user"),
        ("invalid", 1),
        ("wait", "route"),
        ("waited", "route"),
        ("response", 200),
    ]
    assert {event.route for event in events} == {ROUTE}
    assert {event.limiter for event in events} == {"discord"}
    assert next(event.seconds for event in events if event.kind == "refused") == 2.5
    assert next(event.seconds for event in events if event.kind == "waited") == pytest.approx(2.5, abs=0.6)


async def test_a_failure_is_a_retry(clock: ManualClock) -> None:
    store, events = recorder(clock)
    async with bot_of(Answers(httpx.Response(502), httpx.Response(503)), clock, store=store) as discord:
        await passing(clock, discord.get("/channels/1"))
    assert [kind for kind, _ in shown(events)] == ["response", "retry", "response", "retry", "response"]
    assert [event.status for event in events] == [502, 502, 503, 503, 200]


async def test_a_global_stop_and_a_ban_are_told_apart(clock: ManualClock) -> None:
    store, events = recorder(clock)
    async with bot_of(Answers(refusal(3, scope="global"), ban(600)), clock, store=store) as discord:
        await passing(clock, discord.get("/channels/1"), step=1)
    assert [pair for pair in shown(events) if pair[0] not in ("response", "invalid")] == [
        ("refused", "global"),
        ("stopped", 3.0),
        ("wait", "stopped"),
        ("waited", "stopped"),
        ("refused", "cloudflare"),
        ("banned", 600.0),
        ("wait", "banned"),
        ("waited", "banned"),
    ]


async def test_waits_for_a_bucket_are_as_long_as_they_were(clock: ManualClock) -> None:
    store, events = recorder(clock)
    headers = {
        "x-ratelimit-limit": "1",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset-after": "4",
        "x-ratelimit-bucket": "abc",
    }
    async with bot_of(lambda request: httpx.Response(200, json={}, headers=headers), clock, store=store) as discord:
        for _ in range(3):
            await passing(clock, discord.get("/channels/1"))
    waits = [event for event in events if event.kind == "waited"]
    assert [event.cause for event in waits] == ["bucket", "bucket"]
    assert [event.seconds for event in waits] == pytest.approx([4.0, 4.0], abs=0.6)


async def test_a_dead_token_and_a_webhook_that_is_gone_are_events(clock: ManualClock) -> None:
    store, events = recorder(clock)
    async with bot_of(lambda request: httpx.Response(401, json={}), clock, store=store) as discord:
        await passing(clock, discord.get("/channels/1"))
    assert [event.status for event in events if event.kind == "token"] == [401]
    gone = httpx.Response(404, json={"code": 10015})
    async with bot_of(lambda request: gone, clock, store=store) as discord:
        await passing(clock, discord.post("/webhooks/1/token", json={"content": "x"}))
    assert [event.status for event in events if event.kind == "webhook"] == [404]


async def test_no_event_shows_an_id_or_a_token(clock: ManualClock) -> None:
    store, events = recorder(clock)
    async with bot_of(Answers(refusal(1)), clock, store=store) as discord:
        await passing(clock, discord.post("/webhooks/123456789/s3cret", json={"content": "x"}))
        await passing(clock, discord.get("/channels/987654321"))
    assert events
    for secret in ("s3cret", "123456789", "987654321", "token"):
        assert secret not in repr([event for event in events if event.kind != "token"]).replace("{webhook_token}", "")


async def test_the_proxy_reports_to_its_store() -> None:
    events: list[Event] = []
    inner = httpx.MockTransport(lambda request: httpx.Response(204))
    proxy = DiscordProxy(store=MemoryStore(observers=[events.append]), transport=inner)
    answer = await ask(proxy, "/api/v10/channels/1", headers=[("authorization", "Bot x")])
    await proxy.aclose()
    assert answer.status == 204
    assert shown(events) == [("response", 204)]
