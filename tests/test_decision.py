"""What a decision tells."""

from __future__ import annotations

import pytest

from asgi_ratelimit import Decision, Limiter, MemoryStore, TokenBucket
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


async def test_it_names_its_bucket_alike_for_every_key_and_differently_for_every_limit_and_name() -> None:
    store = MemoryStore()
    one = [await Limiter("5/s", store=store, name="x").try_acquire(key) for key in "abc"]
    assert len({d.bucket for d in one}) == 1
    assert len(one[0].bucket) == 32
    assert set(one[0].bucket) <= set("0123456789abcdef")
    others = [Policy("y", TokenBucket("5/s")), Policy("x", TokenBucket("6/s")), Policy("x", TokenBucket("5/s", 6))]
    assert len({one[0].bucket, *(policy.bucket for policy in others)}) == 4


async def test_the_same_bucket_is_named_alike_in_every_process() -> None:
    assert Policy("app", TokenBucket("5/5s")).bucket == "8ee3caa6b9e39fc3d4773533167fef6a"


async def test_equal_situations_are_equal_decisions() -> None:
    clock = ManualClock()
    answers: list[Decision] = []
    for _ in range(2):
        answers.append(await Limiter("5/s", store=MemoryStore(clock=clock)).try_acquire("a"))
        clock.advance(100)
    assert answers[0] == answers[1]
    assert answers[0] != await Limiter("5/s").try_acquire("a", 2)
    assert answers[0] != "a decision"


async def test_it_shows_what_it_says_and_not_who_asked() -> None:
    text = repr(await Limiter("5/5s", store=MemoryStore(clock=ManualClock())).try_acquire("ada@example.org"))
    assert "allowed=True, limit=5, remaining=4, reset_after=1.0, retry_after=0.0" in text
    assert "ada" not in text


async def test_a_single_limit_is_its_own_only_part() -> None:
    answer = await Limiter("5/5s").try_acquire("a")
    assert answer.parts == (answer,)


async def test_it_is_not_changed_by_what_comes_after() -> None:
    clock = ManualClock()
    limiter = Limiter(["3/s", "9/m"], store=MemoryStore(clock=clock))
    first = await limiter.try_acquire("a")
    clock.advance(0.5)
    await limiter.try_acquire("a", 2)
    assert first.remaining == 2
    assert first.reset_after == pytest.approx(1 / 3, abs=1e-6)
