"""MemoryStore: the contract of every store, its bounds, and threads."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import Decision, Limiter, MemoryStore, StoreUnavailable, TokenBucket
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.store import Buckets, Store, bucket_key
from asgi_ratelimit.testing import ManualClock, StoreContract


@pytest.mark.anyio
class TestMemoryStore(StoreContract):
    def make_store(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)


def open_buckets(store: MemoryStore, limit: str, name: str = "x") -> Buckets:
    return store.open(name, [Policy(name, TokenBucket(limit))])


def decided(buckets: Buckets, key: str, cost: int = 1) -> Decision:
    answer = buckets.decide(key, cost, "")
    assert isinstance(answer, Decision)
    return answer


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None, "many"])
def test_a_bad_cap_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="max_keys must be a whole number of at least 1"):
        MemoryStore(max_keys=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, 5, b"user", ["user"], ("user", 1)])
def test_what_is_no_string_is_no_key(bad: object) -> None:
    buckets = open_buckets(MemoryStore(), "1/s")
    for ask in (buckets.decide, buckets.peek):
        with pytest.raises(TypeError, match="a key is a string such as"):
            ask(bad, 1, "")


def test_full_buckets_are_dropped_in_passing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    buckets = open_buckets(store, "5/5s")
    for i in range(300_000):
        decided(buckets, f"key{i}")
        clock.advance(0.0001)  # each is full again after 10 000 others
    assert len(store) < 50_000


def test_a_flood_of_a_million_keys_stays_within_the_cap_and_frees_nobody() -> None:
    clock = ManualClock()
    store = MemoryStore(max_keys=100_000, clock=clock)
    buckets = open_buckets(store, "2/day")
    depleted = [f"depleted{i}" for i in range(500)]
    for key in depleted:
        decided(buckets, key, 2)
    buckets.block("banned", 86_400)
    for i in range(1_000_000):
        buckets.decide(f"flood{i}", 1, "")
        clock.advance(0.000_010)
    assert len(store) <= 100_000 + 64  # the newcomers' shared buckets
    assert not any(decided(buckets, key).allowed for key in depleted)
    assert decided(buckets, "banned").reason == "blocked"


def test_newcomers_to_a_full_store_share_a_limited_bucket() -> None:
    store = MemoryStore(max_keys=10, clock=ManualClock())
    buckets = open_buckets(store, "3/h")
    for i in range(10):
        decided(buckets, f"early{i}")
    answers = [decided(buckets, f"late{i}").allowed for i in range(100)]
    assert sum(answers) == 3
    assert decided(buckets, "early3").remaining == 1


def test_a_full_store_takes_newcomers_again_when_buckets_have_become_full() -> None:
    clock = ManualClock()
    store = MemoryStore(max_keys=10, clock=clock)
    buckets = open_buckets(store, "1/s")
    for i in range(20):
        decided(buckets, f"early{i}")
    clock.advance(2)
    assert all(decided(buckets, f"late{i}").allowed for i in range(10))


def test_a_full_store_refuses_another_block_rather_than_forget_it() -> None:
    store = MemoryStore(max_keys=3, clock=ManualClock())
    buckets = open_buckets(store, "1/h")
    for i in range(3):
        decided(buckets, f"key{i}")
    with pytest.raises(StoreUnavailable, match="no room for another block: all 3 records"):
        buckets.block("late", 60)


def test_a_block_lasts_its_own_length_after_the_clock_went_back(store: MemoryStore, clock: ManualClock) -> None:
    buckets = open_buckets(store, "5/s")
    buckets.block("a", 3)
    clock.advance(-3600)
    assert decided(buckets, "a").retry_after == 3.0
    clock.advance(2.999999)
    assert not decided(buckets, "a").allowed
    clock.advance(0.000001)
    assert decided(buckets, "a").allowed


def test_limits_made_up_at_run_time_do_not_pile_up() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    for i in range(2_000):
        decided(open_buckets(store, f"{i + 1}/s"), "a")
        clock.advance(1)
    gc.collect()
    assert len(store) < 10
    assert len(store.records.tables) < 20
    assert len(store.records.shards) < 20


def test_buckets_opened_twice_are_the_same_even_when_the_first_are_gone() -> None:
    store = MemoryStore(clock=ManualClock())
    decided(open_buckets(store, "1/h"), "a")
    gc.collect()
    assert not decided(open_buckets(store, "1/h"), "a").allowed


def test_a_refund_after_the_record_was_dropped_gives_nothing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    buckets = open_buckets(store, "1/s")
    old = decided(buckets, "a")
    clock.advance(5)
    for i in range(10):
        open_buckets(store, f"{i + 2}/s")
    buckets.refund(old)
    assert decided(buckets, "a").allowed
    assert not decided(buckets, "a").allowed


def test_resetting_a_key_that_was_never_seen_keeps_nothing() -> None:
    store = MemoryStore(clock=ManualClock())
    buckets = open_buckets(store, "1/s")
    buckets.reset("a", "")
    buckets.block("a", 0)
    assert len(store.records.shards) == 0


def test_64_threads_admit_exactly_the_limit() -> None:
    buckets = open_buckets(MemoryStore(clock=ManualClock()), "1000/h")
    barrier = threading.Barrier(64)

    def acquire_many(_: int) -> int:
        barrier.wait()
        return sum(decided(buckets, "a").allowed for _ in range(100))

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(acquire_many, range(64))) == 1_000


def test_a_thousand_tasks_admit_exactly_the_limit() -> None:
    async def main() -> int:
        limiter = Limiter(["100/h", TokenBucket("100/h", scope="global")], store=MemoryStore(clock=ManualClock()))
        answers: Sequence[Decision] = await asyncio.gather(*(limiter.try_acquire("a") for _ in range(1_000)))
        return sum(answer.allowed for answer in answers)

    assert asyncio.run(main()) == 100


def test_threads_and_sweeps_lose_no_charge() -> None:
    """Many keys from many threads, so that shards are swept while others are written."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    buckets = open_buckets(store, "3/h")

    def work(seed: int) -> int:
        order = list(range(5_000))
        random.Random(seed).shuffle(order)
        return sum(decided(buckets, f"key{i}").allowed for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 3 * 5_000
    assert len(store) == 5_000


def test_a_user_s_resources_cannot_be_mistaken_for_another_user() -> None:
    assert bucket_key("user", "a", "b:c") != bucket_key("user", "a:b", "c")
    assert bucket_key("user", "1:a", "b") != bucket_key("user", "1", ":ab")
    assert bucket_key("shared", "a", "x") == bucket_key("shared", "b", "x") == "x"
    assert bucket_key("global", "a", "x") == bucket_key("global", "b", "y")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it may be
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_somebody_holds_the_lock_leaves_the_child_a_free_one(store: MemoryStore) -> None:
    buckets = Limiter("1/s", store=store).decide
    with store.records.lock:
        child = os.fork()
        if not child:
            signal.alarm(10)  # ends it if it hangs
            answer = buckets("a", 1, "")
            os._exit(0 if isinstance(answer, Decision) and answer.allowed else 1)
    assert os.waitpid(child, 0)[1] == 0


RATES = st.sampled_from(["1/s", "5/5s", "7/3s", "3/1ms", "2/s burst 9", "0/day"])
STEPS = st.lists(st.tuples(st.integers(-5_000_000, 5_000_000), st.integers(1, 4)), max_size=30)  # µs, cost


@given(RATES, STEPS)
def test_a_check_in_memory_is_what_the_arithmetic_of_its_limit_says(rate: str, steps: list[tuple[int, int]]) -> None:
    clock, limit = ManualClock(), TokenBucket(rate)
    buckets, state = MemoryStore(clock=clock).open("x", [Policy("x", limit)]), None
    for step_us, cost in steps:
        clock.advance(step_us / 1e6)
        after = limit.take(state, clock.now_us(), cost)
        decision = decided(buckets, "a", cost)
        state = limit.cut(state, clock.now_us()) if after is None else after
        assert (decision.allowed, decision.state, decision.now_us) == (after is not None, state, clock.now_us())


def test_a_block_of_one_key_leaves_the_checks_of_others_as_they_are() -> None:
    buckets = open_buckets(MemoryStore(clock=ManualClock()), "2/s")
    buckets.block("a", 60)
    assert decided(buckets, "a").reason == "blocked"
    assert [decided(buckets, "b").reason for _ in range(3)] == ["ok", "ok", "limited"]
    buckets.block("a", 0)
    assert decided(buckets, "a").remaining == 1
