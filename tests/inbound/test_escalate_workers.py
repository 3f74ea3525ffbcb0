"""Workers count the refusals of a key together over Redis, though most of them never reach it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from asgi_ratelimit import Decision, Escalate, Limiter, Policy, RateLimitMiddleware, by_header
from asgi_ratelimit.escalation import Kept, Round, Strikes, forgive
from asgi_ratelimit.events import Event
from asgi_ratelimit.inbound import refusal_count
from asgi_ratelimit.redis import RedisStore
from tests.support.asgi import ask, hello, statuses
from tests.support.hammering_process import ESCALATES, store_at
from tests.support.servers import KINDS, Server
from tests.support.stores import calls_of_the_script, new_store
from tests.support.workers import WorkerProcesses

pytestmark = pytest.mark.anyio

PATIENCE = 10.0
ESCALATE = ESCALATES["site"]


class Workers(WorkerProcesses):
    """Processes that serve one app."""

    def __init__(self, url: str) -> None:
        super().__init__("tests.support.hammering_process", url)
        self.began: list[float] = []

    def hammer(self, app: str, key: str, *times: int) -> Counter[str]:
        """So many requests to each of the workers at once. Returns the statuses."""
        at_work = self.processes[: len(times)]
        for process, number in zip(at_work, times, strict=True):
            self.say(process, [app, key, number])
        total = Counter[str]()
        for process in at_work:
            counted, began = self.answer(process)
            total.update(counted)
            self.began += began
        return total

    async def have_begun(self, *seconds: float) -> None:
        """Return once these blocks have begun, and no others."""

        async def have() -> bool:
            self.hammer("site", "", 0, 0, 0, 0)
            return len(self.began) >= len(seconds)

        await until(have)
        assert self.began == [*seconds]


@pytest.fixture(scope="module")
def workers(fresh_server: Callable[[str], Server]) -> Iterator[Workers]:
    started = Workers(fresh_server(KINDS[0]).url)
    yield started
    started.end()


@pytest.fixture
async def store(workers: Workers) -> AsyncIterator[RedisStore]:
    """Of this process, which is the fifth worker."""
    workers.began.clear()
    async with store_at(workers.url, workers.prefix) as store:
        yield store


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so. The refusals are counted beside the answers."""
    until = time.monotonic() + PATIENCE
    while not await question():
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


def left_of(store: RedisStore, name: str, key: str) -> Callable[[], Awaitable[int]]:
    """How many refusals are left to a key in its first round."""
    counts = store.open(f"{name}:refusals", (Policy(f"{name}:refusals", Kept("20/60s")),))

    async def left() -> int:
        pending = counts.peek(key, 1, "")
        return (pending if isinstance(pending, Decision) else await pending).remaining

    return left


async def test_refused_requests_cost_redis_next_to_nothing_and_allowed_ones_nothing(any_redis: Server) -> None:
    calls = {}
    for escalate in (None, Escalate(after=10_000, within=60, block=(60,))):
        async with new_store(any_redis.url) as store:
            app = RateLimitMiddleware(hello, limit="5/hour", key=by_header("x-key"), store=store, escalate=escalate)
            await ask(app, headers=[("x-key", "first")])
            any_redis.command("CONFIG", "RESETSTAT")
            assert await statuses(app, 5, headers=[("x-key", "ada")]) == [200] * 5
            assert calls_of_the_script(any_redis) == 5
            started = time.monotonic()
            assert await statuses(app, 1000, headers=[("x-key", "ada")]) == [429] * 1000
            pauses = (time.monotonic() - started) / 0.1
            calls[escalate] = calls_of_the_script(any_redis)
    without, counting = calls.values()
    assert without < counting <= without + pauses + 2


async def test_the_twentieth_refusal_in_any_of_the_workers_begins_one_block(
    workers: Workers, store: RedisStore
) -> None:
    limiter, left = Limiter("5/hour", store=store, name="site"), left_of(store, "site", "header:x-key:ada")

    async def is_blocked() -> bool:
        return (await limiter.peek("header:x-key:ada")).reason == "blocked"

    async def one_is_left() -> bool:
        return await left() == 1

    assert workers.hammer("site", "ada", 6, 6, 6, 6) == {"200": 5, "429": 19}
    await until(one_is_left)
    assert not await is_blocked()
    assert workers.hammer("site", "ada", 1) == {"429": 1}
    await until(is_blocked)
    assert workers.hammer("site", "ada", 50, 50, 50, 50) == {"429": 200}
    await workers.have_begun(60)
    assert 40 < (await limiter.peek("header:x-key:ada")).retry_after <= 60
    assert workers.hammer("site", "bob", 2, 2) == {"200": 4}

    await limiter.reset("header:x-key:ada")  # as `asgi-ratelimit reset` does
    await forgive("header:x-key:ada", store=store, name="site")
    strikes = Strikes(ESCALATE.block, ESCALATE.memory, store=store, name="site")
    assert await strikes.round_of("header:x-key:ada") == Round(0, "")
    workers.hammer("site", "ada", 20, 20, 20, 20)  # some of them still know that it was refused
    assert not await is_blocked()


async def test_the_second_block_is_longer_and_begins_once(workers: Workers, store: RedisStore) -> None:
    limiter, key = Limiter("5/hour", store=store, name="quick"), "header:x-key:eve"

    async def is_blocked_for_long() -> bool:
        workers.hammer("quick", "eve", 25, 25, 25, 25)
        present = await limiter.peek(key)
        return present.reason == "blocked" and present.retry_after > 500

    await until(is_blocked_for_long)
    assert workers.hammer("quick", "eve", 100, 100, 100, 100) == {"429": 400}
    await workers.have_begun(0.5, 600)


async def test_a_process_counts_a_bounded_number_of_keys_in_one_pause(
    any_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_count, "_MOST_KEYS", 2)
    async with new_store(any_redis.url) as store:
        limiter = Limiter("1/hour", store=store, name="app")
        count = refusal_count.RefusalCount(Escalate(after=2, within=60, block=(60,)), store, "app")
        await limiter.try_acquire("ada")
        refusal = await limiter.try_acquire("ada")

        async def blocked() -> list[str]:
            return [key for key in "abcde" if (await limiter.peek(key)).reason == "blocked"]

        async def are_two() -> bool:
            return len(await blocked()) == 2

        for key in "abcde" * 2:
            await count.count(refusal, limiter, key, enforced=True)
        await until(are_two)
        assert await blocked() == ["a", "b"]
        for key in "cdeab" * 2:
            await count.count(refusal, limiter, key, enforced=True)

        async def are_four() -> bool:
            return await blocked() == ["a", "b", "c", "d"]

        await until(are_four)


async def test_a_process_counts_by_itself_in_an_outage() -> None:
    events: list[Event] = []
    store = RedisStore("redis://127.0.0.1:1", timeout=0.5, observers=[events.append])
    async with store:
        app = RateLimitMiddleware(hello, limit="5/hour", store=store, escalate=ESCALATE)
        limiter = Limiter("5/hour", store=store, name="app")

        async def is_blocked() -> bool:
            return (await limiter.peek("203.0.113.7")).reason == "blocked"

        assert await statuses(app, 30) == [200] * 5 + [429] * 25
        await until(is_blocked)
    assert [event.seconds for event in events if event.kind == "escalated"] == [60]


async def test_an_outage_that_fails_closed_begins_no_block() -> None:
    async with RedisStore("redis://127.0.0.1:1", timeout=0.5, outage="closed") as store:
        app = RateLimitMiddleware(hello, limit="5/hour", store=store, escalate=ESCALATE)
        assert await statuses(app, 30) == [503] * 30


def test_an_app_may_be_served_by_one_event_loop_after_another(any_redis: Server) -> None:
    """As by several test clients. Each counts what is left before its store is closed."""
    events: list[Event] = []
    store = new_store(any_redis.url, observers=[events.append])
    app = RateLimitMiddleware(hello, limit="5/hour", store=store, escalate=ESCALATE)

    async def serve(times: int) -> None:
        await statuses(app, times)
        await store.aclose()

    asyncio.run(serve(15))
    asyncio.run(serve(9))
    assert not [event for event in events if event.kind == "escalated"]
    asyncio.run(serve(1))
    assert [event.seconds for event in events if event.kind == "escalated"] == [60]
