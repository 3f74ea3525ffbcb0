"""Redis and memory give equal answers on the same history: every algorithm, lists of them, on every server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ratelimit import Decision, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, Scope
from tests.support.servers import KINDS, Cluster, Server
from tests.support.stores import new_store
from tests.support.traces import (
    ALGORITHMS,
    ALL,
    FORWARD,
    SCOPES,
    SEVERAL_KEYS,
    SOFT,
    STARTS,
    STEPS,
    Check,
    Duel,
    Move,
    Pair,
    Refund,
    Step,
    TraceClock,
    lists_of,
    public,
    traces_of,
)

TRACES, FORWARD_TRACES = traces_of(STEPS), traces_of(FORWARD)
OTHERS = KINDS[1:]

Play = Callable[[Sequence[Limit], int, Sequence[Step]], list[Pair]]


@contextmanager
def playing(url: str, *, deny_cache: int = 0) -> Iterator[Play]:
    """One event loop and one store for many traces, each of which has limiters of its own name."""
    clock = TraceClock()
    store = new_store(url, clock=clock, deny_cache=deny_cache)

    def play(limits: Sequence[Limit], start_us: int, trace: Sequence[Step]) -> list[Pair]:
        clock.begin(start_us)
        if store.is_cluster or deny_cache:  # checks that are sent together may be decided in another order
            trace = [one for step in trace for one in (step, Move(0))]
        return runner.run(Duel(limits, clock, store).play(trace))

    with asyncio.Runner() as runner:
        runner.run(store.start())
        try:
            yield play
        finally:
            runner.run(store.aclose())


def assert_equal(pairs: Sequence[Pair]) -> None:
    for memory, redis in pairs:
        assert redis == memory
        assert public(redis) == public(memory)


def compare(
    url: str,
    limits: st.SearchStrategy[list[Limit]],
    examples: int,
    traces: st.SearchStrategy[list[Step]] = TRACES,
) -> None:
    with playing(url) as play:

        @settings(max_examples=examples)
        @given(limits, STARTS, traces)
        def the_answers_are_equal(limits: list[Limit], start_us: int, trace: list[Step]) -> None:
            assert_equal(play(limits, start_us, trace))

        the_answers_are_equal()


def one_of(limits: Sequence[Limit]) -> st.SearchStrategy[list[Limit]]:
    return st.sampled_from(limits).map(lambda limit: [limit])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_limit_decides_as_in_memory(any_redis: Server, algorithm: str) -> None:
    compare(any_redis.url, one_of(ALGORITHMS[algorithm]), examples=1_000)


def test_a_list_of_limits_decides_as_in_memory(any_redis: Server) -> None:
    compare(any_redis.url, lists_of(ALL), examples=1_000)


def test_limits_with_keys_of_their_own_decide_as_in_memory(any_redis: Server) -> None:
    compare(any_redis.url, lists_of([*ALL, *SOFT]), examples=300, traces=traces_of([*STEPS, *SEVERAL_KEYS * 2]))


def test_a_soft_limit_reports_as_in_memory(any_redis: Server) -> None:
    compare(any_redis.url, one_of(SOFT) | lists_of([*ALL, *SOFT]), examples=500)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_servers_decide_as_in_memory(fresh_server: Callable[[str], Server], kind: str) -> None:
    compare(fresh_server(kind).url, one_of(ALL), examples=200)
    compare(fresh_server(kind).url, lists_of(ALL), examples=100)


# Cases that chance reaches too seldom. A bucket that was seen full stays full, wherever the clock moves.

A = ("a", "")
CASES: dict[str, tuple[Limit, list[Step]]] = {
    "a record is ahead by a fraction of a microsecond": (
        TokenBucket("7/s"),
        [Check(A, 1), Move(-857_143), Check(A, 1)],
    ),
    "a record is as far ahead as it may be": (
        TokenBucket("7/s"),
        [Check(A, 1), Move(-857_142), Check(A, 1)],
    ),
    "the window of a refunded charge is over": (
        FixedWindow("5/5s"),
        [Check(A, 1), Check(A, 1), Move(5_000_000), Refund(0), Move(-1), Check(A, 1)],
    ),
    "the window of another refunded charge is over": (
        FixedWindow("5/5s"),
        [Check(A, 1), Move(5_000_000), Check(A, 2), Move(5_000_000), Refund(1), Move(-1), Check(A, 1)],
    ),
    "a refund finds a window in the future": (
        FixedWindow("5/5s"),
        [Check(A, 1), Move(6_000_000), Check(A, 2), Move(-3_000_000), Refund(1), Move(3_000_000), Check(A, 1)],
    ),
    "a refund finds its own window in the future": (
        FixedWindow("5/5s"),
        [Check(A, 1), Check(A, 2), Move(-3_000_000), Refund(1), Move(3_000_000), Check(A, 1)],
    ),
    "a refund finds a queue in the future": (
        LeakyBucket("5/5s", queue=4),
        [Check(A, 1), Check(A, 2), Move(-3_000_000), Refund(1), Move(3_000_000), Check(A, 1)],
    ),
    "a refund finds a queue that is longer by less than a microsecond": (
        LeakyBucket("7000/3ms", queue=60),
        [Check(A, 1), Check(A, 1), Move(0), Refund(1), Check(A, 1)],
    ),
    "a refund finds an empty queue": (
        LeakyBucket("5/5s", queue=4),
        [Check(A, 1), Check(A, 2), Move(3_000_000), Refund(1), Move(-1), Check(A, 1)],
    ),
    "a refund finds a full bucket": (
        TokenBucket("5/5s"),
        [Check(A, 1), Check(A, 2), Move(5_000_000), Refund(1), Move(-1), Check(A, 1)],
    ),
    "a refund finds calls that are not counted any more": (
        SlidingWindow("5/5s"),
        [Check(A, 1), Check(A, 2), Move(-1), Refund(1), Move(1), Check(A, 1)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_redis_decides_as_memory_does_when(any_redis: Server, case: str) -> None:
    limit, trace = CASES[case]
    with playing(any_redis.url) as play:
        assert_equal(play([limit], 1_700_000_000_000_000, trace))


# In a cluster the buckets of one key are together, the others each in a slot of their own. Across slots a charge that
# is given back may round a state, and after a clock that goes back that may show.


@pytest.mark.parametrize("scope", SCOPES)
def test_a_cluster_decides_as_in_memory(cluster: Cluster, scope: Scope) -> None:
    together = [limit for limit in ALL if limit.scope == scope]
    compare(cluster.url, one_of(together) | lists_of(together), examples=100)


@pytest.mark.parametrize("steps", [FORWARD, [*FORWARD, *SEVERAL_KEYS]], ids=["one key", "several keys"])
def test_a_list_across_slots_allows_and_charges_as_memory_does(cluster: Cluster, steps: list[Step]) -> None:
    with playing(cluster.url) as play:

        @settings(max_examples=200)
        @given(lists_of(ALL), STARTS, traces_of(steps))  # to charge and give back may round a state of another limit up
        def the_same_is_allowed(limits: list[Limit], start_us: int, trace: list[Step]) -> None:
            for memory, redis in play(limits, start_us, trace):
                assert redis.allowed == memory.allowed
                if redis.allowed:
                    assert by_bucket(redis) == by_bucket(memory)
                elif memory.reason == "blocked" != redis.reason:  # a limit has refused before the blocked key's turn
                    assert steps is not FORWARD
                else:
                    assert redis.retry_us <= memory.retry_us
                    assert by_bucket(redis).items() <= by_bucket(memory).items() or redis.reason == "blocked"

        the_same_is_allowed()


def by_bucket(decision: Decision) -> dict[str, Decision]:
    return {part.bucket: part for part in decision.parts}


# With refusals remembered: nothing is allowed or refused that would not have been.


@pytest.mark.parametrize("lists", [False, True], ids=["one limit", "lists of limits"])
def test_a_cached_refusal_is_refused_in_memory_too(any_redis: Server, lists: bool) -> None:
    cached = 0
    with playing(any_redis.url, deny_cache=10_000) as play:

        @settings(max_examples=400)
        @given(lists_of(ALL) if lists else one_of(ALL), STARTS, FORWARD_TRACES)
        def refusals_are_true(limits: list[Limit], start_us: int, trace: list[Step]) -> None:
            nonlocal cached
            for memory, redis in play(limits, start_us, trace):
                assert redis.allowed == memory.allowed
                if redis.reason != "cached":
                    assert public(redis) == public(memory)
                    continue
                cached += 1
                assert_is_the_word_of_a_limit(redis, memory)

        refusals_are_true()
    assert cached > 100, "the traces reached too few cached refusals"


def assert_is_the_word_of_a_limit(cached: Decision, memory: Decision) -> None:
    """It reports the limit that refused as memory does: that bucket, or the key's block."""
    if memory.reason != "blocked":
        theirs = by_bucket(memory)[cached.bucket]
        assert not theirs.allowed
        # Of a list, other calls may have been charged to some of its buckets since.
        assert cached.measure == theirs.measure or len(memory.parts) > 1
    elif cached.scope == "user":
        assert cached.retry_us >= memory.retry_us
    # else the refusal was another key's, and this key's block was not checked
