"""One store in many event loops, one after the other and at once, in threads and in forked processes."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_ratelimit import Decision, Limiter
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.sync import SyncLimiter
from tests.support.server_counts import clients, connections_ever, until_alone
from tests.support.servers import Server

THREADS = 64
PATIENCE = 30.0  # seconds until a hanging test fails


@pytest.fixture(autouse=True)
def no_other_client(any_redis: Server) -> None:
    """Close the connections that an earlier test may have left open."""
    any_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def in_threads(count: int, work: Callable[[], list[Decision]]) -> list[list[Decision]]:
    """The answers of each of `count` threads, which start together."""
    barrier = threading.Barrier(count)

    def run() -> list[Decision]:
        barrier.wait(PATIENCE)
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [each.result(PATIENCE) for each in [pool.submit(run) for _ in range(count)]]


def check_all(answers: list[list[Decision]], limit: int) -> None:
    """Exactly the limit, each charged after the others."""
    everything = [answer for of_one in answers for answer in of_one]
    assert {answer.reason for answer in everything} <= {"ok", "limited", "cached"}
    assert sorted(answer.remaining for answer in everything if answer.allowed) == list(range(limit))


# Many loops at once


def test_loops_in_threads_share_a_store_and_have_their_own_connections(any_redis: Server) -> None:
    store = RedisStore(any_redis.url, timeout=5)
    limiter = Limiter("500/day", store=store)
    together = threading.Barrier(8)
    seen = []

    async def main() -> list[Decision]:
        async with store:
            answers = [*await asyncio.gather(*(limiter.try_acquire("a") for _ in range(100)))]
            together.wait(PATIENCE)
            seen.append(len(clients(any_redis)))
            together.wait(PATIENCE)
            return answers

    check_all(in_threads(8, lambda: asyncio.run(main())), 500)
    assert all(8 <= count <= 8 * 4 for count in seen)
    until_alone(any_redis)


def test_the_loops_of_64_threads_admit_exactly_the_limit(any_redis: Server) -> None:
    store = RedisStore(any_redis.url, timeout=10)
    limiter = Limiter("1000/day", store=store)

    async def main() -> list[Decision]:
        async with store:
            return [*await asyncio.gather(*(limiter.try_acquire("a") for _ in range(30)))]

    check_all(in_threads(THREADS, lambda: asyncio.run(main())), 1000)


def test_64_threads_without_a_loop_admit_exactly_the_limit(any_redis: Server) -> None:
    def use() -> None:
        limiter = SyncLimiter("1000/day", store=RedisStore(any_redis.url, timeout=10))
        check_all(in_threads(THREADS, lambda: [limiter.try_acquire("a") for _ in range(30)]), 1000)

    before = connections_ever(any_redis)
    use()
    assert connections_ever(any_redis) - before - 1 <= 4
    gc.collect()  # it has no user any more
    until_alone(any_redis)


def test_a_store_is_used_in_one_loop_while_another_one_closes_it(any_redis: Server) -> None:
    store = RedisStore(any_redis.url, timeout=5)
    limiter = Limiter("1000/day", store=store)

    async def short() -> list[Decision]:
        async with store:
            return [await limiter.try_acquire("a")]

    async def long() -> list[Decision]:
        async with store:
            return [await limiter.try_acquire("a") for _ in range(200)]

    def work() -> list[Decision]:
        if number.pop():
            return asyncio.run(long())
        return [answer for _ in range(20) for answer in asyncio.run(short())]

    number = [1, 1, 0, 0]
    answers = in_threads(4, work)
    assert {answer.reason for of_one in answers for answer in of_one} == {"ok"}
    assert sum(len(of_one) for of_one in answers) == 440


# One loop after the other


@pytest.mark.parametrize("closes", [True, False], ids=["closed each time", "never closed"])
def test_loop_after_loop_uses_the_same_store_and_leaves_nothing_open(any_redis: Server, closes: bool) -> None:
    store = RedisStore(any_redis.url, timeout=5)
    limiter = Limiter("100/h", store=store)

    async def main() -> Decision:
        answer = await limiter.try_acquire("a")
        if closes:
            await store.aclose()
        return answer

    before = open_files()
    answers = [asyncio.run(main()) for _ in range(20)]
    assert [answer.remaining for answer in answers] == [*range(80, 100)][::-1]
    assert open_files() <= before
    until_alone(any_redis)
    gc.collect()  # a warning would be an error


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# Fork

FORKING = """
import asyncio, gc, multiprocessing, os, signal, sys
from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore

store = RedisStore(sys.argv[1], timeout=5)
limiter = Limiter("1000/day", store=store)

async def check(times):
    async with store:
        return [(await limiter.try_acquire("a")).reason for _ in range(times)]

async def check_for_ever(reasons):
    while True:
        reasons.append((await limiter.try_acquire("a")).reason)
        reasons += [each.reason for each in await asyncio.gather(*(limiter.try_acquire("a") for _ in range(5)))]

def child():
    gc.collect()
    assert asyncio.run(check(20)) == ["ok"] * 20
    assert asyncio.run(check(20)) == ["ok"] * 20
    gc.collect()

async def main():
    reasons = []
    await limiter.try_acquire("a")
    checking = asyncio.create_task(check_for_ever(reasons))
    for n in range(3):
        while len(reasons) < 20 * (n + 1):
            await asyncio.sleep(0)
        flying = asyncio.ensure_future(limiter.try_acquire("a"))
        await asyncio.sleep(0)  # a call is under way, and its answer belongs to the parent
        FORK()
        assert (await flying).reason == "ok"
        reasons += ["ok"]
    checking.cancel()
    await asyncio.wait([checking])
    assert set(reasons) == {"ok"}, set(reasons)
    left = (await limiter.peek("a")).remaining
    await store.aclose()
    print(len(reasons) + 3 * 40 + 1, 1000 - left)
"""
FORKS = {
    "os.fork": """
        pid = os.fork()
        if pid == 0:
            try:
                child()
                os._exit(0)
            except BaseException as error:
                print("child:", repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
""",
    "multiprocessing": """
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
""",
}
BETWEEN = """
loop = asyncio.new_event_loop()
assert loop.run_until_complete(limiter.try_acquire("a")).reason == "ok"
for n in range(3):
    pid = os.fork()
    if not pid:
        child()
        assert loop.run_until_complete(check(20)) == ["ok"] * 20  # the loop is inherited, the connection is its own
        sys.exit(0)  # an end like any other, with all that it inherited
    assert os.waitpid(pid, 0)[1] == 0
    assert loop.run_until_complete(limiter.try_acquire("a")).reason == "ok"
left = loop.run_until_complete(limiter.peek("a")).remaining
loop.run_until_complete(store.aclose())
loop.close()
print(4 + 3 * 60, 1000 - left)
"""
MAIN = "asyncio.run(main())\n"
SOURCES = {
    "os.fork": FORKING.replace("        FORK()\n", FORKS["os.fork"]) + MAIN,
    "multiprocessing": FORKING.replace("        FORK()\n", FORKS["multiprocessing"]) + MAIN,
    "while the loop rests": FORKING + BETWEEN,
}


@pytest.mark.parametrize("way", SOURCES)
def test_a_fork_in_the_middle_of_use_disturbs_neither_side(any_redis: Server, way: str) -> None:
    before = connections_ever(any_redis)
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SOURCES[way]]
    ran = subprocess.run([*command, any_redis.url], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    counted, spent = map(int, ran.stdout.split())
    assert counted <= spent <= counted + 6  # those that were cancelled in the end
    of_a_child = 3 if way == "while the loop rests" else 2  # one for each loop
    assert connections_ever(any_redis) - before - 1 == 1 + 3 * of_a_child
    until_alone(any_redis)
