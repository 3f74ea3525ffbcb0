"""A token is given up only when Discord has rejected it twice, and not for ever; and it is sent to nobody else.

The servers here are functions written from Discord's public facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, DiscordRateLimited, TokenRejected, WebhookGone
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import API, TOKEN, WEBHOOK, Seen, all_of, bot_of, passing, settled

pytestmark = pytest.mark.anyio

Answer = Callable[[httpx.Request], httpx.Response]
FOLLOW_UP = "/webhooks/77/aW50ZXJhY3Rpb246MTIzNDU2Nzg5MDEyMzQ1Njc4OTpSYW5kb20"


def paths(server: Seen) -> list[str]:
    return [request.url.path.removeprefix("/api/v10") for request in server.requests]


def unauthorized(*refused: str) -> Answer:
    """Answers 401 at these paths only."""

    def answer(request: httpx.Request) -> httpx.Response:
        status = 401 if request.url.path.removeprefix("/api/v10") in refused else 200
        return httpx.Response(status, json={"id": "1"})

    return answer


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/oauth2/@me"), ("POST", "/oauth2/token"), ("GET", "/oauth2/applications/@me")]
)
async def test_a_401_of_oauth2_says_nothing_about_the_token(clock: ManualClock, method: str, path: str) -> None:
    server = Seen(unauthorized(path))
    async with bot_of(server, clock) as discord:
        for _ in range(2):
            assert (await discord.request(method, path)).status_code == 401
            assert (await discord.get("/channels/1")).status_code == 200
    assert paths(server) == [path, "/channels/1"] * 2, "no second opinion either"


async def test_a_single_401_has_a_second_opinion_and_the_token_lives_on(clock: ManualClock) -> None:
    server = Seen(unauthorized("/channels/1"))
    async with bot_of(server, clock) as discord:
        for _ in range(3):
            assert (await discord.get("/channels/1")).status_code == 401
        assert (await discord.get("/channels/2")).status_code == 200
    assert paths(server) == ["/channels/1", "/users/@me", "/channels/1", "/channels/1", "/channels/2"]


async def test_a_bearer_token_is_asked_for_where_every_scope_is_welcome(clock: ManualClock) -> None:
    server = Seen(unauthorized("/users/@me/guilds"))
    inner = httpx.MockTransport(server)
    async with DiscordClient("Bearer x", base_url=API, transport=inner, store=MemoryStore(clock=clock)) as discord:
        assert (await discord.get("/users/@me/guilds")).status_code == 401
        assert (await discord.get("/users/@me")).status_code == 200
    assert paths(server) == ["/users/@me/guilds", "/oauth2/@me", "/users/@me"]


@pytest.mark.parametrize("opinion", [500, 403, 404])
async def test_without_a_clear_second_opinion_the_token_lives_on(clock: ManualClock, opinion: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        status = {"/api/v10/channels/1": 401, "/api/v10/users/@me": opinion}.get(request.url.path, 200)
        return httpx.Response(status, json={})

    async with bot_of(Seen(answer), clock) as discord:
        assert (await passing(clock, discord.get("/channels/1"), step=0.1)).status_code == 401
        assert (await discord.get("/channels/2")).status_code == 200


async def test_other_calls_wait_for_the_second_opinion(clock: ManualClock) -> None:
    server = Seen(lambda request: httpx.Response(401, json={}))
    async with bot_of(server, clock) as discord:
        first = await discord.get("/channels/1")
        calls = [discord.get(f"/channels/{number}") for number in range(50)]
        outcomes = await passing(clock, asyncio.gather(*calls, return_exceptions=True))
    assert first.status_code == 401
    assert [type(outcome) for outcome in outcomes] == [TokenRejected] * 50
    assert paths(server) == ["/channels/1", "/users/@me"]


async def test_calls_that_are_under_way_share_one_second_opinion(clock: ManualClock) -> None:
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        if not request.url.path.endswith("/@me"):
            await release.wait()
        return httpx.Response(401, json={})

    seen: list[str] = []
    async with bot_of(answer, clock) as discord:
        calls = all_of(discord.get(f"/channels/{number}") for number in range(20))
        await passing(clock, clock.sleep(1))
        release.set()
        assert {answer.status_code for answer in await passing(clock, calls)} == {401}
    assert len(seen) == 21


async def test_a_rejected_token_is_tried_again_later(clock: ManualClock) -> None:
    rejected = ["/channels/1", "/users/@me"]
    server = Seen(lambda request: unauthorized(*rejected)(request))
    async with bot_of(server, clock) as discord:
        assert (await discord.get("/channels/1")).status_code == 401
        with pytest.raises(TokenRejected, match="the next call may go in 300 s") as caught:
            await discord.get("/channels/2")
        assert caught.value.retry_after == pytest.approx(300, abs=1)
        rejected.clear()
        clock.advance(301)
        assert (await discord.get("/channels/1")).status_code == 200
        assert (await discord.get("/channels/2")).status_code == 200
    assert len(server.requests) == 4


# Follow-ups and webhooks


async def test_an_early_404_does_not_bury_a_follow_up(clock: ManualClock) -> None:
    answers = [httpx.Response(404, json={"code": 10015}), httpx.Response(200, json={})]
    async with bot_of(Seen(lambda request: answers.pop(0)), clock) as discord:
        assert (await discord.post(FOLLOW_UP, json={})).status_code == 404
        assert (await discord.post(FOLLOW_UP, json={})).status_code == 200


async def test_a_webhook_that_is_gone_is_tried_again_later(clock: ManualClock) -> None:
    answers = [httpx.Response(404, json={"code": 10015}), httpx.Response(200, json={})]
    async with bot_of(Seen(lambda request: answers.pop(0)), clock) as discord:
        assert (await discord.post(WEBHOOK, json={})).status_code == 404
        with pytest.raises(WebhookGone, match="in 300 s"):
            await discord.post(WEBHOOK, json={})
        clock.advance(301)
        assert (await discord.post(WEBHOOK, json={})).status_code == 200


# Where the token goes


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/channels/1/messages", f"Bot {TOKEN}"),
        ("/oauth2/token", None),
        ("/interactions/1/aW50ZXJhY3Rpb246MQ/callback", None),
        (FOLLOW_UP, None),
        (f"{FOLLOW_UP}/messages/@original", None),
    ],
)
async def test_the_token_is_sent_where_it_belongs(clock: ManualClock, path: str, sent: str | None) -> None:
    server = Seen()
    async with bot_of(server, clock) as discord:
        await discord.post(path, json={})
    assert server.authorizations == [sent]


async def test_a_header_of_the_call_itself_is_sent_as_it_is(clock: ManualClock) -> None:
    server = Seen()
    async with bot_of(server, clock) as discord:
        await discord.post("/oauth2/token", auth=("77", "secret"), data={"grant_type": "client_credentials"})
    (authorization,) = server.authorizations
    assert authorization is not None
    assert authorization.startswith("Basic ")


def refusing_after(asked: asyncio.Event) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    """A Discord that refuses the token, and gives its second opinion once this has happened."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/users/@me"):
            await asked.wait()
        return httpx.Response(401, json={})

    return answer


async def test_who_may_not_wait_does_not_wait_for_the_second_opinion(clock: ManualClock) -> None:
    asked = asyncio.Event()
    async with bot_of(refusing_after(asked), clock) as discord:
        first = asyncio.ensure_future(discord.get("/channels/1"))
        await passing(clock, asyncio.sleep(0.01))
        with pytest.raises(DiscordRateLimited):
            await passing(clock, discord.get("/channels/2", extensions={"deadline": 0.2}))
        asked.set()
        assert (await passing(clock, first)).status_code == 401


async def test_calls_that_wait_for_the_second_opinion_are_shown_with_cause_and_time(clock: ManualClock) -> None:
    asked = asyncio.Event()
    async with bot_of(refusing_after(asked), clock) as discord:
        calls = [asyncio.ensure_future(discord.get("/channels/1"))]
        await settled()
        calls += [asyncio.ensure_future(discord.get("/channels/2")) for _ in range(2)]
        await settled()
        clock.advance(4)
        shown = [(each.route, each.calls, each.cause, each.seconds) for each in discord.waiting]
        assert shown == [
            ("GET /channels/{channel_id} [channels/1]", 1, "token", 6.0),
            ("GET /channels/{channel_id} [channels/2]", 2, "token", 6.0),
        ]
        calls[1].cancel()
        await settled()
        assert sum(each.calls for each in discord.waiting) == 2
        with pytest.raises(DiscordRateLimited, match="whether it still accepts the token") as late:
            await passing(clock, discord.get("/channels/3", extensions={"deadline": 0.2}))
        assert late.value.cause == "token"
        assert late.value.retry_after == pytest.approx(6, abs=0.5)
        asked.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await settled()
        assert discord.waiting == []


async def test_the_second_opinion_carries_the_headers_of_the_call_and_none_of_its_body(clock: ManualClock) -> None:
    server = Seen(unauthorized("/channels/1"))
    async with bot_of(server, clock, headers={"X-Gate": "open"}) as discord:
        await discord.patch("/channels/1", json={"a": 1}, extensions={"reason": "spam"})
    opinion = server.requests[1]
    assert opinion.url.path.endswith("/users/@me")
    assert opinion.headers["X-Gate"] == "open"
    assert opinion.headers["Authorization"] == f"Bot {TOKEN}"
    assert not {"content-type", "content-length", "x-audit-log-reason"} & {*opinion.headers}


async def test_the_word_bearer_is_known_in_any_case(clock: ManualClock) -> None:
    server = Seen(unauthorized("/users/@me/guilds"))
    async with bot_of(server, clock) as discord:
        await discord.get("/users/@me/guilds", headers={"Authorization": "bearer x"})
    assert paths(server) == ["/users/@me/guilds", "/oauth2/@me"]
