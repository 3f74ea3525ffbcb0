"""Replies that no call of a script draws: checked before they are believed, and bounded before they are parsed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limiter, TokenBucket
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.redis import RedisStore, StoreEvent
from asgi_ratelimit.redis.calls import is_answer
from asgi_ratelimit.redis.connection import NodeConnection
from tests.support.listener import Listener
from tests.support.servers import Cluster, Proxy, Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

STRANGE = {
    "no time": b"*6\r\n:1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
    "the time of another day, and another number": b"*5\r\n:1\r\n:1\r\n:1\r\n:0\r\n:9999\r\n",
    "nothing": b"*0\r\n",
    "no list": b":1\r\n",
    "a list of lists": b"*3\r\n*1\r\n:1\r\n*0\r\n:1\r\n",
    "more than there is": b"*1000000000\r\n",
    "more than there is, inside": b"*2\r\n*1000000000\r\n",
    "a map of that many": b"%1000000000\r\n",
    "a longer string than there is": b"$1000000000\r\nx",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an address of a cluster": b"-MOVED 1\r\n",
    "an address that is none": b"-ASK 1 here\r\n",
}


@pytest.mark.parametrize("reply", STRANGE.values(), ids=STRANGE)
async def test_a_strange_reply_is_an_outage_that_changes_nothing(proxy: Proxy, reply: bytes) -> None:
    events: list[StoreEvent] = []
    async with RedisStore(proxy.url, timeout=5.0, on_event=events.append) as store:
        limiter = Limiter("5/day", store=store)
        before = await limiter.try_acquire("a")
        await asyncio.to_thread(proxy.reply, reply, to=["EVALSHA"])
        async with asyncio.timeout(4):  # at once; only an unfinished reply takes until the timeout
            decision = await limiter.try_acquire("a") if "longer" not in str(reply) else before
        assert decision.reason == ("degraded" if decision is not before else "ok")
        assert abs(decision.now_us / 1e6 - time.time()) < 600
        assert [event.kind for event in events][:1] == ["down"]
        await asyncio.to_thread(proxy.pass_through)


@pytest.mark.parametrize("state", [b"$1\r\nx\r\n$1\r\ny\r\n", b"$-1\r\n:0\r\n", b",1.5\r\n:0\r\n"])
@pytest.mark.parametrize("limit", [TokenBucket("5/day"), LeakyBucket("1/day", queue=4), FixedWindow("5/day")], ids=repr)
async def test_a_state_that_is_no_number_is_neither_believed_nor_remembered(
    proxy: Proxy, limit: Limit, state: bytes
) -> None:
    async with RedisStore(proxy.url, timeout=5.0) as store:
        limiter = Limiter(limit, store=store)
        await limiter.try_acquire("a")
        await asyncio.to_thread(proxy.reply, b"*5\r\n:1\r\n:1\r\n" + state + b":2\r\n", to=["EVALSHA"])
        decisions = [await limiter.try_acquire("a") for _ in range(6)]
        await asyncio.to_thread(proxy.pass_through)
    assert [decision.allowed for decision in decisions] == [True] * 4 + [False] * 2
    assert {decision.reason for decision in decisions} == {"degraded"}
    assert abs(decisions[0].now_us / 1e6 - time.time()) < 600


async def test_a_reply_too_many_answers_no_check(proxy: Proxy) -> None:
    """The replies of a connection are one too far, as behind a proxy that has mixed up two clients."""
    events: list[StoreEvent] = []
    async with RedisStore(proxy.url, timeout=5.0, on_event=events.append) as store:
        full, empty = Limiter("5/day", store=store), Limiter("1/day", store=store, name="other")
        await empty.try_acquire("b")
        now_us = (await full.peek("a")).now_us
        stale = b"*4\r\n:%d\r\n:1\r\n:%d\r\n:0\r\n" % (now_us, now_us + 1) + b":2\r\n"
        await asyncio.to_thread(proxy.reply, stale, to=["EVALSHA"])
        assert (await empty.try_acquire("b")).reason == "degraded"
        await asyncio.to_thread(proxy.pass_through)
    assert [event.kind for event in events][:1] == ["down"]


async def test_a_reply_while_none_is_expected_ends_the_connection(proxy: Proxy) -> None:
    events: list[StoreEvent] = []
    async with RedisStore(proxy.url, timeout=5.0, on_event=events.append) as store:
        limiter = Limiter("5/day", store=store)
        await asyncio.to_thread(proxy.reply, b"-ERR one\r\n-ERR two\r\n", to=["EVALSHA"])
        await limiter.try_acquire("a")
        await asyncio.to_thread(proxy.pass_through)
        async with asyncio.timeout(10):
            while (await limiter.peek("a")).reason == "degraded":
                await asyncio.sleep(0.01)
    assert [event.kind for event in events] == ["down", "up"]


@pytest.mark.parametrize(
    "reply", [b"*1000000000\r\n", b"+OK\r\n", b":1\r\n", b"*0\r\n", b"\r\n", b"HTTP/1.1 400 No\r\n"]
)
async def test_a_server_that_is_none_is_an_outage_at_the_start(reply: bytes) -> None:
    events: list[StoreEvent] = []
    with Listener(reply) as listener:
        async with RedisStore(f"redis://127.0.0.1:{listener.port}", on_event=events.append):
            pass
    assert [event.kind for event in events] == ["down"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ([1_700_000_000_000_000, 1, 7], True),
        ([1_700_000_000_000_000, 1, 6], False),
        ([1, 2], False),
        ([None, 1, 7], False),
        ([0, 1, 7], False),
        ([b"1", 1, 7], False),
    ],
)
async def test_a_reply_has_the_time_and_the_number_of_its_call(reply: list[Any], expected: bool) -> None:
    assert is_answer(reply, 7) is expected


class Transport:
    def __init__(self) -> None:
        self.aborted = False
        self.write = list[bytes]().append

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def abort(self) -> None:
        self.aborted = True


class Opened:
    def __init__(self) -> None:
        self.transport = Transport()
        self._writer = self


@pytest.mark.parametrize("cut", range(1, 13))
async def test_an_announcement_in_two_parts_is_noticed(cut: int) -> None:
    replies: list[Any] = []
    lost: list[Exception] = []
    opened: Any = Opened()
    connection = NodeConnection(opened, lambda _, reply: replies.append(reply), lambda _, error: lost.append(error))
    for data in (b"*1\r\n$3\r\nabc\r\n", b"*1000000000\r\n"[:cut], b"*1000000000\r\n"[cut:]):
        if not lost:
            connection.data_received(data)
    assert replies == [[b"abc"]]
    assert len(lost) == 1
    assert opened.transport.aborted


async def test_long_strings_and_many_elements_are_read() -> None:
    replies: list[Any] = []
    lost: list[Exception] = []
    opened: Any = Opened()
    connection = NodeConnection(opened, lambda _, reply: replies.append(reply), lambda _, error: lost.append(error))
    many = b"*9999\r\n" + b":1\r\n" * 9999
    long = b"$8000000\r\n" + b"12345678" + b"*1000000000" * 727_272 + b"\r\n"
    connection.data_received(many + long)
    assert (len(replies[0]), len(replies[1]), lost) == (9999, 8_000_000, [])


@pytest.mark.parametrize(
    "reply",
    [
        b"*0\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b":1\r\n",
        b"*1\r\n*2\r\n:0\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:10000000000\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\na\r\n:99999999\r\n",
        b"*1\r\n*3\r\n$1\r\n0\r\n:5\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:5\r\n*-1\r\n",
        b"*1000000000\r\n",
    ],
)
async def test_a_map_of_a_cluster_that_is_none_is_an_outage(cluster: Cluster, reply: bytes) -> None:
    events: list[StoreEvent] = []
    with Proxy(cluster.nodes[0]) as proxy:
        proxy.reply(reply, to=["CLUSTER"])
        url = f"redis+cluster://127.0.0.1:{proxy.port}"
        async with RedisStore(url, timeout=5.0, on_event=events.append) as store:
            assert (await Limiter("5/day", store=store).try_acquire("a")).reason == "degraded"
    assert [event.kind for event in events] == ["down"]


async def test_no_caller_waits_for_ever_for_a_call_that_cannot_be_written(
    any_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*commands: object) -> bytes:
        raise RuntimeError("no memory")

    async with new_store(any_redis.url, outage="closed") as store:
        limiter = Limiter("5/day", store=store)
        assert (await limiter.try_acquire("a")).allowed
        monkeypatch.setattr("asgi_ratelimit.redis.node.write", fails)
        checks = [limiter.try_acquire(key) for key in "abcd"]
        answers = await asyncio.gather(*checks, return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
