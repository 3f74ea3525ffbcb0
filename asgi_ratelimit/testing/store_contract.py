"""The behaviour of every store, as tests to run against a store of your own."""

from __future__ import annotations

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, LeakyBucket, Limit, SlidingWindow, TokenBucket
from asgi_ratelimit.store import Store

__all__ = ["StoreContract"]

KINDS: tuple[Limit, ...] = (
    TokenBucket("5/5s"),
    TokenBucket("7/s burst 5"),
    LeakyBucket("7/s", queue=4),
    FixedWindow("5/5s"),
    SlidingWindow("5/5s"),
)


class StoreContract:
    """The tests that every store has to pass. Subclass it and define `make_store`. Pytest collects the async tests:

    @pytest.mark.anyio
    class TestMyStore(StoreContract):
        def make_store(self, clock: ManualClock) -> Store:
            return MyStore(clock=clock)
    """

    def make_store(self, clock: ManualClock) -> Store:
        """Return a new, empty store that reads its time from this clock."""
        raise NotImplementedError

    async def test_a_full_bucket_allows_its_capacity_and_no_more(self) -> None:
        store = self.make_store(ManualClock())
        for limit in KINDS:
            limiter = Limiter(limit, store=store)
            answers = [await limiter.try_acquire("a") for _ in range(7)]
            assert [d.allowed for d in answers] == [True] * 5 + [False] * 2, limit
            assert [d.remaining for d in answers] == [4, 3, 2, 1, 0, 0, 0], limit
            assert {d.reason for d in answers[:5]} == {"ok"}
            assert answers[5].reason == "limited"
            assert answers[6].reason in ("limited", "cached")  # a store may remember a refusal

    async def test_a_refused_call_is_allowed_after_retry_after_and_no_microsecond_earlier(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            for _ in range(5):
                await limiter.try_acquire("a")
            wait_us = round((await limiter.try_acquire("a")).retry_after * 1e6)
            clock.advance((wait_us - 1) / 1e6)
            assert not (await limiter.peek("a")).allowed, limit
            clock.advance(1e-6)
            assert (await limiter.try_acquire("a")).allowed, limit

    async def test_a_bucket_is_full_again_after_reset_after(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            for _ in range(3):
                last = await limiter.try_acquire("a")
            clock.advance(last.reset_after)
            assert (await limiter.peek("a")).remaining == 5, limit

    async def test_keys_and_names_have_their_own_buckets(self) -> None:
        store = self.make_store(ManualClock())
        one, other = Limiter("1/s", store=store, name="one"), Limiter("1/s", store=store, name="other")
        for limiter in (one, other):
            for key in ("a", "b", "", "a:b", "{a}", "}a", "a*", "a\n", "a\0", "\udcff", "a" * 10_000, "a" * 10_001):
                assert (await limiter.try_acquire(key)).allowed, key
                assert not (await limiter.try_acquire(key)).allowed, key

    async def test_limiters_of_one_name_and_limit_share_their_buckets(self) -> None:
        store = self.make_store(ManualClock())
        assert (await Limiter("1/s", store=store, name="x").try_acquire("a")).allowed
        assert not (await Limiter("1/s", store=store, name="x").try_acquire("a")).allowed
        assert (await Limiter("2/s", store=store, name="x").try_acquire("a")).allowed

    async def test_a_cost_is_charged_in_full_or_not_at_all(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            assert (await limiter.try_acquire("a", cost=4)).remaining == 1, limit
            assert not (await limiter.try_acquire("a", cost=2)).allowed, limit
            assert (await limiter.try_acquire("a", cost=1)).allowed, limit

    async def test_a_list_of_limits_is_charged_all_or_nothing(self) -> None:
        limiter = Limiter(
            ["2/s", FixedWindow("9/h"), SlidingWindow("9/h"), LeakyBucket("9/h", queue=8)],
            store=self.make_store(ManualClock()),
        )
        for _ in range(5):
            answer = await limiter.try_acquire("a")
        assert not answer.allowed
        assert answer.limit == 2
        assert [part.remaining for part in answer.parts] == [0, 7, 7, 7]

    async def test_a_limit_of_zero_refuses_everybody_and_charges_nothing(self) -> None:
        clock = ManualClock()
        store = self.make_store(clock)
        for limit in (TokenBucket("0/2s"), LeakyBucket("0/2s"), FixedWindow("0/2s"), SlidingWindow("0/2s")):
            limiter = Limiter([limit, "5/s"], store=store)
            for _ in range(2):
                answer = await limiter.try_acquire("a", cost=2)
                assert not answer.allowed, limit
                assert (answer.limit, answer.remaining, answer.retry_after) == (0, 0, 2.0), limit
                assert (await limiter.peek("a")).parts[1].remaining == 5, limit
                clock.advance(2)

    async def test_the_longest_wait_is_reported_and_otherwise_the_fewest_remaining(self) -> None:
        limiter = Limiter(["2/s", "3/h"], store=self.make_store(ManualClock()))
        assert (await limiter.try_acquire("a")).limit == 2
        assert (await limiter.try_acquire("a")).limit == 2
        assert (await limiter.try_acquire("a", cost=2)).limit == 3

    async def test_global_and_shared_limits_have_one_bucket_for_all_keys(self) -> None:
        store = self.make_store(ManualClock())
        everyone = Limiter(TokenBucket("1/s", scope="global"), store=store)
        assert (await everyone.try_acquire("a", per="x")).allowed
        assert not (await everyone.try_acquire("b", per="y")).allowed
        resource = Limiter(TokenBucket("1/s", scope="shared"), store=store)
        assert (await resource.try_acquire("a", per="x")).allowed
        assert not (await resource.try_acquire("b", per="x")).allowed
        assert (await resource.try_acquire("b", per="y")).allowed
        own = Limiter("1/s", store=store)
        assert (await own.try_acquire("a", per="x")).allowed
        assert (await own.try_acquire("a", per="y")).allowed
        assert not (await own.try_acquire("a", per="x")).allowed

    async def test_a_key_and_its_resource_are_no_other_key(self) -> None:
        resource = TokenBucket("9/h", scope="shared")
        for more in ([], [resource]):
            limiter = Limiter(["1/h", *more], store=self.make_store(ManualClock()))
            for key, per in (("ada", "7"), ("3:ada7", ""), ("ada7", ""), ("ad", "a7"), ("", "3:ada7"), ("3:ada", "7")):
                assert (await limiter.try_acquire(key, per=per)).allowed, (key, per)
                assert not (await limiter.try_acquire(key, per=per)).allowed, (key, per)

    async def test_peek_charges_nothing(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            await limiter.try_acquire("a")
            assert [(await limiter.peek("a")).remaining for _ in range(9)] == [4] * 9, limit

    async def test_a_refund_returns_a_charge_only_once(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            await limiter.try_acquire("a")
            charged = await limiter.try_acquire("a", cost=3)
            await limiter.refund(charged)
            assert (await limiter.peek("a")).remaining == 4, limit
            await limiter.refund(charged)
            assert (await limiter.peek("a")).remaining == 4, limit

    async def test_a_refusal_has_nothing_to_refund(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            await limiter.try_acquire("a", cost=5)
            await limiter.refund(await limiter.try_acquire("a"))
            assert (await limiter.peek("a")).remaining == 0, limit

    async def test_a_refund_returns_nothing_once_the_bucket_has_refilled(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            old = await limiter.try_acquire("a", cost=5)
            clock.advance(old.reset_after)
            await limiter.try_acquire("a", cost=5)
            await limiter.refund(old)
            assert (await limiter.peek("a")).remaining == 0, limit

    async def test_a_block_refuses_a_key_with_a_full_bucket_until_it_ends(self) -> None:
        clock = ManualClock()
        limiter = Limiter(["5/s", SlidingWindow("9/h")], store=self.make_store(clock))
        await limiter.block("a", 60)
        answer = await limiter.try_acquire("a")
        assert (answer.allowed, answer.reason, answer.retry_after, answer.remaining) == (False, "blocked", 60.0, 0)
        assert (await limiter.peek("a")).reason == "blocked"
        assert (await limiter.try_acquire("b")).allowed
        clock.advance(59.999999)
        assert not (await limiter.try_acquire("a")).allowed
        clock.advance(0.000001)
        assert (await limiter.try_acquire("a")).allowed

    async def test_a_block_of_zero_seconds_lifts_a_block(self) -> None:
        limiter = Limiter("5/s", store=self.make_store(ManualClock()))
        await limiter.block("a", 60)
        await limiter.block("a", 0)
        assert (await limiter.try_acquire("a")).allowed

    async def test_reset_fills_the_bucket_and_lifts_a_block(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            await limiter.try_acquire("a", cost=5)
            await limiter.try_acquire("b", cost=5)
            await limiter.block("a", 60)
            await limiter.reset("a")
            assert (await limiter.peek("a")).remaining == 5, limit
            assert (await limiter.peek("b")).remaining == 0, limit

    async def test_clear_fills_every_bucket_and_lifts_every_block(self) -> None:
        store = self.make_store(ManualClock())
        limiters = [Limiter([limit, TokenBucket("9/h", scope="global")], store=store) for limit in KINDS]
        charged = [await limiter.try_acquire("a", cost=5, per=per) for limiter in limiters for per in ("", "x")]
        await limiters[0].block("b", 60)
        await store.clear()
        assert [(await limiter.peek("a", per="x")).remaining for limiter in limiters] == [5] * len(KINDS)
        assert (await limiters[0].peek("b")).allowed
        await limiters[0].refund(charged[0])  # of a bucket that is not there any more
        assert (await limiters[0].try_acquire("a", cost=5)).allowed
        assert not (await limiters[0].try_acquire("a")).allowed
        await store.clear()  # a store that remembers refusals has forgotten this one
        assert (await limiters[0].try_acquire("a")).allowed

    async def test_a_clock_that_goes_back_locks_no_key_out(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            await limiter.try_acquire("a", cost=5)
            clock.advance(-3600)
            assert (await limiter.try_acquire("a", cost=5)).allowed, limit
            assert not (await limiter.try_acquire("a")).allowed, limit

    async def test_a_leaky_bucket_gives_each_call_its_delay(self) -> None:
        limiter = Limiter(LeakyBucket("4/s", queue=3), store=self.make_store(ManualClock()))
        answers = [await limiter.try_acquire("a") for _ in range(5)]
        assert [d.delay for d in answers] == [0.0, 0.25, 0.5, 0.75, 0.0]
        assert [d.allowed for d in answers] == [True] * 4 + [False]
        assert answers[4].retry_after == 0.25
