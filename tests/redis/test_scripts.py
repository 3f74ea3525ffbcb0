"""The seam for scripts: a script of a user's own runs on the store's server, and its calls travel together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from asgi_ratelimit import Decision, Limiter, MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.scripts import Scripts, ScriptStore
from tests.support.servers import Cluster, Server
from tests.support.stores import PATIENCE, names_of, new_store

pytestmark = pytest.mark.anyio

SOURCE = b"""
function answer(question, place)
  if question[1] == 'fail' then error('no such verb') end
  say(call('INCRBY', KEYS[place] .. ':count', question[3]))
end
"""


class Count:
    """Adds to a count. Without the server it is `instead`."""

    def __init__(self, base: str, number: int, *, verb: str = "add", instead: int | None = None) -> None:
        self.keys, self.arguments = (base,), (verb, number)
        self.instead, self.delivered, self.undelivered = instead, list[int](), list[tuple[int, int | None]]()

    def read(self, reply: Sequence[Any], start: int) -> tuple[int, int]:
        return reply[start], start + 1

    def decide_without_server(self, error: BaseException) -> int:
        if self.instead is None:
            raise error
        return self.instead

    def on_delivered(self, result: int) -> None:
        self.delivered.append(result)

    def on_undelivered(self, result: int, instead: int | None) -> None:
        self.undelivered.append((result, instead))


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        yield store


@pytest.fixture
def scripts(store: RedisStore) -> Scripts:
    return store.scripts(SOURCE, patience=5.0)


async def test_a_redis_store_runs_scripts_and_a_memory_store_does_not(store: RedisStore) -> None:
    assert isinstance(store, ScriptStore)
    assert not isinstance(MemoryStore(), ScriptStore)


async def test_calls_are_made_in_their_order_and_each_gets_its_own_result(scripts: Scripts) -> None:
    base = scripts.keys_of("counts", "me").base
    calls = [Count(base, number) for number in range(1, 201)]
    results = await asyncio.gather(*map(scripts.call, calls))
    assert results == [number * (number + 1) // 2 for number in range(1, 201)]
    assert [call.delivered for call in calls] == [[result] for result in results]


async def test_owners_have_names_of_their_own_that_do_not_reveal_them(any_redis: Server, scripts: Scripts) -> None:
    one, other = scripts.keys_of("counts", "one"), scripts.keys_of("counts", "other")
    await asyncio.gather(scripts.call(Count(one.base, 1)), scripts.call(Count(other.base, 1)))
    assert set(names_of(any_redis)) == {f"{one.base}:count", f"{other.base}:count"}
    assert one.digest("secret") != other.digest("secret")
    assert not any("one" in name.split("}")[1] or "secret" in name for name in names_of(any_redis))


async def test_an_error_in_the_script_is_decided_without_the_server_for_that_call_alone_and_logged_once(
    scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    base = scripts.keys_of("counts", "me").base
    failing, raising, fine = Count(base, 1, verb="fail", instead=-1), Count(base, 1, verb="fail"), Count(base, 1)
    results = await asyncio.gather(*map(scripts.call, (failing, raising, fine)), return_exceptions=True)
    assert (results[0], results[2]) == (-1, 1)
    assert "no such verb" in str(results[1])
    assert failing.delivered == []
    (line,) = [record.message for record in caplog.records if record.name == "asgi_ratelimit"]
    assert "cannot answer a check" in line
    assert "no such verb" in line


async def test_a_call_gets_the_late_result_if_its_caller_was_cancelled(scripts: Scripts) -> None:
    call = Count(scripts.keys_of("counts", "me").base, 7)
    scripts.call(call).cancel()
    async with asyncio.timeout(PATIENCE):
        while not call.undelivered:
            await asyncio.sleep(0.001)
    assert (call.delivered, call.undelivered) == ([], [(7, None)])


async def test_in_a_cluster_the_records_of_an_owner_are_in_one_slot(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        scripts = store.scripts(SOURCE, patience=5.0)
        bases = [scripts.keys_of("counts", f"owner {number}").base for number in range(30)]
        assert await asyncio.gather(*(scripts.call(Count(base, 1)) for base in bases)) == [1] * 30
        assert len({cluster.slot_of(base) for base in bases}) > 20
        assert all(cluster.slot_of(base) == cluster.slot_of(f"{base}:count") for base in bases)


async def test_calls_of_a_script_travel_beside_checks_of_limiters(store: RedisStore, scripts: Scripts) -> None:
    limiter, base = Limiter("5/day", store=store), scripts.keys_of("test", "owner").base
    count = Count(base, 3)
    first, number, second = await asyncio.gather(
        limiter.try_acquire("a"), scripts.call(count), limiter.try_acquire("a")
    )
    assert (first.remaining, number, second.remaining) == (4, 3, 3)
    together = [scripts.call(Count(base, 1)) if i % 3 else limiter.peek("a") for i in range(9)]
    answers = await asyncio.wait_for(asyncio.gather(*together), 5.0)
    assert [answer.remaining if isinstance(answer, Decision) else answer for answer in answers] == [
        3, 4, 5, 3, 6, 7, 3, 8, 9,
    ]  # fmt: skip
