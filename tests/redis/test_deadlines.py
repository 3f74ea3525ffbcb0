"""A check is answered in time. Its deadline starts when it comes, and a check that is late is not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from asgi_ratelimit import Decision, Limiter, MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.limits import Scope
from asgi_ratelimit.redis import RedisStore, StoreEvent
from tests.support.asgi import ask, hello
from tests.support.server_counts import calls
from tests.support.servers import Cluster, Proxy, Server
from tests.support.stores import new_store

SLACK = 0.5  # seconds by which a busy machine may be late
MOST_CALLS, MOST_IN_A_CALL = 4, 128
SCOPES: tuple[Scope, ...] = ("user", "shared", "global")

pytestmark = pytest.mark.anyio


async def timed(limiter: Limiter, key: str = "a") -> tuple[Decision, float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    return await limiter.try_acquire(key), loop.time() - started


def start(limiter: Limiter, key: str = "a") -> asyncio.Task[tuple[Decision, float]]:
    return asyncio.ensure_future(timed(limiter, key))


async def test_no_check_waits_for_a_silent_server_longer_than_the_timeout(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=1.0) as store:
        limiter = Limiter("500/day", store=store)
        await limiter.peek("a")
        proxy.silence()
        tasks = [start(limiter)]
        for _ in range(3):
            await asyncio.sleep(0.25)  # the arrivals have to be spread
            tasks += [start(limiter) for _ in range(50)]
        for decision, seconds in await asyncio.gather(*tasks):
            assert decision.reason == "degraded"
            assert seconds <= 1.0 + SLACK
        assert tasks[-1].result()[1] <= 0.25 + SLACK  # the first one's deadline trips the breaker
        proxy.pass_through()


async def test_a_check_that_comes_during_a_long_call_is_answered_in_time(proxy: Proxy) -> None:
    async with RedisStore(proxy.url, timeout=2.0) as store:
        limiter = Limiter("500/day", store=store)
        await limiter.peek("a")
        proxy.delay(1.3)
        first = start(limiter)
        await asyncio.sleep(0)
        second = start(limiter)  # sent after the first call's reply, it would be answered after 2.6 s
        assert (await first)[0].reason == "ok"
        decision, seconds = await second
        assert decision.reason == "ok"
        assert seconds <= 2.0 + SLACK
        proxy.pass_through()


async def test_a_check_that_was_not_sent_in_time_is_never_sent(proxy: Proxy, any_redis: Server) -> None:
    async with RedisStore(proxy.url, timeout=0.5) as store:
        limiter = Limiter("5000/day", store=store)
        await limiter.peek("a")
        before = calls(any_redis)
        proxy.silence()
        answers = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(1000)))
        assert {answer.reason for answer in answers} == {"degraded"}
        assert sum(answer.allowed for answer in answers) == 1000
        proxy.pass_through()
        async with asyncio.timeout(20):
            while (answer := await limiter.peek("a")).reason == "degraded":
                await asyncio.sleep(0.01)
        # The calls that were under way when the silence started: a few at most, and the one of this test.
        assert calls(any_redis) - before <= MOST_CALLS + 1
        assert answer.remaining >= 5000 - MOST_CALLS * MOST_IN_A_CALL


async def test_limits_in_several_slots_share_one_deadline(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with new_store(cluster.url) as store:
        limiter = Limiter([TokenBucket("2/day", scope=scope) for scope in SCOPES], store=store)
        await limiter.peek("a", per="x")
        session, dues = store.session(), list[float]()
        put = session.put

        def put_and_note(check: Any) -> None:
            dues.append(check.due)
            put(check)

        monkeypatch.setattr(session, "put", put_and_note)
        assert (await limiter.try_acquire("a", per="x")).allowed
        assert len(dues) == 3
        assert len(set(dues)) == 1


async def test_limits_in_several_slots_are_decided_without_a_server_that_has_used_up_their_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_store(cluster.url, outage="local") as store:
        limiter = Limiter([TokenBucket("2/day", scope=scope) for scope in SCOPES], store=store)
        await limiter.peek("a", per="x")
        session = store.session()
        put, sent = session.put, list[Any]()

        def put_late(check: Any) -> None:
            sent.append(check)
            monkeypatch.setattr(session.loop, "time", lambda: check.due)  # when the reply comes, no time is left
            put(check)

        monkeypatch.setattr(session, "put", put_late)
        answer = await limiter.try_acquire("a", per="x")
        monkeypatch.undo()
        assert len(sent) == 1
        assert [part.reason for part in answer.parts].count("degraded") >= 2


class Silent(MemoryStore):
    """A store with a server that does not answer in time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = self.decisions = 0

    def open(self, name: str, policies: Sequence[Policy]) -> Any:
        buckets, store = super().open(name, policies), self

        class Degraded:
            peek, refund, reset, block = buckets.peek, buckets.refund, buckets.reset, buckets.block

            async def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
                store.waits += 1
                return self.decide_without_server(key, cost, per)

            def decide_without_server(self, key: str, cost: int, per: str) -> Decision:
                store.decisions += 1
                return buckets.decide(key, cost, per).as_degraded()

        return Degraded()


async def test_a_request_waits_once_for_a_server_that_does_not_answer() -> None:
    store = Silent()
    app: Any = hello
    for number in range(3):
        app = RateLimitMiddleware(app, limit="2/hour", store=store, name=f"door{number}")
    assert [(await ask(app)).status for _ in range(3)] == [200, 200, 429]
    assert (store.waits, store.decisions) == (3, 7)


async def test_a_request_waits_for_each_of_its_stores() -> None:
    stores = [Silent(), Silent()]
    app: Any = hello
    for number, store in enumerate(stores * 2):
        app = RateLimitMiddleware(app, limit="9/hour", store=store, name=f"door{number}")
    assert (await ask(app)).status == 200
    assert [(store.waits, store.decisions) for store in stores] == [(1, 2), (1, 2)]


@pytest.mark.parametrize("kind", ["single", "cluster"])
async def test_every_check_of_a_request_that_misses_the_server_is_counted(
    request: pytest.FixtureRequest, kind: str
) -> None:
    server = request.getfixturevalue("any_redis" if kind == "single" else "cluster")
    nodes = [server] if kind == "single" else server.nodes
    events: list[StoreEvent] = []
    async with RedisStore(server.url, timeout=0.5, on_event=events.append) as store:
        app: Any = hello
        for number in range(3):
            app = RateLimitMiddleware(app, limit="9/hour", store=store, name=f"door{number}", key=lambda conn: "ada")
        for node in nodes:
            node.pause()
        for _ in range(2):
            assert (await ask(app)).status == 200
        for node in nodes:
            node.resume()
        degraded = 6
        while "up" not in [event.kind for event in events]:
            degraded += (await Limiter("9/hour", store=store).peek("ada")).reason == "degraded"  # it may start a probe
            await asyncio.sleep(0.01)
    assert sum(event.checks for event in events) == degraded
    assert "not used any more" not in " ".join(event.cause for event in events)
