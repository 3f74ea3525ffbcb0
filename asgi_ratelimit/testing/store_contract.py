"""The behaviour of every store, as tests to run against a store of your own."""

from __future__ import annotations

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, LeakyBucket, Limit, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing.key_contract import KeyContract

__all__ = ["StoreContract"]

KINDS: tuple[Limit, ...] = (
    TokenBucket("5/5s"),
    TokenBucket("7/s burst 5"),
    LeakyBucket("7/s", queue=4),
    FixedWindow("5/5s"),
    SlidingWindow("5/5s"),
)


class StoreContract(KeyContract):
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
        assert (await Limiter("1/2s", store=store, name="x").try_acquire("a")).allowed
        assert (await Limiter(FixedWindow("1/s"), store=store, name="x").try_acquire("a")).allowed

    async def test_a_limit_that_changes_keeps_what_was_used_of_it(self) -> None:
        store = self.make_store(ManualClock())
        for kind in (TokenBucket, FixedWindow, SlidingWindow):
            small, large = (Limiter(kind(rate), store=store, name="x") for rate in ("4/h", "8/h"))
            assert (await small.try_acquire("a", cost=4)).allowed
            left = (await large.peek("a")).remaining  # a bucket keeps the share that is used, a window the count
            assert left == (0 if kind is TokenBucket else 4), kind
            assert (await large.try_acquire("a")).allowed == bool(left), kind
            assert not (await small.try_acquire("a")).allowed, kind

    async def test_a_limit_that_changes_with_each_call_lets_no_more_pass_than_the_largest(self) -> None:
        store = self.make_store(ManualClock())
        for kind in (TokenBucket, FixedWindow, SlidingWindow):
            rates = [f"{10 + number}/h" for number in range(40)]
            limiters = [Limiter(kind(rate), store=store, name="adaptive") for rate in rates]
            answers = [(await limiter.try_acquire("a")).allowed for limiter in limiters * 2]
            assert 10 <= sum(answers) <= 49, kind

    async def test_a_limit_of_zero_for_a_while_hands_nothing_out(self) -> None:
        store = self.make_store(ManualClock())
        for kind in (TokenBucket, FixedWindow, SlidingWindow):
            usual, none = (Limiter(kind(rate), store=store, name="x") for rate in ("3/h", "0/h"))
            await usual.try_acquire("a", cost=3)
            assert not (await none.try_acquire("a")).allowed, kind
            assert not (await usual.try_acquire("a")).allowed, kind

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

    async def test_a_clock_that_goes_back_locks_no_key_out_and_fills_no_bucket(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            await limiter.try_acquire("a", cost=5)
            clock.advance(-3600)
            refused = await limiter.try_acquire("a")
            assert (refused.allowed, refused.remaining) == (False, 0), limit
            assert refused.retry_after <= limit.period, limit
            clock.advance(refused.retry_after)
            assert (await limiter.try_acquire("a")).allowed, limit

    async def test_a_leaky_bucket_gives_each_call_its_delay(self) -> None:
        limiter = Limiter(LeakyBucket("4/s", queue=3), store=self.make_store(ManualClock()))
        answers = [await limiter.try_acquire("a") for _ in range(5)]
        assert [d.delay for d in answers] == [0.0, 0.25, 0.5, 0.75, 0.0]
        assert [d.allowed for d in answers] == [True] * 4 + [False]
        assert answers[4].retry_after == 0.25

    async def test_a_charge_becomes_what_the_call_has_cost(self) -> None:
        for limit in KINDS:
            for used, left in ((0, 5), (1, 4), (2, 3), (3, 2), (5, 0)):
                limiter = Limiter(limit, store=self.make_store(ManualClock()))
                charged = await limiter.try_acquire("a", cost=2)
                assert (await limiter.peek("a")).remaining == 3, limit
                await limiter.settle(charged, used)
                assert (await limiter.peek("a")).remaining == left, (limit, used)

    async def test_a_charge_is_settled_only_once(self) -> None:
        for limit in KINDS:
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            charged = await limiter.try_acquire("a", cost=2)
            await limiter.settle(charged, 3)
            await limiter.settle(charged, 5)
            await limiter.settle(charged, 0)
            await limiter.refund(charged)
            assert (await limiter.peek("a")).remaining == 2, limit

    async def test_a_limiter_of_the_same_name_and_limit_settles_the_charge_of_another(self) -> None:
        for limit in KINDS:
            store = self.make_store(ManualClock())
            limiter, other = (Limiter(limit, store=store) for _ in range(2))
            for used in (0, 3, 5):
                charged = await limiter.try_acquire("a", cost=2)
                await other.settle(charged, used)
                await limiter.settle(charged, 5)
                assert (await limiter.peek("a")).remaining == 5 - used, limit
                await limiter.reset("a")

    async def test_what_was_refused_or_refunded_or_has_refilled_is_not_settled(self) -> None:
        for limit in KINDS:
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            charged = await limiter.try_acquire("a", cost=3)
            refused = await limiter.try_acquire("a", cost=3)
            await limiter.settle(refused, 5)
            assert (await limiter.peek("a")).remaining == 2, limit
            await limiter.refund(charged)
            await limiter.settle(charged, 5)
            assert (await limiter.peek("a")).remaining == 5, limit
            charged = await limiter.try_acquire("a", cost=3)
            clock.advance(charged.reset_after)
            await limiter.try_acquire("a", cost=5)
            await limiter.settle(charged, 1)
            assert (await limiter.peek("a")).remaining == 0, limit

    async def test_five_calls_at_once_reserve_what_they_may_need_and_keep_what_they_used(self) -> None:
        for limit in (TokenBucket("100/minute"), FixedWindow("100/minute"), SlidingWindow("100/minute")):
            limiter = Limiter(limit, store=self.make_store(ManualClock()))
            answers = [await limiter.try_acquire("a", cost=50) for _ in range(5)]
            assert [answer.allowed for answer in answers] == [True] * 2 + [False] * 3, limit
            for answer in answers:
                await limiter.settle(answer, 30)
            assert (await limiter.peek("a")).remaining == 40, limit

    async def test_a_debt_is_waited_for_to_the_microsecond(self) -> None:
        for limit, wait in ((TokenBucket("100/minute"), 30.6), (LeakyBucket("100/minute", queue=99), 30.6)):
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            await limiter.settle(await limiter.try_acquire("a", cost=10), 150)
            refused = await limiter.try_acquire("a")
            assert (refused.allowed, refused.remaining, refused.retry_after) == (False, 0, wait), limit
            clock.advance(wait - 1e-6)
            assert not (await limiter.peek("a")).allowed, limit
            clock.advance(1e-6)
            assert (await limiter.try_acquire("a")).allowed, limit

    async def test_a_window_begins_with_the_debt_of_the_one_before(self) -> None:
        for limit in (FixedWindow("100/minute"), SlidingWindow("100/minute")):
            clock = ManualClock()
            limiter = Limiter(limit, store=self.make_store(clock))
            await limiter.settle(await limiter.try_acquire("a", cost=10), 150)
            refused = await limiter.try_acquire("a")
            assert (refused.remaining, refused.retry_after) == (0, 60.0), limit
            clock.advance(59.999999)
            assert not (await limiter.peek("a")).allowed, limit
            clock.advance(1e-6)
            assert (await limiter.peek("a")).remaining == 50, limit
            assert not (await limiter.try_acquire("a", cost=51)).allowed, limit
            clock.advance(60)
            assert (await limiter.peek("a")).remaining == 100, limit

    async def test_a_bucket_owes_one_more_capacity_at_most(self) -> None:
        for limit in KINDS:
            waits = []
            for used in (10, 11, 1_000):
                limiter = Limiter(limit, store=self.make_store(ManualClock()))
                await limiter.settle(await limiter.try_acquire("a", cost=5), used)
                refused = await limiter.try_acquire("a")
                waits.append((refused.allowed, refused.remaining, refused.retry_after))
            assert waits[0] == waits[1] == waits[2], limit
            assert waits[0][:2] == (False, 0), limit

    async def test_a_list_of_limits_is_settled_in_all_of_them(self) -> None:
        clock = ManualClock()
        limiter = Limiter([TokenBucket("9/h"), FixedWindow("9/h"), SlidingWindow("9/h")], store=self.make_store(clock))
        answers = [await limiter.try_acquire("a", cost=3) for _ in range(2)]
        await limiter.settle(answers[0], 1)
        assert [part.remaining for part in (await limiter.peek("a")).parts] == [5, 5, 5]
        await limiter.settle(answers[1], 7)
        assert [part.remaining for part in (await limiter.peek("a")).parts] == [1, 1, 1]

    async def test_a_soft_limit_refuses_nothing_and_says_that_it_is_exceeded(self) -> None:
        for limit in (TokenBucket("2/h", enforce=False), FixedWindow("2/h", enforce=False)):
            for others in ([], [SlidingWindow("4/h")]):
                limiter = Limiter([limit, *others], store=self.make_store(ManualClock()))
                answers = [await limiter.try_acquire("a") for _ in range(4)]
                assert [answer.allowed for answer in answers] == [True] * 4, limit
                assert [answer.over for answer in answers] == [(), (), (limit,), (limit,)], limit
                await limiter.refund(answers[3])  # it was not charged to the soft limit
                assert [part.remaining for part in (await limiter.peek("a")).parts] == [0, 1][: 1 + len(others)], limit

    async def test_a_quota_is_full_again_at_the_boundary_of_its_calendar(self) -> None:
        clock = ManualClock(1_704_067_200 - 90)  # a minute and a half before the year 2024 in London
        limiter = Limiter(Quota("5/day", tz="Europe/London"), store=self.make_store(clock))
        charged = await limiter.try_acquire("a", cost=3)
        await limiter.settle(charged, 7)
        refused = await limiter.try_acquire("a")
        assert (refused.allowed, refused.remaining, refused.retry_after) == (False, 0, 90.0)
        clock.advance(89.999999)
        assert not (await limiter.peek("a")).allowed
        clock.advance(1e-6)
        assert (await limiter.try_acquire("a")).remaining == 2
        clock.advance(86_400)
        assert (await limiter.peek("a")).remaining == 5
