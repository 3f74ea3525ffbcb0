"""Permits in memory: nothing piles up, threads share them, and whoever counts never sees too many."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, CallReport
from asgi_ratelimit.discord.permits.memory import EXPIRY_US, Granted, MemoryPermits, Permit, local_permits
from asgi_ratelimit.testing import ManualClock
from tests.discord.permits.replies import Names, new_call, permit_of

S = 1_000_000
_names = count()


def permit(permits: MemoryPermits, wanted: Names) -> Permit:
    return permit_of(permits.take(*wanted))


@pytest.fixture
def permits(clock: ManualClock) -> MemoryPermits:
    return MemoryPermits(clock)


def size(permits: MemoryPermits) -> int:
    return len(permits._buckets) + len(permits._locked) + len(permits._held) + len(permits._by_end)


# Bounds


@pytest.mark.parametrize(
    "report", [CallReport("answered", "b", 5, 4, S), CallReport("sublimited", retry_us=S), CallReport("lost")]
)
def test_expired_records_are_forgotten_in_passing(
    permits: MemoryPermits, clock: ManualClock, report: CallReport
) -> None:
    for number in range(5_000):
        permits.settle(permit(permits, new_call(major=str(number))), report)
        clock.advance(1)
    assert size(permits) < 400


@pytest.mark.parametrize("adopted", [True, False])
def test_permits_of_another_store_do_not_pile_up_either(
    permits: MemoryPermits, clock: ManualClock, adopted: bool
) -> None:
    """As by another store, which keeps this one warm."""
    for number in range(5_000):
        theirs = Permit(*new_call(major=str(number)), "b", clock.now_us())
        if adopted:
            permits.adopt(theirs)
        permits.settle(theirs, CallReport("answered", "b", 5, 4, S))
        assert not any(learned.in_flight for learned in permits._buckets.values())
        clock.advance(1)
    assert size(permits) < 400


def test_a_sweep_leaves_records_in_use_and_reports_it(permits: MemoryPermits, clock: ManualClock) -> None:
    permits.settle(permit(permits, new_call()), CallReport("answered", "b", 5, 4, 5 * S))
    assert permits.sweep()
    clock.advance(64)
    assert permits.sweep()
    clock.advance(1.001)
    assert not permits.sweep()
    assert size(permits) == 0


def test_a_sweep_of_many_goes_in_small_steps(permits: MemoryPermits, clock: ManualClock) -> None:
    for number in range(2_000):
        permits.settle(permit(permits, new_call(major=str(number), per_second=0)), CallReport("answered", "b", 5, 4, S))
    clock.advance(70)
    before, steps = size(permits), 0
    while pause_s := permits.sweep():
        assert before - size(permits) <= 200
        before, steps = size(permits), steps + 1
        assert pause_s < 0.1
        clock.advance(pause_s)
    assert size(permits) == 0
    assert steps >= 9


def test_no_more_than_ten_thousand_routes_are_stored(permits: MemoryPermits) -> None:
    for number in range(10_001):
        permits.settle(
            permit(permits, new_call(route=f"GET /{number}", per_second=0)), CallReport("answered", "b", 5, 4, S)
        )
    assert permits.take(*new_call(route="GET /0", per_second=0)).bucket == ""
    assert permits.take(*new_call(route="GET /1", per_second=0)).bucket == "b"


def test_an_expired_record_counts_as_none_even_if_it_is_still_stored(
    permits: MemoryPermits, clock: ManualClock
) -> None:
    """A call whose answer comes after minutes."""
    late = permit(permits, new_call())
    permits.settle(late, CallReport("limited", "b", 5, 0, S, S))
    clock.advance(EXPIRY_US / S + 61)
    permits.settle(late, CallReport("answered", "b"))
    assert permits.take(*new_call()).limit == 0


# Threads


def test_64_threads_get_as_many_permits_as_there_are(permits: MemoryPermits) -> None:
    permits.settle(permit(permits, new_call(per_second=0)), CallReport("answered", "b", 100, 100, 60 * S))

    def acquire_many(_: int) -> int:
        return sum(isinstance(permits.take(*new_call()), Granted) for _ in range(20))

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(acquire_many, range(64))) == 50


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it may be
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_a_thread_holds_the_lock_leaves_the_child_a_free_one(store: MemoryStore) -> None:
    permits = local_permits(store, "bot")
    with permits._lock:
        child = os.fork()
        if not child:
            signal.alarm(10)  # ends it if it hangs
            os._exit(0 if isinstance(permits.take(*new_call()), Granted) else 1)
    assert os.waitpid(child, 0)[1] == 0


# Whoever counts. Several processes send what they have; their buckets are none of the limit's.


class Counter:
    """Counts what arrives in each of its own seconds; each call goes to a resource of its own."""

    def __init__(self, permits: MemoryPermits, clock: ManualClock, limit: int, random: Random) -> None:
        self.permits, self.clock, self.limit, self.random = permits, clock, limit, random
        self.arrived: list[int] = []
        self._events: list[tuple[int, int, Permit, bool]] = []

    def play(self, calls: int, latest_us: int) -> None:
        waiting = calls
        while waiting or self._events:
            wait = 0
            while waiting and not wait:
                wait = self._send(latest_us)
                waiting -= not wait
            moments = [self._events[0][0]] if self._events else []
            moments += [self.clock.now_us() + wait] if wait > 0 else []
            self.clock.advance((min(moments) - self.clock.now_us()) / 1e6)
            while self._events and self._events[0][0] <= self.clock.now_us():
                self._hear(*heappop(self._events)[2:], latest_us)

    def _send(self, latest_us: int) -> int:
        reply = self.permits.take(*new_call(str(next(_names)), per_second=self.limit))
        if not isinstance(reply, Granted):
            assert reply.cause == "global"
            assert reply.wait_us != AWAIT_RESPONSE or self._events
            return reply.wait_us
        self._later(reply.permit, latest_us, answered=False)
        return 0

    def _later(self, permit: Permit, latest_us: int, *, answered: bool) -> None:
        due = self.clock.now_us() + self.random.randrange(latest_us)
        heappush(self._events, (due, next(_names), permit, answered))

    def _hear(self, permit: Permit, answered: bool, latest_us: int) -> None:
        if answered:
            self.permits.settle(permit, CallReport("answered"))
        else:
            self.arrived.append(self.clock.now_us())
            self._later(permit, latest_us, answered=True)


@settings(max_examples=40)
@given(st.integers(1, 50), st.sampled_from([1, 60_000, 300_000, 2 * S]), st.integers(0, 2**32))
def test_in_no_second_more_calls_arrive_than_the_global_limit(limit: int, latest_us: int, seed: int) -> None:
    clock = ManualClock()
    counter = Counter(MemoryPermits(clock), clock, limit, Random(seed))
    counter.play(5 * limit, latest_us)
    arrived = sorted(counter.arrived)
    assert len(arrived) == 5 * limit
    assert all(late - early >= S for early, late in zip(arrived, arrived[limit:], strict=False))
    assert arrived[-1] - arrived[0] <= 4 * 1.05 * (S + 2 * latest_us)
