"""The behaviour of a store that takes several keys in one call, as tests. Those of the StoreContract include them."""

from __future__ import annotations

import asyncio

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, LeakyBucket, Limit, SlidingWindow, TokenBucket
from asgi_ratelimit.store import Store

__all__ = ["KeyContract"]

ADDRESS, OTHER_ADDRESS = "203.0.113.7", "203.0.113.8"
ALICE, BOB = "account:alice", "account:bob"


def pairs() -> list[list[Limit]]:
    """An address may do more than an account, by each kind of limit."""
    return [
        [TokenBucket("5/day"), TokenBucket("3/day", name="account")],
        [LeakyBucket("5/day", queue=4), LeakyBucket("3/day", queue=2, name="account")],
        [FixedWindow("5/day"), FixedWindow("3/day", name="account")],
        [SlidingWindow("5/day"), TokenBucket("3/day")],
    ]


class KeyContract:
    """A call with a tuple has one key for each limit of the list. A store without `takes_several_keys` refuses it."""

    def make_store(self, clock: ManualClock) -> Store:
        """Return a new, empty store that reads its time from this clock."""
        raise NotImplementedError

    def _limiters(self) -> list[Limiter]:
        made = [Limiter(limits, store=self.make_store(ManualClock())) for limits in pairs()]
        return [limiter for limiter in made if limiter.takes_several_keys]

    async def test_each_limit_counts_its_own_key(self) -> None:
        for limiter in self._limiters():
            await limiter.try_acquire((ADDRESS, ALICE))
            await limiter.try_acquire((ADDRESS, BOB), 2)
            assert await _left(limiter, (ADDRESS, ALICE)) == [2, 2]
            assert await _left(limiter, (ADDRESS, BOB)) == [2, 1]
            assert await _left(limiter, (OTHER_ADDRESS, ALICE)) == [5, 2]

    async def test_a_key_that_refuses_lets_no_other_be_charged(self) -> None:
        for limiter in self._limiters():
            answers = [await limiter.try_acquire((ADDRESS, ALICE)) for _ in range(4)]
            assert [answer.allowed for answer in answers] == [True, True, True, False]
            assert (answers[3].limit, answers[3].remaining) == (3, 0)
            assert await _left(limiter, (ADDRESS, BOB)) == [2, 3]
            answers = [await limiter.try_acquire((ADDRESS, BOB)) for _ in range(3)]
            assert [answer.allowed for answer in answers] == [True, True, False]
            assert answers[2].limit == 5
            assert await _left(limiter, (OTHER_ADDRESS, BOB)) == [5, 1]

    async def test_crossing_keys_are_never_overcharged(self) -> None:
        store = self.make_store(ManualClock())
        limiter = Limiter([TokenBucket("5/day"), TokenBucket("5/day", name="account")], store=store)
        if not limiter.takes_several_keys:
            return
        crossing = [(ADDRESS, ALICE), (OTHER_ADDRESS, ALICE), (ADDRESS, BOB), (OTHER_ADDRESS, BOB)] * 5
        answers = await asyncio.gather(*(limiter.try_acquire(keys) for keys in crossing))
        allowed = [keys for keys, answer in zip(crossing, answers, strict=True) if answer.allowed]
        for address, account in ((ADDRESS, ALICE), (OTHER_ADDRESS, BOB)):
            used = [sum(keys[0] == address for keys in allowed), sum(keys[1] == account for keys in allowed)]
            assert max(used) <= 5
            assert await _left(limiter, (address, account)) == [5 - count for count in used]
        assert allowed

    async def test_a_string_is_the_key_of_all_limits(self) -> None:
        for limiter in self._limiters():
            await limiter.try_acquire(ALICE)
            await limiter.try_acquire((ALICE, ALICE))
            assert await _left(limiter, ALICE) == [3, 1]
            assert await _left(limiter, (ADDRESS, ALICE)) == [5, 1]

    async def test_a_refund_and_a_settlement_reach_each_key(self) -> None:
        for limiter in self._limiters():
            charged = await limiter.try_acquire((ADDRESS, ALICE), 3)
            await limiter.settle(charged, 1)
            assert await _left(limiter, (ADDRESS, ALICE)) == [4, 2]
            charged = await limiter.try_acquire((OTHER_ADDRESS, ALICE))
            for _ in range(2):
                await limiter.refund(charged)
                assert await _left(limiter, (OTHER_ADDRESS, ALICE)) == [5, 2]

    async def test_a_block_of_one_key_refuses_each_call_with_it(self) -> None:
        for limiter in self._limiters():
            await limiter.block(ALICE, 30)
            await limiter.block(ADDRESS, 60)
            for answer in (await limiter.try_acquire((ADDRESS, ALICE)), await limiter.peek((ADDRESS, ALICE))):
                assert (answer.allowed, answer.limit, answer.retry_after) == (False, 5, 60.0)
                assert answer.reason in ("blocked", "cached")
            refused = await limiter.try_acquire((OTHER_ADDRESS, ALICE))
            assert (refused.allowed, refused.limit, refused.retry_after) == (False, 3, 30.0)
            assert not (await limiter.try_acquire(ALICE)).allowed
            assert (await limiter.try_acquire((OTHER_ADDRESS, BOB))).allowed
            await limiter.block((ADDRESS, ALICE), 0)
            assert await _left(limiter, (ADDRESS, ALICE)) == [5, 3]

    async def test_a_reset_fills_each_bucket_and_lifts_each_block(self) -> None:
        for limiter in self._limiters():
            await limiter.try_acquire((ADDRESS, ALICE), 2)
            await limiter.try_acquire((OTHER_ADDRESS, BOB), 2)
            await limiter.block((ADDRESS, ALICE), 60)
            await limiter.reset((ADDRESS, BOB))
            assert await _left(limiter, (ADDRESS, BOB)) == [5, 3]
            assert not (await limiter.peek((ADDRESS, ALICE))).allowed
            await limiter.block(ALICE, 0)
            assert await _left(limiter, (OTHER_ADDRESS, ALICE)) == [3, 1]

    async def test_global_and_shared_limits_have_no_key_but_its_block_counts(self) -> None:
        store = self.make_store(ManualClock())
        scopes: list[Limit] = [TokenBucket("9/day", scope="global"), TokenBucket("8/day", scope="shared")]
        limiter = Limiter([*scopes, TokenBucket("7/day")], store=store)
        if not limiter.takes_several_keys:
            return
        await limiter.try_acquire((ADDRESS, OTHER_ADDRESS, ALICE), per="x")
        await limiter.try_acquire((BOB, BOB, BOB), per="x")
        parts = (await limiter.peek((ADDRESS, ADDRESS, ALICE), per="x")).parts
        assert {part.scope: part.remaining for part in parts} == {"global": 7, "shared": 6, "user": 6}
        await limiter.block(OTHER_ADDRESS, 60)
        assert not (await limiter.try_acquire((ADDRESS, OTHER_ADDRESS, ALICE), per="x")).allowed
        assert (await limiter.try_acquire((ADDRESS, ADDRESS, ALICE), per="x")).allowed

    async def test_a_caller_that_waits_gets_its_turn(self) -> None:
        clock = ManualClock()
        limiter = Limiter([TokenBucket("5/5s"), TokenBucket("2/2s", name="account")], store=self.make_store(clock))
        if not limiter.takes_several_keys:
            return
        for _ in range(2):
            await limiter.acquire((ADDRESS, ALICE))
        waiting = asyncio.ensure_future(limiter.acquire((ADDRESS, ALICE)))
        answer: Decision | None = None
        while answer is None:
            await asyncio.sleep(0.001)
            clock.advance(0.25)
            answer = waiting.result() if waiting.done() else None
        assert answer.allowed
        assert not limiter.has_line((ADDRESS, ALICE))


async def _left(limiter: Limiter, keys: str | tuple[str, ...]) -> list[int]:
    parts = (await limiter.peek(keys)).parts
    by_bucket = {part.bucket: part.remaining for part in parts}
    return [by_bucket[policy.bucket] for policy in limiter.policies]
