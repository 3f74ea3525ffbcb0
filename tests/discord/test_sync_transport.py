"""SyncDiscordClient where processes end and fork: no 429, nothing twice, and no wait for the end."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import programs
from tests.support.pacing_server import PacingServer
from tests.support.programs import LATE, Program
from tests.support.servers import Server

BEGINNING = """
import os, signal, sys, threading, time
import httpx
from concurrent.futures import ThreadPoolExecutor
from asgi_ratelimit.discord import SyncDiscordClient
from asgi_ratelimit.redis import RedisStore

signal.signal(signal.SIGINT, signal.default_int_handler)  # who started us may have it ignored
URL, REDIS = sys.argv[1:]

def new_client(**options):
    return SyncDiscordClient("token", base_url=URL, trust_env=False, **options)

def shared():
    return new_client(store=RedisStore(REDIS, timeout=5))

def send(client, content):
    return client.post("/channels/1/messages", json={"content": content}).status_code

def told():
    print("told", flush=True)
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def discord(redis: Server) -> Iterator[PacingServer]:
    redis.command("FLUSHALL")
    with PacingServer(limit=5, period=0.5) as discord:
        yield discord


def program(source: str, discord: PacingServer, redis: Server) -> Program:
    return Program(source, discord.url, redis.url, beginning=BEGINNING)


def run(source: str, discord: PacingServer, redis: Server) -> None:
    programs.run(source, discord.url, redis.url, beginning=BEGINNING)


# Forks


def test_eight_forked_workers_with_a_shared_redis(discord: PacingServer, redis: Server) -> None:
    """The client was used before the fork, as by a Celery task that is imported by the master."""
    source = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads
        client = shared()
        assert send(client, "parent") == 200
        children = []
        for number in range(8):
            child = os.fork()
            if not child:
                with ThreadPoolExecutor(2) as pool:
                    sent = list(pool.map(lambda n: send(client, f"{number} {n}"), range(4)))
                sys.exit(sent != [200] * 4)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
        assert send(client, "parent again") == 200
        told()
        """
    run(source, discord, redis)
    assert Counter(discord.statuses) == {200: 34}
    assert len(set(discord.created)) == 34, "nothing is sent twice"


def test_a_pool_of_worker_processes(discord: PacingServer, redis: Server) -> None:
    source = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        client = shared()
        def task(number):
            return send(client, f"{number}")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert pool.map(task, range(20), chunksize=1) == [200] * 20
        told()
        """
    run(source, discord, redis)
    assert Counter(discord.statuses) == {200: 20}
    assert len(set(discord.created)) == 20


def test_a_fork_while_the_parents_threads_send(discord: PacingServer, redis: Server) -> None:
    source = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        client = shared()
        with ThreadPoolExecutor(4) as pool:
            sending = [pool.submit(send, client, f"parent {n}") for n in range(12)]
            while not any(call.done() for call in sending):
                time.sleep(0.001)
            child = os.fork()
            if not child:
                assert [send(client, f"child {n}") for n in range(3)] == [200] * 3
                before = time.monotonic()
                client.close()
                os._exit(time.monotonic() - before > 0.7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert [call.result() for call in sending] == [200] * 12
        client.close()
        told()
        """
    run(source, discord, redis)
    assert Counter(discord.statuses) == {200: 15}
    assert len(set(discord.created)) == 15


# Exceptions that strike from outside


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="httpcore loses connections of cancelled calls there, too often"
)
def test_an_exception_that_strikes_anywhere_in_a_call_keeps_no_connection(redis: Server) -> None:
    """As a signal may raise one between any two instructions, e.g. Celery's soft time limit.

    There are no more than a few: httpcore loses a connection in some 800 cancelled calls, without this package as well.
    """
    source = """
        import gc, random
        from asgi_ratelimit.sync import thread_result
        class Struck(Exception):
            pass
        def strike(_, frame):  # the standard library's jar would stay locked: it takes its lock before its `try`
            if not frame.f_code.co_filename.endswith("cookiejar.py"):
                raise Struck
        signal.signal(signal.SIGALRM, strike)
        thread_result._RECHECK_S = 0.05  # some strike just before the thread falls asleep
        client = new_client(global_limit=1_000_000, limits=httpx.Limits(max_connections=4))
        client.get("/channels/1")
        struck = 0
        while struck < 12:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3), 0.5)
                try:
                    client.get("/channels/1")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Struck:
                struck += 1
        gc.collect()
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda n: client.get("/channels/1").status_code, range(8)))
        assert got == [200] * 8
        told()
        """
    with PacingServer(limit=1_000_000, global_limit=1_000_000) as discord:
        discord.body = b"a" * 100_000
        run(source, discord, redis)


# Ends

ENDS = {
    "nothing was sent": """
        client = new_client()
        told()
        """,
    "it was never closed": """
        client = shared()
        assert send(client, "a") == 200
        told()
        """,
    "it was closed": """
        with shared() as client:
            assert send(client, "a") == 200
        told()
        """,
    "daemon threads wait for a limit, and for an answer": """
        client = new_client()
        for number in range(20):
            threading.Thread(target=send, args=(client, f"{number}"), daemon=True).start()
        while len(client.waiting) < 1:
            time.sleep(0.001)
        told()
        """,
    "the look-up of a name waits": """
        import socket
        socket.getaddrinfo = lambda *_: time.sleep(60)
        client = SyncDiscordClient("token", base_url="http://nowhere.example", trust_env=False)
        threading.Thread(target=send, args=(client, "a"), daemon=True).start()
        time.sleep(0.2)
        told()
        """,
    "other threads wait within a `with`": """
        def wait(number):
            try:
                send(client, f"{number}")
            except RuntimeError as error:
                assert "closed" in str(error)
        with new_client() as client:
            for number in range(20):
                threading.Thread(target=wait, args=(number,)).start()
            while len(client.waiting) < 1:
                time.sleep(0.001)
            told()
        """,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_script_ends_in_silence_at_once_when(end: str, discord: PacingServer, redis: Server) -> None:
    if "wait" in end:
        discord.hold()
    run(ENDS[end], discord, redis)


def test_threads_that_are_no_daemons_finish_their_calls(discord: PacingServer, redis: Server) -> None:
    source = """
        client = shared()
        for number in range(12):
            threading.Thread(target=send, args=(client, f"{number}")).start()
        told()
        """
    run(source, discord, redis)
    assert sorted(discord.created, key=int) == [f"{number}" for number in range(12)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_program_and_the_calls_of_its_threads(
    number: signal.Signals, discord: PacingServer, redis: Server
) -> None:
    discord.hold()
    source = """
        def end(*_):
            told()
            raise SystemExit(3)
        def wait(number):
            try:
                send(client, f"{number}")
            except RuntimeError as error:
                assert "closed" in str(error)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        with shared() as client:
            for number in range(8):
                threading.Thread(target=wait, args=(number,), daemon=number % 2 == 0).start()
            while len(client.waiting) < 1:
                time.sleep(0.001)
            told()
            send(client, "main")
        """
    running = program(source, discord, redis)
    running.tell(number)
    code, out, err, took = running.end()
    assert (code, out, err) == (3, "", "")
    assert took < LATE


def test_a_sigterm_without_a_handler_ends_it_as_well(discord: PacingServer, redis: Server) -> None:
    discord.hold()
    running = program("client = shared()\ntold()\nsend(client, 'main')", discord, redis)
    running.tell(signal.SIGTERM)
    assert running.end()[0] == -signal.SIGTERM
