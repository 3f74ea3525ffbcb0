"""DiscordTransport under any httpx.AsyncClient: bodies of every kind, several tokens, clients and event loops."""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordRateLimited, DiscordTransport, TokenRejected
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import (
    API,
    all_of,
    bot,
    bot_of,
    calls_in_flight,
    held,
    passing,
    permits_in,
    rid_of,
    settled,
    taken,
)
from tests.support.fake_discord import MESSAGES, SEND

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake(clock: ManualClock) -> FakeDiscord:
    return FakeDiscord(clock=clock)


def plain(fake: FakeDiscord, store: MemoryStore, **options: Any) -> httpx.AsyncClient:
    """A usual client, for several tokens."""
    transport = DiscordTransport(httpx.ASGITransport(app=fake), store=store, origins=[API], **options)
    return httpx.AsyncClient(transport=transport, base_url=API)


class Pipe(io.RawIOBase):
    """A file that can be read once, and has no place to go back to."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        size = len(self.content) if size < 0 else size
        taken, self.content = self.content[:size], self.content[size:]
        return taken


async def pieces() -> AsyncIterator[bytes]:
    for piece in (b'{"content"', b": ", b'"streamed"}'):
        yield piece


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        lambda: {"json": {"content": "x"}},
        lambda: {"content": b'{"content": "x"}', "headers": JSON},
        lambda: {"content": pieces(), "headers": JSON},
        lambda: {"data": {"payload_json": '{"content": "x"}'}, "files": {"files[0]": ("a", b"abc")}},
        lambda: {"data": {"payload_json": '{"content": "x"}'}, "files": {"files[0]": ("a", io.BytesIO(b"abc"))}},
        lambda: {"data": {"payload_json": '{"content": "x"}'}, "files": {"files[0]": ("a", Pipe(b"abc"))}},
        lambda: {"data": {"content": "x"}},
    ],
    ids=["json", "bytes", "generator", "bytes in a form", "file", "pipe", "form"],
)
@pytest.mark.parametrize("trouble", ["refused", "failed", "dropped"])
async def test_a_body_of_any_kind_is_sent_again_as_it_was(
    fake: FakeDiscord, clock: ManualClock, body: Any, trouble: str
) -> None:
    if trouble == "refused":
        fake.refuse("POST /channels/{channel_id}/threads", 1.0)
    else:
        (fake.fail if trouble == "failed" else fake.drop)()
    async with bot(fake, retry_unsafe=True) as discord:
        assert (await passing(clock, discord.post("/channels/1/threads", **body()))).is_success
    first, second = fake.requests
    assert first.body == second.body != b""
    assert second.headers["content-length"] == str(len(second.body))
    assert "transfer-encoding" not in second.headers


# Several tokens, clients, loops


async def test_each_token_of_a_plain_client_has_buckets_of_its_own(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "1/10s"}, clock=clock)
    tokens: list[dict[str, str]] = [{"Authorization": f"Bot {name}"} for name in ("one", "two", "three")]
    async with plain(fake, store) as client:
        first = [await client.post(SEND, json={}, headers=token) for token in tokens]
        assert await taken(clock, client.post(SEND, json={}, headers=tokens[0])) == pytest.approx(10, abs=0.02)
        fake.token = "one"
        assert (await client.get("/users/@me", headers=tokens[1])).status_code == 401
        with pytest.raises(TokenRejected):
            await client.get("/users/@me", headers=tokens[1])
        assert (await client.get("/users/@me", headers=tokens[0])).status_code == 200
    assert [answer.status_code for answer in first] == [200] * 3
    assert not fake.refused


async def test_without_a_token_calls_belong_to_the_address(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord(clock=clock, global_limit=5)
    async with plain(fake, store, global_limit=5) as client:
        answers = await passing(clock, all_of(client.post(f"/webhooks/{n}/token", json={}) for n in range(12)))
    assert {answer.status_code for answer in answers} == {204}
    assert not fake.refused
    assert all("authorization" not in seen.headers for seen in fake.requests)


async def test_two_clients_of_one_token_on_one_store_share_its_limits(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "2/2s"}, clock=clock, global_limit=10)
    async with bot(fake, store=store, global_limit=10) as one, bot(fake, store=store, global_limit=10) as two:
        calls = [client.post(SEND, json={}) for client in (one, two) for _ in range(5)]
        others = [client.get(f"/channels/{n}") for client in (one, two) for n in range(15)]
        await passing(clock, all_of([*calls, *others]))
    assert not fake.refused
    assert len(fake.messages) == 10


def test_one_store_serves_event_loops_one_after_the_other(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "1/10s"}, clock=clock)
    both = bot(fake, store=store)

    async def once(client: httpx.AsyncClient) -> float:
        return await taken(clock, client.post(SEND, json={}))

    async def closed(client: httpx.AsyncClient) -> float:
        async with client:
            return await once(client)

    assert asyncio.run(once(both)) == 0
    assert asyncio.run(once(both)) == pytest.approx(10, abs=0.02), "the same client"
    assert asyncio.run(closed(bot(fake, store=store))) == pytest.approx(10, abs=0.02), "another one"

    async def left_behind() -> None:
        """A loop that ends while somebody waits."""
        waiting = asyncio.create_task(both.post(SEND, json={}))
        await settled()
        assert not waiting.done()

    asyncio.run(left_behind())
    clock.advance(300)
    assert asyncio.run(once(both)) == 0
    assert both.waiting == []
    asyncio.run(both.aclose())


def test_expired_records_are_swept_on_a_second_loop_too(
    fake: FakeDiscord, clock: ManualClock, store: MemoryStore
) -> None:
    discord = bot(fake, store=store)

    async def get(channel: int) -> None:
        await discord.get(f"/channels/{channel}")

    async def get_and_idle() -> None:
        await get(2)
        for _ in range(6):
            clock.advance(30)
            await settled()
        assert not any(permits._buckets for permits in permits_in(store).values())

    asyncio.run(get(1))
    clock.advance(30)  # that loop is closed, and its timer lost
    asyncio.run(get_and_idle())
    asyncio.run(discord.aclose())


# Responses


@pytest.mark.parametrize("read", [True, False])
async def test_a_response_that_is_never_read_holds_nothing(clock: ManualClock, store: MemoryStore, read: bool) -> None:
    fake = FakeDiscord({MESSAGES: "100/s"}, clock=clock)
    async with bot(fake, store=store) as discord:
        for _ in range(10):
            request = discord.build_request("POST", SEND, json={})
            response = await discord.send(request, stream=True)
            if read:
                assert (await response.aread()).startswith(b"{")
            del response
        gc.collect()
        assert calls_in_flight(store) == 0
        clock.advance(1.01)
        assert held(store) == 0


async def test_a_streamed_response_arrives_piece_by_piece(clock: ManualClock) -> None:
    arrived = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await arrived.wait()
        yield b"second"

    discord, got = bot_of(lambda request: httpx.Response(200, content=slow()), clock), []
    async with discord, asyncio.timeout(5), discord.stream("GET", "/channels/1/messages") as response:
        async for chunk in response.aiter_bytes():
            got.append(chunk)
            arrived.set()
    assert got == [b"first", b"second"]


class Body(httpx.AsyncByteStream):
    """A body that knows whether it was closed, and may fail."""

    def __init__(self, content: bytes = b"{}", error: Exception | None = None) -> None:
        self.content, self.error, self.is_closed = content, error, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("status", [429, 503])
async def test_the_body_of_an_answer_that_is_not_passed_on_is_closed(clock: ManualClock, status: int) -> None:
    first = Body(b'{"retry_after": 1, "global": false}')
    bodies: Iterator[tuple[int, Body]] = iter([(status, first), (200, Body())])

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = next(bodies)
        return httpx.Response(status, stream=body)

    async with bot_of(answer, clock) as discord:
        assert (await passing(clock, discord.get("/users/@me"))).status_code == 200
    assert first.is_closed


@pytest.mark.parametrize("status", [429, 404])
async def test_an_answer_that_breaks_off_is_a_lost_one(clock: ManualClock, status: int) -> None:
    broken = Body(b"{", httpx.ReadError("broken off"))
    bodies = iter([(status, broken), (200, Body())])

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = next(bodies)
        return httpx.Response(status, stream=body)

    async with bot_of(answer, clock) as discord:
        assert (await passing(clock, discord.get("/webhooks/1/token"))).status_code == 200
        assert calls_in_flight(discord._pacing._store) == 0  # type: ignore[arg-type]
    assert broken.is_closed


async def test_a_compressed_refusal_is_read_and_can_be_read_again(clock: ManualClock) -> None:
    import gzip

    packed = gzip.compress(b'{"retry_after": 2.5, "global": false}')

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, content=packed, headers={"Content-Encoding": "gzip", "Via": "1.1 google"})

    async with bot_of(answer, clock, max_retries=0) as discord:
        assert (await discord.get("/users/@me")).json()["retry_after"] == 2.5
        with pytest.raises(DiscordRateLimited):
            await discord.get("/users/@me", extensions={"deadline": 2})


# Options and extensions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": "x"}, "inner must be an httpx transport.*'x'"),
        ({"inner": httpx.HTTPTransport}, "inner must be an httpx transport"),
        ({"store": "redis://"}, "store must be a store such as MemoryStore.., not 'redis://'"),
        ({"store": MemoryStore}, "store must be a store such as MemoryStore"),
        *(({"global_limit": value}, "global_limit must be .* 50") for value in (0, -1, True, 1.5, "50", None)),
        *(({"max_wait": value}, "max_wait must be .*=60") for value in (-1, True, "5", float("nan"), float("inf"))),
        *(({"max_retries": value}, "max_retries must be .*=5") for value in (-1, True, 1.5, None, "3")),
        ({"retry_unsafe": "no"}, "retry_unsafe must be True or False, not 'no'"),
        *(({"application_id": value}, 'application_id .* "1234567890"') for value in ("x", True, -1, 1.5, "٣", "")),
        *(({"egress": value}, 'egress must .* "default"') for value in ("", None, 5)),
        ({"on_event": "print"}, "on_event must be a plain function .* not 'print'"),
        ({"on_event": asyncio.sleep}, "on_event must be a plain function"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_with_a_right_one(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscordTransport(**options)


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        *(({"deadline": value}, '"deadline".* 2.5, not ') for value in (0, -1, "3", True, float("nan"), float("inf"))),
        *(({"priority": value}, '"priority".* 10, not ') for value in ("high", 1.5, True, None)),
        *(({"reason": value}, '"reason".* 512 characters, not ') for value in (5, b"x", "x" * 513)),
    ],
)
async def test_so_is_an_extension(fake: FakeDiscord, extensions: dict[str, Any], message: str) -> None:
    async with bot(fake) as discord:
        with pytest.raises(ValueError, match=message):
            await discord.get("/users/@me", extensions=extensions)
    assert fake.count() == 0


@pytest.mark.parametrize(
    ("reason", "header"),
    [("spam", "spam"), ("naïve / öd\n", "na%C3%AFve / %C3%B6d%0A"), ("\ud800", "%3F"), ("a" * 512, "a" * 512)],
)
async def test_the_audit_logs_reason_may_be_any_text(fake: FakeDiscord, reason: str, header: str) -> None:
    async with bot(fake) as discord:
        await discord.delete("/channels/1", extensions={"reason": reason})
    assert fake.requests[0].headers["x-audit-log-reason"] == header


async def test_the_age_of_a_message_is_taken_by_the_stores_clock(clock: ManualClock) -> None:
    fresh = (round(clock.wall() * 1000) - 1_420_070_400_000) << 22
    fake = FakeDiscord({"DELETE /channels/{channel_id}/messages/{message_id}": "1/10s"}, clock=clock)
    async with bot(fake) as discord:
        await discord.delete(f"/channels/1/messages/{fresh}")
        waiting = asyncio.create_task(discord.delete(f"/channels/1/messages/{fresh + 1}"))
        await settled()
        assert "younger than 10 s" in discord.waiting[0].route
        await rid_of(waiting)


# The end


async def test_a_closed_transport_is_an_error_also_for_waiting_calls(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "1/100s"}, clock=clock)
    transport = DiscordTransport(httpx.ASGITransport(app=fake), store=store, origins=[API])
    client = httpx.AsyncClient(transport=transport, base_url=API, headers={"Authorization": "Bot x"})
    await client.post(SEND, json={})
    waiting = [asyncio.create_task(client.post(SEND, json={})) for _ in range(3)]
    fake.fail(503, times=10)
    waiting.append(asyncio.create_task(client.get("/users/@me")))  # before its next attempt
    await settled()
    assert transport.waiting[0].calls == 3
    await transport.aclose()
    await settled()
    assert [str(task.exception()) for task in waiting] == ["Cannot send a request, as the client has been closed."] * 4
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("/users/@me")
    await client.aclose()
    assert calls_in_flight(store) == 0


async def test_closing_ends_the_wait_for_the_end_of_a_ban(fake: FakeDiscord, store: MemoryStore) -> None:
    async with bot(fake, store=store) as discord:
        fake.ban(3600)
        waiting = [asyncio.create_task(discord.get("/users/@me")) for _ in range(3)]
        await settled()
    await settled()
    assert [type(task.exception()) for task in waiting] == [RuntimeError] * 3
