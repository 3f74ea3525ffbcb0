"""The verbs from threads, and one line for all of them."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import Future

import pytest

from asgi_ratelimit import (
    Decision,
    LeakyBucket,
    Limiter,
    MemoryStore,
    RateLimited,
    StoreUnavailable,
    TokenBucket,
)
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync import SyncLimiter, loop_thread
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import wait_until
from tests.support.threads import PATIENCE, joined, pass_time, standing, started


def test_every_verb_does_what_the_limiter_s_does(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter("5/5s", store=any_store, name="search")
    charged = limiter.try_acquire("a", cost=3)
    assert (charged.allowed, charged.remaining, charged.reset_after) == (True, 2, 3.0)
    assert limiter.peek("a", 2).allowed
    assert limiter.peek("a").remaining == 2
    limiter.refund(charged)
    assert limiter.peek("a").remaining == 5
    settled = limiter.try_acquire("a", cost=3)
    limiter.settle(settled, 1)
    limiter.settle(settled, 5)
    assert limiter.peek("a").remaining == 4
    limiter.reset("a")
    assert limiter.acquire("a", cost=5).remaining == 0
    refused = limiter.try_acquire("a")
    assert (refused.allowed, refused.retry_after) == (False, 1.0)
    limiter.reset("a")
    limiter.block("a", 60)
    assert limiter.peek("a").reason == "blocked"
    limiter.block("a", 0)
    assert limiter.try_acquire("a").remaining == 4
    clock.advance(1)
    assert limiter.peek("a").remaining == 5


def test_a_resource_is_named_by_per(any_store: Store) -> None:
    limiter = SyncLimiter(TokenBucket("1/h", scope="shared"), store=any_store)
    assert limiter.try_acquire("a", per="x").allowed
    assert not limiter.peek("b", per="x").allowed
    assert limiter.acquire("b", per="y").allowed
    limiter.reset("c", per="x")
    assert limiter.peek("b", per="x").allowed


def test_it_shares_its_buckets_with_a_limiter_of_the_same_name_limit_and_store(any_store: Store) -> None:
    sync, other = (SyncLimiter("2/h", store=any_store, name=name) for name in ("search", "other"))

    async def ask() -> Decision:
        try:
            return await Limiter("2/h", store=any_store, name="search").try_acquire("a")
        finally:
            await any_store.aclose()

    assert sync.try_acquire("a").remaining == 1
    assert asyncio.run(ask()).remaining == 0
    assert not sync.try_acquire("a").allowed
    assert other.try_acquire("a").allowed


def test_global_limits_are_shared_by_global_name(any_store: Store) -> None:
    everyone = TokenBucket("1/h", scope="global")
    one, two = (SyncLimiter(everyone, store=any_store, name=name, global_name="app") for name in ("one", "two"))
    assert one.try_acquire("a").allowed
    assert not two.try_acquire("b").allowed


def test_sixty_four_threads_are_admitted_exactly_as_often_as_the_limit_allows(any_store: Store) -> None:
    limiter = SyncLimiter("500/day", store=any_store)
    start = threading.Barrier(64)

    def acquire_many() -> int:
        start.wait(PATIENCE)
        return sum(limiter.try_acquire("a").allowed for _ in range(20))

    assert sum(each.result(PATIENCE) for each in [started(acquire_many) for _ in range(64)]) == 500


def test_errors_are_those_of_the_limiter(any_store: Store) -> None:
    limiter = SyncLimiter("5/h", store=any_store)
    for verb in (limiter.try_acquire, limiter.acquire, limiter.peek):
        with pytest.raises(ValueError, match="a cost must be a whole number from 1 to 5"):
            verb("a", 6)
    with pytest.raises(ValueError, match="a block lasts a number of seconds from 0"):
        limiter.block("a", -1)
    with pytest.raises(ValueError, match="timeout must be seconds from 0"):
        limiter.acquire("a", timeout=-1)
    with pytest.raises(ValueError, match="the name of a limiter"):
        SyncLimiter("5/h", name="")
    with pytest.raises(TypeError, match="a key is a string"):
        limiter.try_acquire(5)  # type: ignore[arg-type]
    assert limiter.peek("a").remaining == 5


def test_a_store_that_cannot_answer_is_an_error_here(clock: ManualClock) -> None:
    full = SyncLimiter("5/h", store=MemoryStore(clock=clock, max_keys=1))
    full.block("a", 60)
    with pytest.raises(StoreUnavailable, match="no room for another block"):
        full.block("b", 60)


def test_its_representation_names_it() -> None:
    assert repr(SyncLimiter("5/s", name="search")) == "SyncLimiter(['5/second'], name='search')"


# Waiting


def test_acquire_in_one_thread_is_released_by_the_clock_in_another(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter("1/10s", store=any_store)
    limiter.acquire("a")
    waiting = joined(limiter, "a")
    pass_time(clock, 9.999999)
    pass_time(clock, 0.000001)
    assert waiting.result(PATIENCE).allowed


def test_threads_are_served_first_come_first_served(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter("1/s", store=any_store)
    limiter.acquire("a")
    line = [joined(limiter, "a") for _ in range(10)]
    for served in range(10):
        pass_time(clock, 1)
        assert line[served].result(PATIENCE).allowed
        assert not any(later.done() for later in line[served + 1 :])


def test_nobody_who_asks_for_less_slips_in_before_those_who_stand_in_line(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter("5/5s", store=any_store)
    limiter.acquire("a", cost=2)
    first = joined(limiter, "a", cost=5)
    second = joined(limiter, "a", cost=1)  # there is room for it
    elsewhere = limiter.acquire("b", cost=1)
    assert elsewhere.allowed
    assert not second.done()
    pass_time(clock, 2)
    assert first.result(PATIENCE).remaining == 0
    pass_time(clock, 1)
    assert second.result(PATIENCE).allowed


def test_a_timeout_that_does_not_suffice_is_refused_at_once(any_store: Store) -> None:
    limiter = SyncLimiter("1/10s", store=any_store)
    limiter.acquire("a", timeout=0)
    with pytest.raises(RateLimited) as raised:
        limiter.acquire("a", timeout=9.999999)
    assert raised.value.retry_after == 10.0


def test_whoever_stands_in_line_beyond_the_timeout_is_refused_at_once(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter("1/10s", store=any_store)
    limiter.acquire("a")
    first = joined(limiter, "a")
    pass_time(clock, 5)
    with pytest.raises(RateLimited):
        limiter.acquire("a", timeout=14)
    pass_time(clock, 5)
    assert first.result(PATIENCE).allowed


def test_the_delay_of_a_leaky_bucket_is_waited_out(any_store: Store, clock: ManualClock) -> None:
    limiter = SyncLimiter(LeakyBucket("1/10s", queue=2), store=any_store)
    assert limiter.acquire("a").delay == 0
    waiting = started(limiter.acquire, "a")
    pass_time(clock, 9.999999)
    assert not waiting.done()
    pass_time(clock, 0.000001)
    assert waiting.result(PATIENCE).delay == 10.0


def test_an_exception_in_the_waiting_thread_leaves_the_line(any_store: Store, clock: ManualClock) -> None:
    """The first in line is this thread, and what ends its wait is a signal, as Celery's soft time limit does."""
    limiter = SyncLimiter("1/10s", store=any_store)
    limiter.acquire("a")
    main = threading.main_thread().ident

    def interrupt() -> Future[Decision]:
        wait_until(lambda: standing(limiter) == 1, "the main thread stands in line")
        behind = joined(limiter, "a")
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        return behind

    def too_long(*_: object) -> None:
        raise InterruptedError

    previous = signal.signal(signal.SIGUSR1, too_long)
    try:
        interrupting = started(interrupt)
        with pytest.raises(InterruptedError):
            limiter.acquire("a")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    behind = interrupting.result(PATIENCE)
    wait_until(lambda: standing(limiter) == 1, "it has left the line")
    pass_time(clock, 10)
    assert behind.result(PATIENCE).allowed
    assert not limiter.peek("a").allowed


def test_nothing_is_kept_of_a_line_that_is_over(any_store: Store) -> None:
    limiter = SyncLimiter("1/h", store=any_store)
    for _ in range(3):
        with pytest.raises(RateLimited):
            [limiter.acquire("a", timeout=1) for _ in range(2)]
    assert standing(limiter) == 0
    wait_until(lambda: not loop_thread._current.queues, "nobody stands in line")
