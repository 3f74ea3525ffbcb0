"""Proxies, TLS, HTTP/2, limits, mounts: the connection options of a DiscordClient reach its inner transport."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import API, TOKEN, Seen, all_of, passing
from tests.support.fake_discord import MESSAGES, SEND

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that answers by itself: its address, and the first line of each request."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        while (await reader.readline()).strip():
            pass
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", lines


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


UNREACHABLE = "http://discord.invalid/api/v10"


@pytest.mark.usefixtures("no_proxies")
async def test_a_proxy_is_used() -> None:
    async with proxy() as (address, lines), DiscordClient(TOKEN, base_url=UNREACHABLE, proxy=address) as discord:
        assert (await discord.get("/users/@me")).json() == {}
    assert lines == [b"GET http://discord.invalid/api/v10/users/@me HTTP/1.1\r\n"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_so_is_that_of_the_environment(no_proxies: pytest.MonkeyPatch, name: str) -> None:
    async with proxy() as (address, lines):
        no_proxies.setenv(name, address.removeprefix("http://") if name == "http_proxy" else address)
        async with DiscordClient(TOKEN, base_url=UNREACHABLE) as discord:
            await discord.get("/users/@me")
    assert len(lines) == 1


@pytest.mark.parametrize(("variable", "options"), [("discord.invalid", {}), ("", {"trust_env": False})])
async def test_but_not_where_it_is_switched_off(
    no_proxies: pytest.MonkeyPatch, variable: str, options: dict[str, Any]
) -> None:
    async with proxy() as (address, lines):
        no_proxies.setenv("HTTP_PROXY", address)
        no_proxies.setenv("NO_PROXY", variable)
        async with DiscordClient(TOKEN, base_url=UNREACHABLE, max_retries=0, **options) as discord:
            with pytest.raises(httpx.ConnectError):
                await discord.get("/users/@me")
    assert lines == []


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each transport of httpx's own that is made."""
    found: list[dict[str, Any]] = []

    class Transport(httpx.AsyncHTTPTransport):
        def __init__(self, **options: Any) -> None:
            found.append(options)
            super().__init__(**options)

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Transport)
    return found


CONTEXT = ssl.create_default_context()


@pytest.mark.usefixtures("no_proxies")
def test_options_of_httpxs_own_transport_arrive_there(given: list[dict[str, Any]]) -> None:
    limits, proxy = httpx.Limits(max_connections=3), "http://127.0.0.1:9"
    discord = DiscordClient(TOKEN, verify=CONTEXT, limits=limits, http1=False, http2=True, proxy=proxy)
    options: dict[str, Any] = {"http1": False, "http2": True, "trust_env": True, "proxy": proxy}
    assert given == [{"verify": CONTEXT, "limits": limits, **options}]
    pool = discord._pacing._inner._next()._pool  # type: ignore[attr-defined]
    assert (pool._max_connections, pool._http2, pool._ssl_context) == (3, True, CONTEXT)


@pytest.mark.usefixtures("no_proxies")
async def test_and_at_each_pool_of_connections(given: list[dict[str, Any]]) -> None:
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=9)
    of_one = httpx.Limits(max_connections=4, max_keepalive_connections=1, keepalive_expiry=9)
    async with proxy() as (address, _):
        options: dict[str, Any] = {"verify": CONTEXT, "proxy": address, "trust_env": False}
        async with DiscordClient(TOKEN, base_url=UNREACHABLE, limits=limits, **options) as discord:
            await all_of([discord.get(f"/channels/{n}") for n in range(8)])
    assert given == [{**options, "limits": of_one}] * 2


@pytest.mark.parametrize("limits", [100, "100", httpx.Limits(max_connections=0)])
def test_limits_that_make_no_sense_are_refused(limits: Any) -> None:
    with pytest.raises(ValueError, match=r"limits must be httpx's, e\.g\. httpx\.Limits\(max_connections=50\)"):
        DiscordClient(TOKEN, limits=limits)


@pytest.mark.parametrize("options", [{"verify": False}, {"http2": True}, {"proxy": "http://x"}])
def test_options_that_a_transport_of_ones_own_would_swallow_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: options of httpx's own transport"):
        DiscordClient(TOKEN, transport=httpx.MockTransport(Seen()), **options)


async def test_mounted_transports_are_paced_too_and_closed_with_the_client(clock: ManualClock) -> None:
    class Mounted(httpx.ASGITransport):
        is_closed = False

        async def aclose(self) -> None:
            self.is_closed = True

    fake, usual = FakeDiscord({MESSAGES: "2/2s"}, clock=clock), Seen()
    mounted = Mounted(app=fake)
    mounts = {"all://": mounted, "all://elsewhere": None}
    options: dict[str, Any] = {"mounts": mounts, "transport": httpx.MockTransport(usual)}
    async with DiscordClient(TOKEN, base_url=API, store=MemoryStore(clock=clock), **options) as discord:
        await passing(clock, all_of([discord.post(SEND, json={}) for _ in range(6)]))
        await discord.get("http://elsewhere/x")
    assert (len(fake.messages), len(fake.refused)) == (6, 0)
    assert {seen.headers["authorization"] for seen in fake.requests} == {f"Bot {TOKEN}"}
    assert usual.authorizations == [None]
    assert mounted.is_closed


async def test_the_inner_transport_is_opened_and_closed_with_the_client() -> None:
    steps: list[str] = []

    class Inner(httpx.MockTransport):
        async def __aenter__(self) -> Inner:
            steps.append("open")
            return self

        async def __aexit__(self, *error: object) -> None:
            steps.append("exit")

        async def aclose(self) -> None:
            steps.append("close")

    async with DiscordClient(TOKEN, transport=Inner(Seen())):
        pass
    await DiscordClient(TOKEN, transport=Inner(Seen())).aclose()
    assert steps == ["open", "exit", "close"]
