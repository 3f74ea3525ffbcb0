"""Discord's own addresses are one server, and nobody else's words are believed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, DiscordTransport
from asgi_ratelimit.discord.origins import Origins
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import API, TOKEN, Seen, all_of, passing, taken
from tests.support.window_server import WindowServer

pytestmark = pytest.mark.anyio

HOSTS = [f"{branch}{host}" for host in ("discord.com", "discordapp.com") for branch in ("", "canary.", "ptb.", "www.")]
VIA = {"Via": "1.1 google"}
WEBHOOK = "https://{}/api/v10/webhooks/1/a-webhooks-token"


def plain(server: Any, clock: ManualClock, **options: Any) -> httpx.AsyncClient:
    """A usual client over the transport, with a token as it knows it."""
    transport = DiscordTransport(httpx.MockTransport(server), store=MemoryStore(clock=clock), **options)
    return httpx.AsyncClient(transport=transport, headers={"Authorization": f"Bot {TOKEN}"})


@pytest.mark.parametrize("host", HOSTS)
async def test_calls_to_every_address_of_discord_are_paced(clock: ManualClock, host: str) -> None:
    server = WindowServer(clock, 5, 2.0)
    async with plain(server, clock) as client:
        answers = await passing(clock, all_of(client.post(WEBHOOK.format(host), json={}) for _ in range(15)))
    assert {answer.status_code for answer in answers} == {200}
    assert server.refused == 0


async def test_and_all_of_them_are_paced_as_one(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 2.0)
    async with DiscordClient(TOKEN, transport=httpx.MockTransport(server), store=MemoryStore(clock=clock)) as discord:
        calls = [discord.post(WEBHOOK.format(HOSTS[number % 8]), json={}) for number in range(16)]
        await passing(clock, all_of(calls))
    assert server.refused == 0


async def test_the_token_goes_to_all_of_them_but_to_no_one_else(clock: ManualClock) -> None:
    server = Seen()
    strangers = [
        "http://discord.com",
        "https://discord.com:8443",
        "https://discord.com.example",
        "https://cdn.discordapp.com",
    ]
    async with DiscordClient(TOKEN, transport=httpx.MockTransport(server), store=MemoryStore(clock=clock)) as discord:
        for host in HOSTS:
            await discord.get(f"https://{host}/api/v10/channels/1")
        assert set(server.authorizations) == {f"Bot {TOKEN}"}
        server.requests.clear()
        for stranger in strangers:
            await discord.get(f"{stranger}/api/v10/channels/1")
    assert set(server.authorizations) == {None}


async def test_with_another_base_url_the_token_goes_there_only(clock: ManualClock) -> None:
    server = Seen()
    inner = httpx.MockTransport(server)
    async with DiscordClient(TOKEN, base_url=API, transport=inner, store=MemoryStore(clock=clock)) as discord:
        await discord.get("/channels/1")
        await discord.get("https://discord.com/api/v10/channels/1")
    assert server.authorizations == [f"Bot {TOKEN}", None]


# Strangers


@pytest.mark.parametrize("status", [429, 401, 403, 503])
async def test_nothing_that_a_strangers_server_says_is_believed(clock: ManualClock, status: int) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if request.url.host == "avatars.example":
            return httpx.Response(status, text="error code: 1015", headers={"Retry-After": "900000"})
        return httpx.Response(200, json={})

    seen = Seen(server)
    async with plain(seen, clock) as client:
        assert (await client.get("https://avatars.example/1.png")).status_code == status
        for number in range(3):
            assert (await client.get(f"https://discord.com/api/v10/channels/{number}")).status_code == 200
    assert len(seen.requests) == 4


async def test_nor_after_a_redirect(clock: ManualClock) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if request.url.host == "discord.com" and "avatar" in request.url.path:
            return httpx.Response(302, headers={"Location": "https://avatars.example/1.png"})
        if request.url.host == "avatars.example":
            return httpx.Response(429, headers={"Retry-After": "900000"})
        return httpx.Response(200, json={})

    inner = httpx.MockTransport(server)
    async with DiscordClient(TOKEN, transport=inner, store=MemoryStore(clock=clock), follow_redirects=True) as discord:
        assert (await discord.get("/users/1/avatar")).status_code == 429
        assert (await discord.get("/users/1")).status_code == 200


async def test_addresses_that_a_user_names_are_paced_as_well(clock: ManualClock) -> None:
    server = WindowServer(clock, 5, 2.0)
    async with plain(server, clock, origins=["http://127.0.0.1:8080/some/path"]) as client:
        url = "http://127.0.0.1:8080/api/v10/webhooks/1/a-webhooks-token"
        await passing(clock, all_of(client.post(url, json={}) for _ in range(15)))
    assert server.refused == 0


@pytest.mark.parametrize("origins", ["http://127.0.0.1", ["127.0.0.1:8080"], ["ftp://a"], [5], ["http://[::"]])
def test_bad_origins_are_refused(origins: Any) -> None:
    with pytest.raises(ValueError, match="origins must be"):
        Origins(origins)


# Bans


async def test_a_ban_of_days_is_not_believed_without_a_probe(clock: ManualClock) -> None:
    banned = True

    def server(request: httpx.Request) -> httpx.Response:
        if banned:
            return httpx.Response(429, text="error code: 1015", headers={"Retry-After": "900000"})
        return httpx.Response(200, json={})

    seen = Seen(server)
    async with plain(seen, clock) as client:
        calls = [asyncio.ensure_future(client.get(f"https://discord.com/api/v10/channels/{n}")) for n in range(50)]
        await passing(clock, asyncio.sleep(0.01))
        drawn = len(seen.requests)
        await passing(clock, asyncio.gather(*(asyncio.sleep(0) for _ in range(3))))
        for _ in range(3):
            clock.advance(3601)
            await passing(clock, asyncio.sleep(0.01))
        assert len(seen.requests) - drawn <= 3, "one probe in an hour, the others wait for it"
        banned = False
        assert await taken(clock, all_of(calls), step=60) <= 3700


# Old versions


@pytest.mark.parametrize("path", ["/api/webhooks/1/a-webhooks-token", "/api/v6/webhooks/1/a-webhooks-token"])
async def test_a_webhooks_address_without_a_version_counts_in_milliseconds(clock: ManualClock, path: str) -> None:
    """As Discord's own dialog copies it."""
    left = {"Retry-After": "376", "X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0"}
    answers = [
        httpx.Response(429, json={"retry_after": 376, "global": False}, headers=VIA | left | reset)
        for reset in ({"X-RateLimit-Reset-After": "0.376"}, {})
    ]

    def server(request: httpx.Request) -> httpx.Response:
        return answers.pop(0) if answers else httpx.Response(204)

    seen = Seen(server)
    async with httpx.AsyncClient(
        transport=DiscordTransport(httpx.MockTransport(seen), store=MemoryStore(clock=clock))
    ) as client:
        seconds = await taken(clock, client.post(f"https://discord.com{path}", json={}))
    assert 0.75 <= seconds <= 1.0
    assert len(seen.requests) == 3
