"""Programs with a DiscordHandler end at once, and workers that are forked from them share its webhook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.discord.test_log_handler import HOOK, lines_of
from tests.support.pacing_server import PacingServer
from tests.support.programs import run
from tests.support.servers import Server


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def discord() -> Iterator[PacingServer]:
    with PacingServer(limit=5, period=0.5) as discord:
        yield discord


BEGINNING = """
import logging, os, signal, sys, threading, time, warnings
from asgi_ratelimit.discord import DiscordHandler
from asgi_ratelimit.redis import RedisStore
warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads
URL, REDIS = sys.argv[1:]
log = logging.getLogger("program")
log.setLevel("INFO")

def add(**options):
    log.addHandler(DiscordHandler(URL, **{"interval": 0.05, **options}))
    return log.handlers[0]

def told():
    print("told", flush=True)
"""

ENDS = {
    "it has just logged": """
        add()
        log.info("one")
        told()
        """,
    "the name of the server has to be looked up": """
        URL = URL.replace("127.0.0.1", "localhost")
        add()
        log.info("one")
        told()
        """,
    "it has logged in a function of atexit": """
        import atexit
        add()
        atexit.register(lambda: log.info("one"))
        told()
        """,
    "it was never used": """
        add()
        logging.getLogger().info("one")
        told()
        """,
    "logging.shutdown was called": """
        add()
        log.info("one")
        logging.shutdown()
        told()
        """,
    "SIGTERM comes, and is a SystemExit": """
        def end(*_):
            told()
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        add()
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """,
    "threads go on logging": """
        def work():
            while True:
                log.info("again")
                time.sleep(0.0001)
        add()
        log.info("one")
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        told()
        """,
}


LOST = "log lines do not arrive at Discord (lost so far: 1): Cannot send a request, as the client has been closed.\n"


def runs(source: str, discord: PacingServer, redis: Server, **options: str) -> None:
    run(source, discord.url + HOOK, redis.url, beginning=BEGINNING, **options)


@pytest.mark.parametrize("answers", [True, False], ids=["with an answer", "without an answer"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_at_once_when(end: str, answers: bool, discord: PacingServer, redis: Server) -> None:
    if not answers:
        discord.hold()
    runs(ENDS[end], discord, redis, complaint=LOST if "shutdown" in end and not answers else "")
    if answers:
        assert set(discord.statuses) <= {200}
        assert lines_of(discord)[:1] == ([] if "never" in end else ["one"])


@pytest.mark.parametrize("end", ["os.fork", "multiprocessing"])
def test_eight_forked_workers_share_a_webhook(end: str, discord: PacingServer, redis: Server) -> None:
    """What the parent has not posted yet is posted by the parent only. Each child posts its own lines."""
    redis.command("FLUSHALL")
    source = """
        add(store=RedisStore(REDIS, timeout=5), timeout=20.0)
        log.info("parent")
        def work(name):
            for number in range(50):
                log.info("child %d line %d", name, number)
        """
    forks = {
        "os.fork": """
        children = []
        for name in range(8):
            child = os.fork()
            if not child:
                work(name)
                log.handlers[0].flush()
                os._exit(0)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
        told()
        """,
        "multiprocessing": """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(name,)) for name in range(8)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
        told()
        """,
    }
    runs(source + forks[end], discord, redis)
    assert set(discord.statuses) == {200}
    lines = sorted(lines_of(discord))
    wanted = sorted(["parent", *(f"child {name} line {n}" for name in range(8) for n in range(50))])
    if end == "os.fork":
        assert lines == wanted
    else:  # what waits for longer than the end may take is lost
        assert set(lines) <= set(wanted)
        assert len(set(lines)) == len(lines)


def test_a_program_ends_though_neither_discord_nor_redis_answers(discord: PacingServer, redis: Server) -> None:
    discord.hold()
    source = f"""
        from asgi_ratelimit.discord import SyncDiscordClient
        warnings.simplefilter("ignore", ResourceWarning)  # there is no time to close a connection that hangs
        store = RedisStore(REDIS, timeout=5)
        client = SyncDiscordClient("token", base_url=URL.partition("/webhooks")[0], store=store, trust_env=False)
        def get(number):
            threading.Thread(target=client.get, args=(f"/channels/{{number}}",), daemon=True).start()
        add(store=store)
        log.info("one")
        get(1)
        time.sleep(0.3)
        os.kill({redis.pid}, signal.SIGSTOP)
        log.info("two")
        get(2)
        time.sleep(0.1)
        told()
        """
    try:
        runs(source, discord, redis)
    finally:
        redis.resume()
