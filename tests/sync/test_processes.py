"""SyncLimiter where processes end and fork: nothing hangs, nothing is said, nobody else's loop is touched."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from asgi_ratelimit import MemoryStore, RateLimited
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.threads import PATIENCE, PromisingStore, joined, pass_time, started

STRICT = (("-W", "error"), ("-X", "dev", "-W", "error"))
FORK_WITH_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"  # since Python 3.12

BEGINNING = """
import atexit, os, sys, threading, time, warnings
from asgi_ratelimit import LeakyBucket, MemoryStore, RateLimited
from asgi_ratelimit.sync import SyncLimiter, loop_thread, thread_result

def make_store():
    if len(sys.argv) == 1:
        return MemoryStore()
    from asgi_ratelimit.redis import RedisStore
    return RedisStore(sys.argv[1], timeout=5)

def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

def refused(limiter, key):
    try:
        limiter.acquire(key, timeout=0)
    except RateLimited:
        return True

def in_line(limiter, key="a"):
    thread = threading.Thread(target=limiter.acquire, args=(key,), daemon=True)
    thread.start()
    wait_until(lambda: limiter._limiter._waiting._queues)
    return thread
"""

ENDS = {
    "nothing was used": "",
    "it was used at the top of the file": """
        limiter = SyncLimiter("1/h", store=make_store())
        assert limiter.try_acquire("a").allowed
        assert refused(limiter, "a")
        """,
    "it was used in a function that has returned": """
        def main():
            limiter = SyncLimiter("1/h", store=make_store())
            assert limiter.try_acquire("a").allowed
            assert refused(limiter, "a")
        main()
        """,
    "a daemon thread stands in line": """
        limiter = SyncLimiter("1/h", store=make_store())
        limiter.acquire("a")
        in_line(limiter)
        """,
    "a daemon thread waits for its slot": """
        limiter = SyncLimiter(LeakyBucket("1/h", queue=3), store=make_store())
        limiter.acquire("a")
        before = limiter.peek("a").remaining
        threading.Thread(target=limiter.acquire, args=("a",), daemon=True).start()
        wait_until(lambda: limiter.peek("a").remaining < before)
        """,
    "daemon threads go on asking": """
        limiter = SyncLimiter("1/h", store=make_store())
        def ask():
            while True:
                refused(limiter, threading.current_thread().name)
        for name in "abcd":
            threading.Thread(target=ask, name=name, daemon=True).start()
        wait_until(lambda: not any(limiter.peek(name).allowed for name in "abcd"))
        """,
    "another thread is served only then": """
        limiter = SyncLimiter("10/5s", store=make_store())
        limiter.acquire("a", cost=10)
        assert refused(limiter, "a")
        def late():
            for _ in range(2):
                assert limiter.acquire("a").allowed
            print("served", end="")
        threading.Thread(target=late).start()
        """,
    "a function of atexit asks once more": """
        limiter = SyncLimiter("1/h", store=make_store())
        assert limiter.try_acquire("a").allowed
        assert refused(limiter, "a")
        atexit.register(lambda: print("refused" if refused(limiter, "a") else "", end=""))
        """,
    "somebody stands in line at a KeyboardInterrupt": """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who started us may have it ignored
        limiter = SyncLimiter("1/h", store=make_store())
        limiter.acquire("a")
        def interrupt():
            wait_until(lambda: limiter._limiter._waiting._queues)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            limiter.acquire("a")
        except KeyboardInterrupt:
            wait_until(lambda: not limiter._limiter._waiting._queues)
            print("left", end="")
        """,
    "a forked child ends by itself": """
        limiter = SyncLimiter("1/h", store=make_store())
        limiter.acquire("a")
        in_line(limiter)
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            import gc
            gc.collect()
            refused(limiter, "a")
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end="")
        assert refused(limiter, "b") is None
        """,
}
SAID = {
    "another thread is served only then": "served",
    "a function of atexit asks once more": "refused",
    "somebody stands in line at a KeyboardInterrupt": "left",
    "a forked child ends by itself": "3",
}


@pytest.fixture(params=["memory", "redis"])
def where(request: pytest.FixtureRequest) -> list[str]:
    """The arguments with which a script uses one store or the other."""
    if request.param == "memory":
        return []
    server: Server = request.getfixturevalue("server")
    server.command("FLUSHALL")
    return [server.url]


def run(
    source: str, *args: str, flags: tuple[str, ...] = STRICT[0], beginning: str = BEGINNING
) -> tuple[int, str, str]:
    """The exit code of a script, what it has printed, and what it should not have."""
    command = [sys.executable, *flags, "-c", beginning + textwrap.dedent(source), *args]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("flags", STRICT, ids=" ".join)
@pytest.mark.parametrize("end", ENDS)
def test_a_script_ends_in_silence_when(end: str, flags: tuple[str, ...], where: list[str]) -> None:
    assert run(ENDS[end], *where, flags=flags) == (0, SAID.get(end, ""), "")


def test_a_script_ends_though_its_redis_hangs(server: Server) -> None:
    source = """
        import signal
        limiter = SyncLimiter("5/h", name="hanging", store=make_store())
        assert limiter.try_acquire("a").reason == "ok"
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
        threading.Thread(target=limiter.try_acquire, args=("a",), daemon=True).start()
        wait_until(lambda: loop_thread._current._calls)
        """
    try:
        assert run(source, server.url, str(server.pid), flags=STRICT[1]) == (0, "", "")
    finally:
        server.resume()


@pytest.mark.parametrize("use", ["use()", "used = use()"])
def test_a_store_has_time_to_close_its_connections_at_exit(use: str) -> None:
    source = """
        import asyncio
        from asgi_ratelimit.store import Store
        class Own(Store):
            def __init__(self):
                self.shared, self.memory = False, MemoryStore()
                self.clock = self.memory.clock
            def open(self, *args):
                return self.memory.open(*args)
            async def start(self):
                ...
            async def aclose(self):
                await asyncio.sleep(0.1)
                print("closed", end="")
        def use():
            limiter = SyncLimiter("5/h", store=Own())
            limiter.try_acquire("a")
            return limiter
        """
    assert run(f"{source}{use}") == (0, "closed", "")


def test_a_store_that_never_finishes_closing_does_not_hold_up_the_exit(server: Server) -> None:
    source = """
        from asgi_ratelimit.redis import RedisStore
        class Hanging(RedisStore):
            async def aclose(self):
                print("closing", end="")
                await loop_thread.asyncio.Event().wait()
        limiter = SyncLimiter("5/h", store=Hanging(sys.argv[1], timeout=5))
        limiter.try_acquire("a")
        """
    assert run(source, server.url) == (0, "closing", "")


def test_an_exception_that_strikes_anywhere_in_a_call_leaves_nothing_locked(server: Server) -> None:
    """As a signal may raise one between any two instructions, e.g. Celery's soft time limit."""
    source = """
        import signal
        class Struck(Exception):
            pass
        def strike(*_):
            raise Struck
        signal.signal(signal.SIGALRM, strike)
        thread_result._RECHECK_S = 0.05  # some strike just before the thread falls asleep
        limiter = SyncLimiter("10/day", store=make_store())
        limiter.try_acquire("a", cost=10)
        assert refused(limiter, "a")
        struck = 0
        for number in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, (1 + number) * 1e-6, 1)  # again, if it is lost in a destructor
                try:
                    limiter.acquire("a")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Struck:
                struck += 1
        wait_until(lambda: not limiter._limiter._waiting._queues and not loop_thread._current.queues)
        assert refused(limiter, "a")
        assert limiter.peek("b").remaining == 10
        print(struck, end="")
        """
    code, said, complaints = run(source, server.url)
    assert (code, said) == (0, "500"), complaints


def test_a_verb_after_the_end_is_an_error_that_says_so() -> None:
    """Those that atexit calls last have been registered before this package was imported."""
    source = """
        import atexit
        def last():
            try:
                limiter.acquire("a", timeout=0)
            except RuntimeError as error:
                print(error)
        atexit.register(last)
        from asgi_ratelimit.sync import SyncLimiter
        limiter = SyncLimiter("1/h")
        limiter.acquire("a")
        """
    said = (
        "a SyncLimiter or SyncDiscordClient was called when the event loop behind it had ended with the interpreter\n"
    )
    assert run(source, beginning="") == (0, said, "")


# Fork


def in_a_fork(work: Any, *args: Any) -> Any:
    """What `work` returns in a forked child."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(work(*args)))
    child.start()
    try:
        assert ours.poll(PATIENCE), "the child does not answer"
        return ours.recv()
    finally:
        child.join(PATIENCE)
        child.kill()
        ours.close()
        theirs.close()


def refused_after(limiter: SyncLimiter, asked: int) -> tuple[int, bool]:
    """How many of so many calls are allowed, and whether `acquire` then refuses."""
    allowed = sum(limiter.try_acquire("child").allowed for _ in range(asked))
    try:
        limiter.acquire("child", timeout=0)
    except RateLimited:
        return allowed, True
    return allowed, False


@pytest.mark.filterwarnings(FORK_WITH_THREADS)
@pytest.mark.parametrize("make_store", [lambda clock: MemoryStore(clock=clock), PromisingStore])
def test_a_forked_child_begins_anew_and_leaves_the_parent_s_loop_alone(make_store: Any, clock: ManualClock) -> None:
    limiter = SyncLimiter("3/10s", store=make_store(clock))
    limiter.acquire("a", cost=3)
    first, second = joined(limiter, "a", cost=3), joined(limiter, "a", cost=3)
    for _ in range(3):
        assert in_a_fork(refused_after, limiter, 5) == (3, True)
    pass_time(clock, 10)
    assert first.result(PATIENCE).allowed
    assert in_a_fork(refused_after, limiter, 5) == (3, True)
    pass_time(clock, 10)
    assert second.result(PATIENCE).allowed


@pytest.mark.filterwarnings(FORK_WITH_THREADS)
def test_children_share_their_parent_s_limit_in_redis(server: Server) -> None:
    server.command("FLUSHALL")
    limiter = SyncLimiter("100/h", store=RedisStore(server.url, timeout=5))
    assert limiter.try_acquire("a").remaining == 99
    busy = [started(count_allowed, limiter, 20) for _ in range(4)]
    children = sum(in_a_fork(count_allowed, limiter, 20) for _ in range(2))
    assert 1 + children + sum(each.result(PATIENCE) for each in busy) == 100
    assert limiter.peek("a").remaining == 0


def count_allowed(limiter: SyncLimiter, times: int) -> int:
    return sum(limiter.try_acquire("a").allowed for _ in range(times))
