"""RedisStore: its options, its life with an app, and its connections in every loop and process that uses it."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_ratelimit import Limiter, StoreUnavailable, TokenBucket
from asgi_ratelimit.errors import RateLimitWarning
from asgi_ratelimit.redis import RedisStore
from tests.support.servers import Cluster, Server, wait_until
from tests.support.servers.server import HOST, free_port
from tests.support.stores import PATIENCE, calls_of_the_script, names_of, new_store


def clients_of(server: Server) -> int:
    """The number of connections, without the one that counts."""
    return int(server.command("INFO", "clients")["connected_clients"]) - 1


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        yield store


# Options

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"prefix": ""}, "prefix must be a string without braces, e.g. \"ratelimit\", not ''", "''"),
    ({"prefix": None}, "prefix must be", "None"),
    ({"prefix": b"bytes"}, "prefix must be", "b'bytes'"),
    ({"prefix": "a{b"}, "prefix must be", "'a{b'"),
    ({"prefix": "a}b"}, "prefix must be", "'a}b'"),
    ({"prefix": 7}, "prefix must be", "7"),
    ({"secret": ""}, "secret must be a string or bytes, e.g. os.environ['SECRET']", "an empty one"),
    ({"secret": b""}, "secret must be", "an empty one"),
    ({"secret": 7}, "secret must be", "int"),
    ({"timeout": 0}, "timeout must be seconds above 0, e.g. timeout=0.1", "0"),
    ({"timeout": -1.5}, "timeout must be", "-1.5"),
    ({"timeout": float("nan")}, "timeout must be", "nan"),
    ({"timeout": float("inf")}, "timeout must be", "inf"),
    ({"timeout": None}, "timeout must be", "None"),
    ({"timeout": "1"}, "timeout must be", "'1'"),
    ({"timeout": True}, "timeout must be", "True"),
    ({"outage": "memory"}, 'outage must be "local", "open" or "closed"', "'memory'"),
    ({"outage": None}, "outage must be", "None"),
    ({"outage": True}, "outage must be", "True"),
    ({"deny_cache": -1}, "deny_cache must be a whole number from 0, e.g. deny_cache=10_000", "-1"),
    ({"deny_cache": 1.5}, "deny_cache must be", "1.5"),
    ({"deny_cache": None}, "deny_cache must be", "None"),
    ({"deny_cache": True}, "deny_cache must be", "True"),
    ({"clock": 7}, "clock must be a Clock such as ManualClock(), or None for the server's", "7"),
    ({"on_event": "print"}, "on_event must be a function that takes a StoreEvent", "'print'"),
]


@pytest.mark.parametrize(("options", "message", "value"), BAD, ids=str)
def test_a_bad_option_is_a_value_error_that_names_the_value_and_shows_a_right_one(
    options: dict[str, Any], message: str, value: str
) -> None:
    with pytest.raises(ValueError, match=" must be ") as caught:
        RedisStore("redis://localhost", **options)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"not {value}" if value != "int" else "not a int")


def test_the_repr_of_a_store_has_its_place_and_prefix() -> None:
    assert repr(RedisStore("redis://localhost/3")) == "RedisStore('localhost:6379', prefix='ratelimit')"


def test_a_store_is_made_without_a_loop_or_a_server() -> None:
    Limiter(["5/s", TokenBucket("9/s", scope="global")], store=RedisStore(f"redis://{HOST}:{free_port()}"))


@pytest.mark.anyio
@pytest.mark.parametrize("bad", [None, 5, b"user", ["user"]])
async def test_a_key_that_is_no_string_is_a_type_error(store: RedisStore, bad: Any) -> None:
    limiter = Limiter("1/s", store=store)
    for verb in (limiter.try_acquire, limiter.peek, limiter.reset):
        with pytest.raises(TypeError, match="a key is a string"):
            await verb(bad)


# Its life


@pytest.mark.anyio
async def test_start_connects_so_that_a_call_finds_it_done(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    assert clients_of(any_redis) == 0
    await store.start()
    assert clients_of(any_redis) == 1
    await Limiter("5/s", store=store).try_acquire("a")
    assert clients_of(any_redis) == 1
    await store.aclose()


@pytest.mark.anyio
async def test_started_twice_it_is_connected_once(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    await store.start()
    await store.start()
    assert clients_of(any_redis) == 1
    await store.aclose()


@pytest.mark.anyio
async def test_a_server_that_is_down_is_no_reason_not_to_start() -> None:
    async with new_store(f"redis://{HOST}:{free_port()}", outage="local") as store:
        assert (await Limiter("5/s", store=store).try_acquire("a")).reason == "degraded"


@pytest.mark.anyio
@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
async def test_a_server_that_wants_another_password_is(credentials: str) -> None:
    with Server(requirepass="right") as server:
        store = new_store(f"redis://{credentials}{HOST}:{server.port}", outage="local")
        with pytest.raises(StoreUnavailable, match=f"{HOST}:{server.port} does not let us in: "):
            await store.start()
        await store.aclose()
        async with new_store(server.url) as right:
            assert (await Limiter("5/s", store=right).try_acquire("a")).reason == "ok"


@pytest.mark.anyio
async def test_it_needs_no_start_and_may_be_used_again_after_it_was_closed(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    limiter = Limiter("5/day", store=store)
    for expected in (4, 3, 2):
        assert (await limiter.try_acquire("a")).remaining == expected
        await store.aclose()
        wait_until(lambda: clients_of(any_redis) == 0, "it has hung up")
    await store.aclose()


@pytest.mark.anyio
async def test_a_block_that_ends_in_an_error_closes_it_too(any_redis: Server) -> None:
    with pytest.raises(RuntimeError, match="theirs"):
        async with new_store(any_redis.url):
            raise RuntimeError("theirs")
    wait_until(lambda: clients_of(any_redis) == 0, "it has hung up")


@pytest.mark.anyio
async def test_checks_in_flight_are_answered_when_it_is_closed(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    await store.start()
    limiter = Limiter("5/day", store=store)
    calls = [asyncio.create_task(limiter.try_acquire(f"key{n}")) for n in range(100)]
    await asyncio.sleep(0)
    await store.aclose()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, StoreUnavailable) or answer.remaining == 4  # type: ignore[union-attr]
    assert not isinstance(answers[0], BaseException)
    wait_until(lambda: clients_of(any_redis) == 0, "it has hung up")


@pytest.mark.anyio
async def test_a_cluster_s_connections_are_closed_too(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        before = [clients_of(node) for node in cluster.nodes]
        for n in range(20):
            await Limiter("5/day", store=store).try_acquire(f"key{n}")
    after = [clients_of(node) for node in cluster.nodes]
    assert all(then > now for then, now in zip(before, after, strict=True))


@pytest.mark.anyio
async def test_a_call_that_was_cancelled_harms_no_other(store: RedisStore) -> None:
    limiter = Limiter("1000/day", store=store)
    calls = [asyncio.create_task(limiter.try_acquire("a")) for _ in range(100)]
    await asyncio.sleep(0)
    for call in calls[::3]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    fine = [answer for n, answer in enumerate(answers) if n % 3]
    assert all(answer.allowed for answer in fine)  # type: ignore[union-attr]
    assert (await limiter.peek("a")).remaining >= 1000 - 100


@pytest.mark.anyio
async def test_after_the_script_was_flushed_each_check_counts_once(any_redis: Server, store: RedisStore) -> None:
    limiter = Limiter("1000/day", store=store)
    for n in range(3):
        any_redis.command("SCRIPT", "FLUSH")
        answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(50)))
        assert sorted(answer.remaining for answer in answers) == list(range(950 - 50 * n, 1000 - 50 * n))


@pytest.mark.anyio
async def test_an_eviction_policy_that_forgets_buckets_is_warned_about_once() -> None:
    with Server(maxmemory="20mb", maxmemory_policy="allkeys-lru") as server:
        store = new_store(server.url)
        with pytest.warns(RateLimitWarning, match="ARL110.*maxmemory-policy allkeys-lru"):
            await store.start()
        await store.aclose()
        await Limiter("5/s", store=store).try_acquire("a")
        await store.aclose()
    with Server(maxmemory="20mb") as server:
        async with new_store(server.url) as store:
            await Limiter("5/s", store=store).try_acquire("a")


# Loops


def test_each_event_loop_has_connections_of_its_own(any_redis: Server) -> None:
    store = new_store(any_redis.url)
    limiter = Limiter("100/day", store=store)

    async def use() -> list[int]:
        answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(10)))
        await store.aclose()
        return [answer.remaining for answer in answers]

    left = [remaining for _ in range(3) for remaining in asyncio.run(use())]
    assert sorted(left) == list(range(70, 100))
    assert clients_of(any_redis) == 0


def test_loops_in_several_threads_use_one_store_at_the_same_time(any_redis: Server) -> None:
    store = new_store(any_redis.url, deny_cache=100)
    limiter = Limiter("150/day", store=store)
    allowed: list[bool] = []

    async def use() -> None:
        for _ in range(10):
            answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(10)))
            allowed.extend(answer.allowed for answer in answers)
        await store.aclose()

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(allowed), sum(allowed)) == (400, 150)


@pytest.mark.anyio
async def test_one_loop_may_close_it_while_another_goes_on(store: RedisStore) -> None:
    limiter = Limiter("100/day", store=store)

    async def use_and_close() -> None:
        assert (await limiter.try_acquire("a")).allowed
        await store.aclose()

    await limiter.try_acquire("a")
    await asyncio.to_thread(lambda: asyncio.run(use_and_close()))
    assert (await limiter.try_acquire("a")).remaining == 97


# Processes


def _check_in_a_child(limiter: Limiter, answers: Any) -> None:
    async def verb() -> list[tuple[bool, str]]:
        got = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(10)))
        await limiter.store.aclose()
        return [(answer.allowed, answer.reason) for answer in got]

    answers.put(asyncio.run(verb()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it may be
@pytest.mark.anyio
async def test_a_child_of_a_fork_leaves_its_parent_s_connections_alone(any_redis: Server) -> None:
    fork = multiprocessing.get_context("fork")
    async with new_store(any_redis.url) as store:
        limiter = Limiter("100/day", store=store)
        assert (await limiter.try_acquire("a")).allowed
        answers: Any = fork.SimpleQueue()
        children = [fork.Process(target=_check_in_a_child, args=(limiter, answers)) for _ in range(2)]
        for child in children:
            child.start()
        mine = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(10)))
        theirs = [answer for _ in children for answer in await asyncio.to_thread(answers.get)]
        for child in children:
            await asyncio.to_thread(child.join, PATIENCE)
        assert [child.exitcode for child in children] == [0, 0]
        assert {(answer.allowed, answer.reason) for answer in mine} | set(theirs) == {(True, "ok")}
        assert (await limiter.peek("a")).remaining == 100 - 1 - 10 - 20
        assert clients_of(any_redis) == 1


# Waste


@pytest.mark.anyio
async def test_a_closed_store_leaves_nothing_to_warn_about(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        await Limiter("5/s", store=store).try_acquire("a")
    del store
    gc.collect()


@pytest.mark.anyio
async def test_limiters_and_keys_that_come_and_go_leave_nothing_behind(any_redis: Server) -> None:
    async with new_store(any_redis.url) as store:
        for n in range(50):
            limiter = Limiter(f"{n + 1}/10ms", store=store)
            await limiter.try_acquire(f"key{n}")
        wait_until(lambda: names_of(any_redis) == [], "all records are gone", seconds=5)


@pytest.mark.anyio
async def test_checks_that_come_together_travel_together(any_redis: Server, store: RedisStore) -> None:
    limiter = Limiter("10000/day", store=store)
    any_redis.command("CONFIG", "RESETSTAT")
    answers = await asyncio.gather(*(limiter.try_acquire(f"key{n % 7}") for n in range(1_000)))
    assert all(answer.allowed for answer in answers)
    assert calls_of_the_script(any_redis) < 50
