"""The faulty proxy: every fault is the right one, and ends when the next starts."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from tests.support.servers import Proxy, Server, wait_until
from tests.support.servers.test_servers import SOON, client

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
INCR = b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n"


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with Server(requirepass="secret") as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Server:
    running_server.command("FLUSHALL")
    return running_server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def old(proxy: Proxy) -> Iterator[redis.Redis]:
    """A client that is connected before anything goes wrong."""
    with client(proxy.url) as old:
        old.ping()
        yield old


def hurried(proxy: Proxy) -> redis.Redis:
    return client(proxy.url, timeout=SOON)


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0)


def logged_in(proxy: Proxy) -> socket.socket:
    caller = dial(proxy)
    caller.sendall(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n")
    assert caller.recv(100) == b"+OK\r\n"
    return caller


def test_at_first_all_passes_through(server: Server, proxy: Proxy, old: redis.Redis) -> None:
    assert old.set("a", "\r\n" * 100_000)
    assert old.get("a") == server.command("GET", "a") == "\r\n" * 100_000
    with client(proxy.url.replace("secret", "guess")) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_connections_are_counted_and_forgotten(proxy: Proxy) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(client(proxy.url)).ping()
        assert (proxy.connections, proxy.open_connections) == (3, 3)
    wait_until(lambda: proxy.open_connections == 0, "the proxy has seen them leave")
    assert proxy.connections == 3


def test_refusing_is_for_newcomers_and_ends(proxy: Proxy, old: redis.Redis) -> None:
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    assert old.ping()
    assert proxy.connections == 1
    proxy.pass_through()
    with client(proxy.url) as new:
        assert new.ping()


def test_silence_is_for_all_and_commands_sent_in_it_arrive_afterwards(server: Server, proxy: Proxy) -> None:
    with hurried(proxy) as old, hurried(proxy) as new:
        old.ping()
        proxy.silence()
        for each in (old, new):
            with pytest.raises(redis.TimeoutError):
                each.incr("a")
        assert proxy.connections == 2
    wait_until(lambda: proxy.open_connections == 0, "the proxy has seen them leave")
    assert server.command("EXISTS", "a") == 0
    proxy.pass_through()
    wait_until(lambda: server.command("GET", "a") == "1", "the old connection's command is done")


def test_an_answer_on_its_way_is_held_by_the_silence(server: Server, proxy: Proxy) -> None:
    with logged_in(proxy) as caller:
        caller.sendall(b"*3\r\n$5\r\nBLPOP\r\n$1\r\na\r\n$1\r\n0\r\n")
        wait_until(lambda: server.command("INFO", "clients")["blocked_clients"] == 1, "the question has arrived")
        proxy.silence()
        server.command("RPUSH", "a", 1)
        caller.settimeout(SOON)
        with pytest.raises(TimeoutError):
            caller.recv(100)
        caller.settimeout(5.0)
        proxy.pass_through()
        assert caller.recv(100) == b"*2\r\n$1\r\na\r\n$1\r\n1\r\n"


def test_a_client_that_has_sent_everything_still_gets_the_answer(server: Server, proxy: Proxy) -> None:
    with logged_in(proxy) as caller:
        server.pause()
        caller.sendall(INCR)
        caller.shutdown(socket.SHUT_WR)
        server.resume()
        assert b"".join(iter(lambda: caller.recv(100), b"")) == b":1\r\n"


def test_a_delay_holds_every_answer_back(proxy: Proxy, old: redis.Redis) -> None:
    proxy.delay(0.2)
    for _ in range(2):
        start = time.monotonic()
        assert old.ping()
        assert time.monotonic() - start >= 0.2
    with hurried(proxy) as new, pytest.raises(redis.TimeoutError):
        new.ping()
    proxy.pass_through()
    with hurried(proxy) as new:
        assert new.ping()


def test_a_cut_resets_all_connections_and_welcomes_new_ones(proxy: Proxy) -> None:
    with dial(proxy) as silent, dial(proxy) as waiting:
        wait_until(lambda: proxy.connections == 2, "the proxy has accepted them")
        proxy.cut()
        for caller in (silent, waiting):
            with pytest.raises(ConnectionResetError):
                caller.recv(100)
    assert proxy.open_connections == 0
    with client(proxy.url) as new:
        assert new.ping()


def test_every_command_gets_one_reply_however_it_arrives(server: Server, proxy: Proxy) -> None:
    proxy.reply(LOADING)
    with dial(proxy) as caller:
        for piece in (INCR + INCR[:7], INCR[7:] + INCR[:-1], INCR[-1:]):
            caller.sendall(piece)
        caller.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: caller.recv(1000), b""))
    assert answers == LOADING * 3
    assert server.command("EXISTS", "a") == 0


def test_a_reply_may_be_for_some_commands_only(server: Server, proxy: Proxy) -> None:
    proxy.reply(LOADING, to=["INCRBY"])
    with client(proxy.url) as new:
        assert new.set("a", 1)
        with pytest.raises(redis.BusyLoadingError):
            new.incr("a")
        assert new.get("a") == "1"
        proxy.pass_through()
        assert new.incr("a") == 2


def test_a_cut_answer_belongs_to_a_command_that_was_done(server: Server, proxy: Proxy, old: redis.Redis) -> None:
    proxy.cut_answers()
    with client(proxy.url) as new:
        for each in (old, new):
            with pytest.raises(redis.ConnectionError):
                each.incr("a")
    wait_until(lambda: server.command("GET", "a") == "2", "both commands are done")
    proxy.pass_through()
    assert old.incr("a") == 3


def test_a_client_that_sends_again_after_a_cut_answer_is_caught(server: Server, proxy: Proxy) -> None:
    proxy.cut_answers(to=["INCRBY"])
    with client(proxy.url) as stubborn:
        assert stubborn.ping()
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                stubborn.incr("a")
    wait_until(lambda: server.command("GET", "a") == "3", "it was done three times")


def test_all_of_a_batch_is_done_when_its_answers_are_cut(server: Server, proxy: Proxy) -> None:
    with logged_in(proxy) as caller:
        proxy.cut_answers()
        caller.sendall(INCR * 100)
        with pytest.raises(ConnectionResetError):
            caller.recv(100)
    wait_until(lambda: server.command("GET", "a") == "100", "the batch is done")


def test_a_dead_server_is_passed_on_as_a_lost_connection() -> None:
    with Server() as mortal, Proxy(mortal) as proxy, client(proxy.url) as old:
        old.ping()
        mortal.kill()
        with pytest.raises(redis.ConnectionError):
            old.ping()
        with pytest.raises(redis.ConnectionError):
            old.ping()
        mortal.restart()
        assert old.ping()


def test_a_proxy_can_be_left_in_the_middle_of_anything(server: Server) -> None:
    with ExitStack() as callers:
        for fault in (Proxy.pass_through, Proxy.refuse, Proxy.silence, lambda proxy: proxy.delay(60)):
            with Proxy(server) as proxy:
                for _ in range(2):
                    callers.enter_context(dial(proxy)).sendall(INCR)
                fault(proxy)
            with pytest.raises(ConnectionRefusedError):
                dial(proxy)


@pytest.mark.anyio
async def test_a_proxy_serves_and_obeys_a_running_event_loop(server: Server, proxy: Proxy) -> None:
    async with AsyncRedis.from_url(proxy.url, decode_responses=True) as asking:
        assert await asking.incr("a") == 1
        proxy.reply(b":7\r\n", to=["INCRBY"])
        assert await asking.incr("a") == 7
        proxy.pass_through()
        assert await asking.incr("a") == 2
