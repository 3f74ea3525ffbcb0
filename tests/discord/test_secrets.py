"""Tokens of bots, webhooks and interactions stand nowhere in the clear: in no key, log, repr, error or event."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, DiscordError, DiscordEvent, DiscordTransport
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import API, TOKEN, WEBHOOK, bot, bot_of, passing, permits_in, rid_of, settled

pytestmark = pytest.mark.anyio

INTERACTION = "aW50ZXJhY3Rpb246MTIzNDU2Nzg5MDEyMzQ1Njc4OTpSYW5kb20tdG9rZW4tb2YtYW4taW50ZXJhY3Rpb24"
SHORT = "abc123"
WEBHOOK_TOKEN = WEBHOOK.rpartition("/")[2]
SECRETS = (TOKEN, INTERACTION, SHORT, WEBHOOK_TOKEN)
CALLBACK = f"/interactions/1234567890123456789/{INTERACTION}/callback"
PATHS = [
    WEBHOOK, f"{WEBHOOK}/messages/1?wait=true", CALLBACK, f"/webhooks/77/{SHORT}", f"/webhooks/77/{INTERACTION}",
    f"/webhooks/77/{INTERACTION}/messages/@original",
]  # fmt: skip


def secret_free(text: object) -> bool:
    text = str(text)
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"{found} in {text}"
    return True


def shown(error: BaseException) -> str:
    """All that a log of the error would print."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(getattr(error, "__dict__", ""))


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    """All that everybody logs, at DEBUG."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.name} {self.format(record)} {record.msg!r} {record.args!r}")

    root, kept = logging.getLogger(), Kept()
    kept.setFormatter(logging.Formatter("%(message)s"))
    before = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    yield lambda: "\n".join(lines)
    root.removeHandler(kept)
    root.setLevel(before)


@asynccontextmanager
async def server(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(once, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everybody on to an address with a token in it, as Discord never would."""
    while (await reader.readline()).strip():
        pass
    head = f"HTTP/1.1 404 Not Found\r\nLocation: {API}{WEBHOOK}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    writer.write(head.encode())
    await writer.drain()


async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    while data := await reader.read(65_536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "404"), ("location", f"{API}{WEBHOOK}")])
                connection.send_data(event.stream_id, b"{}", end_stream=True)
        writer.write(connection.data_to_send())
        await writer.drain()


@pytest.mark.parametrize("version", [1, 2])
async def test_in_no_log_at_any_level_over_a_real_connection(logged: Callable[[], str], version: int) -> None:
    options: dict[str, Any] = {"http1": False, "http2": True} if version == 2 else {}
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(server(http2 if version == 2 else http1))
        discord = DiscordClient(TOKEN, base_url=f"{address}/api/v10", trust_env=False, **options)
        await stack.enter_async_context(discord)
        for path in PATHS:
            await discord.get(path, headers={"X-Own": "x"})
    text = logged()
    assert secret_free(text)
    assert "HTTP Request: GET" in text
    assert "httpcore" in text
    assert (version == 2) == ("hpack" in text)
    assert "/webhooks/" in text, "but for the token, all of it"


async def test_in_no_log_line_of_the_plainest_client(logged: Callable[[], str], clock: ManualClock) -> None:
    transport = DiscordTransport(
        httpx.ASGITransport(app=FakeDiscord(clock=clock)), store=MemoryStore(clock=clock), origins=[API]
    )
    async with httpx.AsyncClient(transport=transport, base_url=API) as client:
        for path in PATHS:
            await client.post(path, json={}, headers={"Authorization": f"Bot {TOKEN}"})
    assert secret_free(logged())
    assert logged().count("httpx HTTP Request: POST") == len(PATHS)


async def test_in_no_key_of_the_store_and_no_repr(clock: ManualClock) -> None:
    store, fake = MemoryStore(clock=clock), FakeDiscord(clock=clock)
    async with bot(fake, store=store, application_id=77) as discord:
        for path in PATHS:
            await discord.post(path, json={})
        fake.refuse(None, 5.0)
        waiting = [asyncio.create_task(discord.post(path, json={})) for path in PATHS]
        await settled()
        pacing = discord._pacing
        engine = pacing._engines.current()
        for owner in engine.tokens._tokens.values():
            assert secret_free([owner, owner.scheduler._queues, owner.scheduler._pauses])
        assert secret_free([discord, pacing, discord.waiting, engine.sender, list(engine.tokens._tokens)])
        for name, permits in permits_in(store).items():
            assert secret_free([name, permits._buckets, permits._names, permits._locked, permits._held])
        await rid_of(*waiting)


async def test_in_no_event(clock: ManualClock) -> None:
    events: list[DiscordEvent] = []
    fake = FakeDiscord(clock=clock, token=TOKEN)
    async with bot(fake, on_event=events.append, max_retries=2) as discord:
        for path in (WEBHOOK, f"/webhooks/77/{INTERACTION}", f"/webhooks/88/{SHORT}"):
            fake.fail(503)
            fake.refuse(None, 0.5)
            await passing(clock, discord.post(path, json={}))
        fake.refuse(None, 0.5, scope="global")
        await passing(clock, discord.post(WEBHOOK, json={}))
        fake.ban(1)
        await passing(clock, discord.post(WEBHOOK, json={}))
        fake.kill_webhook(WEBHOOK.split("/")[2])
        await passing(clock, discord.post(WEBHOOK, json={}))
        fake.token = "other"
        await passing(clock, discord.get("/users/@me"))
    assert {event.kind for event in events} == {"limited", "wait", "retry", "stopped", "banned", "webhook", "token"}
    assert all(secret_free([event, astuple(event)]) for event in events)


async def test_in_no_error_of_a_call_that_is_not_made(clock: ManualClock, logged: Callable[[], str]) -> None:
    fake, errors = FakeDiscord(clock=clock), list[object]()
    async with bot(fake, max_wait=1) as discord:
        for path in PATHS:
            fake.refuse(None, 5.0)
            errors += await asyncio.gather(discord.post(path, json={}), return_exceptions=True)
        fake.kill_webhook(WEBHOOK.split("/")[2])
        clock.advance(10)
        for _ in range(2):
            errors += await asyncio.gather(discord.post(WEBHOOK, json={}), return_exceptions=True)
    refused = [error for error in errors if isinstance(error, DiscordError)]
    assert len(refused) == len(PATHS) + 1
    assert all(secret_free([shown(error), error.route, repr(error.route)]) for error in refused)
    assert secret_free(logged())


FAILURES = [
    httpx.ConnectError("no"), httpx.ReadTimeout("no"), httpx.RemoteProtocolError("no"), ConnectionResetError("no"),
    httpx.LocalProtocolError(f"Illegal header value b'Bot {TOKEN}\\n'"),
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("path", PATHS)
async def test_in_no_error_of_a_call_that_fails(clock: ManualClock, path: str, failure: Exception) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise failure

    async with bot_of(fail, clock, max_retries=1) as discord:
        with pytest.raises(type(failure)) as error:
            await passing(clock, discord.post(path, json={}))
    assert secret_free(repr(error.value) + str(error.value))
    request = getattr(error.value, "_request", None)
    assert secret_free([repr(request), repr(request and request.headers)])


@pytest.mark.parametrize("status", [302, 400, 404, 503])
async def test_in_no_error_about_a_status(clock: ManualClock, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"Location": str(request.url)})

    inner = httpx.MockTransport(answer)
    transport = DiscordTransport(inner, store=MemoryStore(clock=clock), max_retries=0, origins=[API])
    plain = httpx.AsyncClient(transport=transport, base_url=API)
    async with bot_of(answer, clock, max_retries=0) as discord, plain:
        for client in (discord, plain):
            response = await client.get(WEBHOOK)
            with pytest.raises(httpx.HTTPStatusError, match=f"'{status} ") as error:
                response.raise_for_status()
            assert secret_free([shown(error.value), repr(error.value.request), repr(response)])


async def test_in_no_error_about_content_that_is_no_json() -> None:
    async with DiscordClient(TOKEN) as discord:
        for path in PATHS:
            with pytest.raises(TypeError) as error:
                await discord.post(path, json={1, 2})
            assert secret_free(str(error.value))


async def test_in_no_request_on_its_way_round(clock: ManualClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/b"):
            return httpx.Response(200)
        return httpx.Response(302, headers={"Location": f"{API}{WEBHOOK}/b"})

    async with bot_of(answer, clock, follow_redirects=True) as discord:
        response = await discord.get("/users/@me")
    assert secret_free([repr(response.request), [repr(former.request) for former in response.history]])
    assert "authorization" not in response.request.headers, "the token is put on what is sent, and on nothing else"


async def test_in_no_error_about_a_request_that_the_user_made_which_keeps_its_class(clock: ManualClock) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    request = httpx.Request("POST", f"{API}{WEBHOOK}")
    async with bot_of(fail, clock, max_retries=0) as discord:
        with pytest.raises(httpx.ConnectError) as error:
            await discord.send(request)
    assert secret_free(repr(error.value.request))
    assert type(request) is httpx.Request


async def test_in_no_error_about_redirects_without_end(clock: ManualClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": f"{API}{WEBHOOK}"})

    async with bot_of(answer, clock, follow_redirects=True) as discord:
        with pytest.raises(httpx.TooManyRedirects) as error:
            await discord.get("/users/@me")
    assert secret_free([error.value, repr(error.value.request)])
