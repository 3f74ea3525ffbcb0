"""Discord's clients are told a moment each; everybody else the exact one."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware, SlidingWindow, TokenBucket
from asgi_ratelimit.inbound import stagger as turns
from asgi_ratelimit.inbound.stagger import Stagger
from asgi_ratelimit.testing import ManualClock

BOT = "DiscordBot (https://github.com/Rapptz/discord.py 2.7.1) Python/3.11"


def told(agent: str, clock: ManualClock, pauses: list[float]) -> list[float]:
    """What the body says to each of several refused calls, with these pauses before them."""
    app = Starlette()
    app.add_middleware(RateLimitMiddleware, limit="5/5s", store=MemoryStore(clock=clock))
    client = TestClient(app, headers={"user-agent": agent})
    for _ in range(5):
        client.get("/")
    answers = []
    for pause in pauses:
        clock.advance(pause)
        answer = client.get("/")
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= answer.json()["retry_after"]
        answers.append(answer.json()["retry_after"])
    return answers


def test_refused_calls_of_a_bot_come_back_one_by_one_and_none_later_than_the_bucket_is_full() -> None:
    assert told(BOT, ManualClock(), [0] * 7) == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0]
    assert told(BOT, ManualClock(), [0, 0, 0.5]) == [1.0, 2.0, 2.5]


def test_everybody_else_is_told_the_exact_moment() -> None:
    assert told("Mozilla/5.0", ManualClock(), [0, 0, 0.5, 0.25]) == [1.0, 1.0, 0.5, 0.25]


def test_a_bot_that_obeys_is_let_in_when_it_was_told() -> None:
    clock = ManualClock()
    app = Starlette()
    app.add_middleware(RateLimitMiddleware, limit="5/5s", store=MemoryStore(clock=clock))
    client = TestClient(app, headers={"user-agent": BOT})
    for _ in range(5):
        client.get("/")
    waits = [client.get("/").json()["retry_after"] for _ in range(5)]
    passed = 0.0
    for wait in waits:
        clock.advance(wait - passed)
        passed = wait
        assert client.get("/").status_code == 404


@pytest.mark.anyio
async def test_a_block_is_told_as_it_is() -> None:
    limiter = Limiter("5/s", store=MemoryStore(clock=ManualClock()))
    await limiter.block("a", 60)
    refusal = await limiter.try_acquire("a")
    assert [Stagger().next(refusal, 0).retry_after for _ in range(2)] == [60.0, 60.0]


@pytest.mark.anyio
async def test_each_bucket_has_turns_of_its_own_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST_BUCKETS", 2)
    limiter = Limiter(SlidingWindow("2/2s"), store=MemoryStore(clock=ManualClock()))
    some = Stagger()
    for key in "abc":
        await limiter.try_acquire(key, 2)
        assert some.next(await limiter.try_acquire(key), 10).retry_after == 2.0
    assert len(some._last_us) == 2


@pytest.mark.anyio
async def test_a_flood_of_refused_calls_moves_the_moment_by_a_handful_of_calls() -> None:
    clock = ManualClock()
    limiter = Limiter("100/day", store=MemoryStore(clock=clock))
    await limiter.try_acquire("a", 100)
    some = Stagger()
    waits = [some.next(await limiter.try_acquire("a"), clock.now_us()).retry_after for _ in range(300)]
    assert waits[:3] == [864.0, 1728.0, 2592.0]
    assert max(waits) == 6 * 864.0


@pytest.mark.anyio
@pytest.mark.parametrize("scope", ["global", "shared"])
async def test_a_bucket_that_others_share_keeps_its_moment(scope: Any) -> None:
    limiter = Limiter(TokenBucket("100/day", scope=scope), store=MemoryStore(clock=ManualClock()))
    await limiter.try_acquire("a", 100)
    some = Stagger()
    assert {some.next(await limiter.try_acquire("a"), 0).retry_after for _ in range(300)} == {864.0}
