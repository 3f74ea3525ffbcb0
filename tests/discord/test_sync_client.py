"""SyncDiscordClient: an httpx.Client for threads, against a server that knows nothing of this package."""

from __future__ import annotations

import gc
import inspect
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, DiscordRateLimited, SyncDiscordClient
from asgi_ratelimit.sync import loop_thread
from tests.support.clients import TOKEN
from tests.support.pacing_server import PacingServer
from tests.support.servers import wait_until
from tests.support.threads import PATIENCE, started

SEND = "/channels/1/messages"


@pytest.fixture
def discord() -> Iterator[PacingServer]:
    with PacingServer(limit=5, period=0.5) as discord:
        yield discord


def client_of(discord: PacingServer, **options: Any) -> SyncDiscordClient:
    return SyncDiscordClient(TOKEN, base_url=discord.url, trust_env=False, **options)


def mocked(server: Any, **options: Any) -> SyncDiscordClient:
    return SyncDiscordClient(TOKEN, transport=httpx.MockTransport(server), **options)


def send(client: SyncDiscordClient, content: str) -> int:
    return client.post(SEND, json={"content": content}).status_code


# Threads


def test_eight_threads_draw_no_429_and_send_nothing_twice(discord: PacingServer) -> None:
    with client_of(discord) as client, ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda number: send(client, f"{number}"), range(32)))
    assert Counter(sent) == Counter(discord.statuses) == {200: 32}
    assert sorted(discord.created, key=int) == [f"{number}" for number in range(32)]


def test_what_waits_is_shown_meanwhile(discord: PacingServer) -> None:
    discord.hold()
    with client_of(discord) as client:
        assert client.waiting == []
        calls = [started(send, client, f"{number}") for number in range(3)]
        wait_until(lambda: [each.calls for each in client.waiting] == [2], "two of them wait for the first")
        discord.go_on()
        assert [call.result(PATIENCE) for call in calls] == [200] * 3


def test_a_call_that_would_wait_too_long_is_refused_at_once(discord: PacingServer) -> None:
    with PacingServer(limit=1, period=60) as slow, client_of(slow, max_wait=5) as client:
        assert send(client, "a") == 200
        with pytest.raises(DiscordRateLimited) as refused:
            send(client, "b")
        assert 0 < refused.value.retry_after <= 61
        with pytest.raises(DiscordRateLimited):
            client.post(SEND, json={}, extensions={"deadline": 2.5})
        assert slow.statuses == [200]


def test_the_options_are_those_of_the_client_with_await() -> None:
    def options(client: type) -> dict[str, Any]:
        return {name: each.default for name, each in inspect.signature(client).parameters.items()}

    assert options(SyncDiscordClient) == options(DiscordClient)


# httpx


def test_it_is_an_httpx_client_for_a_bot(discord: PacingServer) -> None:
    hooked: list[str] = []
    hooks = {"request": [lambda request: hooked.append(request.method)]}
    with client_of(discord, event_hooks=hooks) as client:
        response = client.post(SEND, files={"file": ("a.txt", b"content")}, data={"content": "a"})
        assert response.json() == {"id": "1"}
        assert response.elapsed.total_seconds() > 0
        assert client.post(SEND, content=(piece for piece in [b"{", b"}"])).status_code == 200
        assert client.headers["User-Agent"].startswith("DiscordBot")
    assert hooked == ["POST"] * 2
    assert discord.bodies[1].startswith(b"{")


def test_a_streamed_response_arrives_piece_by_piece() -> None:
    may_go_on = threading.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        wait_until(may_go_on.is_set, "the first piece has arrived")
        yield b"second"

    got = []
    with mocked(lambda request: httpx.Response(200, content=pieces())) as client:
        with client.stream("GET", SEND) as response:
            for piece in response.iter_bytes():
                got.append(piece)
                may_go_on.set()
        assert got == [b"first", b"second"]
        with client.stream("GET", SEND) as response:
            pass  # it is never read
        assert client.get(SEND).content == b"firstsecond"


def test_a_large_response_is_the_same_as_a_small_one(discord: PacingServer) -> None:
    with client_of(discord) as client:
        for size in (0, 1, 65_536, 65_537, 1_000_000):
            discord.body = b"a" * size
            assert client.get(f"/channels/{size}").content == discord.body


def test_a_timeout_of_httpx_ends_a_call(discord: PacingServer) -> None:
    discord.hold()
    with client_of(discord, max_retries=0) as client:
        with pytest.raises(httpx.ReadTimeout) as late:
            client.get("/webhooks/1/a-secret-token", timeout=0.05)
        assert "a-secret-token" not in repr(late.value.request)
        discord.go_on()
        assert client.get(SEND).status_code == 200


def test_a_body_that_is_lost_says_so_and_shows_no_token() -> None:
    async def lost() -> AsyncIterator[bytes]:
        yield b"some"
        raise httpx.ReadError("lost at /webhooks/1/a-secret-token")

    client = mocked(lambda request: httpx.Response(200, content=lost()))
    with client, pytest.raises(httpx.ReadError, match="the answer has come, 200, and the connection was lost") as error:
        client.get(SEND)
    assert "a-secret-token" not in str(error.value)


def test_json_that_cannot_be_written_is_a_type_error_that_says_so() -> None:
    with mocked(lambda request: httpx.Response(200)) as client, pytest.raises(TypeError, match="json="):
        client.post(SEND, json={"a": {1, 2}})


def test_transports_of_the_users_are_asynchronous_ones() -> None:
    with pytest.raises(ValueError, match="AsyncHTTPTransport"):
        SyncDiscordClient(TOKEN, transport=httpx.HTTPTransport())  # type: ignore[arg-type]


def test_a_mounted_transport_is_paced_like_the_rest(discord: PacingServer) -> None:
    mounts = {discord.url: httpx.AsyncHTTPTransport()}
    with client_of(discord, mounts=mounts) as client, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: send(client, f"{number}"), range(12))) == {200}
    assert set(discord.statuses) == {200}


# The end


def test_close_ends_the_calls_of_all_threads(discord: PacingServer) -> None:
    discord.hold()
    client = client_of(discord)
    calls = [started(send, client, f"{number}") for number in range(8)]
    discord.until_received(1)
    before = time.monotonic()
    client.close()
    for call in calls:
        with pytest.raises(RuntimeError, match="closed"):
            call.result(PATIENCE)
    assert time.monotonic() - before < 3
    with pytest.raises(RuntimeError, match="closed"):
        send(client, "later")
    client.close()


def test_close_ends_a_stream_and_starts_no_loop(discord: PacingServer) -> None:
    client = client_of(discord)
    client.close()
    assert client._sync._loop_thread is None
    client = client_of(discord)
    discord.body = b"a" * 1_000_000
    with client.stream("GET", SEND) as response:
        pieces = response.iter_raw(1_000)
        assert next(pieces)
        client.close()
        with pytest.raises((RuntimeError, httpx.ReadError)):
            list(pieces)


def test_a_client_that_nobody_holds_any_more_leaves_nothing_behind(discord: PacingServer) -> None:
    client = client_of(discord, store=MemoryStore())
    assert send(client, "a") == 200
    users = loop_thread.current_loop_thread()._clients
    mine = id(client._pacing)
    assert mine in users
    del client
    gc.collect()
    wait_until(lambda: mine not in users, "its connections are closed")


def test_an_exception_in_the_waiting_thread_ends_its_call(discord: PacingServer) -> None:
    class Struck(BaseException):
        pass

    def strike(request: httpx.Request) -> httpx.Response:
        raise Struck

    with mocked(strike) as client, pytest.raises(Struck):
        client.get(SEND)
