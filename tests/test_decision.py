"""What a decision tells."""

from __future__ import annotations

import copy
import pickle

import pytest

from asgi_ratelimit import Decision, FixedWindow, Limiter, MemoryStore, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.decision import Policy, make_decision
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.testing import ManualClock

pytestmark = pytest.mark.anyio


async def test_it_names_its_bucket_alike_for_every_key_and_differently_for_every_limit_and_name() -> None:
    store = MemoryStore()
    one = [await Limiter("5/s", store=store, name="x").try_acquire(key) for key in "abc"]
    assert len({d.bucket for d in one}) == 1
    assert len(one[0].bucket) == 32
    assert set(one[0].bucket) <= set("0123456789abcdef")
    others = [Policy("y", TokenBucket("5/s")), Policy("x", TokenBucket("5/2s")), Policy("x", SlidingWindow("5/s"))]
    assert len({one[0].bucket, *(policy.bucket for policy in others)}) == 4
    changed = [TokenBucket("6/s"), TokenBucket("5/s", 6), TokenBucket("5/s", enforce=False, unit="tokens")]
    assert {Policy("x", limit).bucket for limit in changed} == {one[0].bucket}


async def test_the_same_bucket_is_named_alike_in_every_process() -> None:
    assert Policy("app", TokenBucket("5/5s")).bucket == "bcf8bfc88a87422f7e3752346241848f"


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


def test_the_quick_constructor_makes_what_the_constructor_makes() -> None:
    policy, charge = Policy("app", TokenBucket("5/5s")), object()
    quick = make_decision(policy, 2, 7_000_000, 6_000_000, True, charge, "a", 8)
    usual = Decision(policy, 2, 7_000_000, 6_000_000, True, charge, "a", delay_us=8)
    assert [getattr(quick, name) for name in Decision.__slots__] == [
        getattr(usual, name) for name in Decision.__slots__
    ]


def test_a_user_s_test_builds_a_decision_from_a_policy_a_state_and_a_moment() -> None:
    policy = Policy("app", TokenBucket("5/5s"))
    full = Decision(policy, 1, None, 0, allowed=True)
    assert (full.remaining, full.reset_after, full.retry_after, full.reason) == (5, 0.0, 0.0, "ok")
    empty = Decision(policy, 1, 5_000_000, 0, allowed=False)
    assert (empty.remaining, empty.reset_after, empty.retry_after, empty.reason) == (0, 5.0, 1.0, "limited")
    shaped = Decision(policy, 1, None, 0, allowed=True, delay_us=250_000)
    assert shaped.delay == 0.25
    measured = Decision(policy, 1, None, 0, allowed=False, reason="blocked", measure=(0, 60_000_000, 60_000_000))
    assert (measured.remaining, measured.retry_after, measured.reason) == (0, 60.0, "blocked")


def test_the_decisions_of_a_list_make_one() -> None:
    slow, fast = Policy("app", TokenBucket("1/h")), Policy("app", TokenBucket("5/s"))
    passed = [Decision(fast, 1, None, 0, allowed=True), Decision(slow, 1, None, 0, allowed=True, delay_us=5)]
    whole = Decision.combine(passed)
    assert (whole.allowed, whole.limit, whole.delay_us, whole.parts) == (True, 1, 5, tuple(passed))
    refused = Decision.combine([passed[0], Decision(slow, 1, 3_600_000_000, 0, allowed=False)])
    assert (refused.allowed, refused.limit, refused.retry_after, refused.delay_us) == (False, 1, 3600.0, 0)
    assert Decision.combine(passed[:1]) is passed[0]


def test_a_blocked_key_is_reported_by_a_limit_of_its_own() -> None:
    parts = [
        Decision(Policy("app", TokenBucket("5/s", scope="global")), 1, None, 0, allowed=True),
        Decision(Policy("app", TokenBucket("9/s")), 1, None, 0, allowed=True),
    ]
    decision = Decision.blocked(parts, 60_000_000)
    assert (decision.allowed, decision.limit, decision.reason) == (False, 9, "blocked")
    assert (decision.remaining, decision.retry_after, decision.scope) == (0, 60.0, "user")


def test_a_charge_is_taken_once() -> None:
    receipt = object()
    decision = Decision(Policy("app", TokenBucket("5/s")), 1, 0, 0, allowed=True, charge=receipt)
    assert decision.charged_by(receipt)
    assert decision.take_charge() is receipt
    assert decision.take_charge() is None
    assert not decision.charged_by(receipt)


def test_a_copy_has_nothing_to_give_back() -> None:
    decision = Decision(Policy("app", TokenBucket("5/s")), 1, 0, 0, allowed=True, charge=object())
    for twin in (copy.copy(decision), copy.deepcopy(decision), pickle.loads(pickle.dumps(decision))):
        assert twin == decision
        assert twin.take_charge() is None


@pytest.mark.parametrize(
    "limit",
    [TokenBucket("1/h"), SlidingWindow("1/h"), SlidingWindow("1/h", scope="shared"), Quota("1/day", rollover=0.5)],
)
async def test_a_pickle_names_no_user_and_no_resource(store: MemoryStore, limit: Limit) -> None:
    limiter = Limiter([limit, SlidingWindow("9/h", scope="global"), TokenBucket("1/m", enforce=False)], store=store)
    await limiter.try_acquire("user:bob", per="room:7")
    for decision in [await limiter.try_acquire("user:ada", per="room:7"), await limiter.try_acquire("user:ada")]:
        twin = pickle.loads(pickle.dumps(decision))
        assert b"user:" not in pickle.dumps(decision)
        assert b"room:" not in pickle.dumps(decision)
        assert (twin, twin.parts, twin.over) == (decision, decision.parts, decision.over)
        assert [part.wait_us(1) for part in twin.parts] == [part.wait_us(1) for part in decision.parts]


def test_the_refusal_after_an_allowed_call_is_no_success() -> None:
    decision = Decision(Policy("app", TokenBucket("1/s")), 1, 1_000_000, 0, allowed=True, charge=object())
    refusal = Decision.combine([decision, decision]).as_refusal(1)
    assert (refusal.allowed, refusal.reason, refusal.retry_after) == (False, "limited", 1.0)
    assert [part.take_charge() for part in (refusal, *refusal.parts)] == [None] * 3


async def test_the_refund_of_a_refusal_gives_back_no_other_call(store: MemoryStore) -> None:
    limiter = Limiter(["2/h", "9/day"], store=store)
    charged = await limiter.try_acquire("a")
    await limiter.refund(charged.as_refusal(1))
    assert (await limiter.peek("a")).remaining == 1


# What a call has really cost


@pytest.mark.parametrize(("used", "left", "wait"), [(0, 5, 0.0), (1, 4, 0.0), (3, 2, 0.0), (7, 0, 3.0), (99, 0, 6.0)])
def test_as_settled_it_has_the_bucket_of_a_call_that_has_cost_so_much(used: int, left: int, wait: float) -> None:
    policy = Policy("app", TokenBucket("5/5s"))
    decision = Decision(policy, 3, policy.limit.take(None, 0, 3), 0, allowed=True, charge=object())
    settled = decision.as_settled(used)
    assert (settled.allowed, settled.remaining, settled.wait_us(1) / 1e6) == (True, left, wait)
    assert settled.take_charge() is None
    assert decision.remaining == 2
    assert decision.take_charge() is not None


async def test_as_settled_it_is_what_the_store_says_afterwards(store: MemoryStore) -> None:
    limits = [TokenBucket("9/h"), FixedWindow("8/h"), SlidingWindow("7/h"), Quota("9/day")]
    limiter = Limiter(limits, store=store)
    for used in (0, 1, 4, 6):
        await limiter.reset("a")
        await limiter.try_acquire("a")
        decision = await limiter.try_acquire("a", 4)
        settled = decision.as_settled(used)
        await limiter.settle(decision, used)
        seen = await limiter.peek("a")
        assert [part.measure[:2] for part in settled.parts] == [part.measure[:2] for part in seen.parts]
        assert (settled.limit, settled.remaining) == (seen.limit, seen.remaining)


async def test_as_settled_a_list_is_reported_by_the_limit_with_the_fewest_left_then(store: MemoryStore) -> None:
    limiter = Limiter([TokenBucket("2/h", enforce=False), FixedWindow("9/h")], store=store)
    decision = await limiter.try_acquire("a", 9)  # too much for the soft limit
    assert (decision.limit, decision.remaining) == (9, 0)
    settled = decision.as_settled(1)
    assert (settled.limit, settled.remaining) == (2, 2)
    assert settled.parts[1].remaining == 8


# Soft limits


async def test_a_soft_limit_that_is_exceeded_is_named_and_not_charged(store: MemoryStore) -> None:
    soft, hard = TokenBucket("2/h", enforce=False), FixedWindow("9/h")
    limiter = Limiter([soft, hard], store=store)
    answers = [await limiter.try_acquire("a", cost) for cost in (1, 2, 1, 1)]
    assert [answer.allowed for answer in answers] == [True] * 4
    assert [answer.over for answer in answers] == [(), (soft,), (), (soft,)]
    assert [[part.remaining for part in answer.parts] for answer in answers] == [[1, 8], [1, 6], [0, 5], [0, 4]]
    assert answers[1].parts[0].over == (soft,)
    assert answers[1].parts[1].over == ()
    assert answers[3].reason == "ok"


async def test_a_call_that_a_hard_limit_refuses_is_charged_to_no_soft_one(store: MemoryStore) -> None:
    limiter = Limiter([TokenBucket("5/h", enforce=False), FixedWindow("2/h")], store=store)
    answers = [await limiter.try_acquire("a") for _ in range(4)]
    assert [answer.allowed for answer in answers] == [True, True, False, False]
    assert [part.remaining for part in answers[3].parts] == [3, 0]


async def test_a_settled_call_leaves_a_soft_limit_alone_that_it_had_exceeded(store: MemoryStore) -> None:
    limiter = Limiter([TokenBucket("2/h", enforce=False), FixedWindow("9/h")], store=store)
    await limiter.try_acquire("a", 2)
    decision = await limiter.try_acquire("a", 3)
    for used, left in ((1, 6), (3, 4), (5, 2)):
        settled = decision.as_settled(used)
        assert ([part.remaining for part in settled.parts], len(settled.over)) == ([0, left], 1)
    await limiter.settle(decision, 1)
    assert [part.remaining for part in (await limiter.peek("a")).parts] == [0, 6]


async def test_the_soft_limits_that_are_exceeded_are_part_of_a_decision_s_value(store: MemoryStore) -> None:
    soft = TokenBucket("2/h", enforce=False)
    limiter = Limiter([soft, FixedWindow("2/h")], store=store)
    await limiter.try_acquire("a", 2)
    refused = await limiter.try_acquire("a")
    assert (refused.allowed, refused.over) == (False, (soft,))
    assert f"over=({soft!r},)" in repr(refused)
    other = Decision(refused.policy, 1, refused.state, refused.now_us, False, measure=refused.measured())
    assert other != refused
    assert copy.copy(refused) == refused
    for later in (refused.later(5), refused.later(refused.retry_us), refused.as_refusal(1), refused.as_degraded()):
        assert later.over == (soft,)
