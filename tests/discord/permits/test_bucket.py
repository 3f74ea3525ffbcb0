"""The arithmetic of a learned bucket, against servers that count as they like: no refusal, and nothing left unused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, product
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asgi_ratelimit.discord.permits.bucket import (
    AWAIT_RESPONSE,
    FIXED,
    HIDDEN,
    LATE,
    SLIDING,
    UNKNOWN,
    CallReport,
    LearnedBucket,
)
from asgi_ratelimit.discord.permits.memory import EXPIRY_US

START = 1_700_000_000_000_000
SECOND = 1_000_000


# Whoever counts. What they say of time is in milliseconds, in each way in which that can be meant.

ROUNDED: dict[str, Callable[[int], int]] = {
    "to the nearest": lambda us: (us + 500) // 1000 * 1000,
    "up": lambda us: -(-us // 1000) * 1000,
    "down": lambda us: us // 1000 * 1000,
}


@dataclass
class FixedServer:
    """A window begins with its first call."""

    limit: int
    window: int
    rounded: Callable[[int], int]
    used: int = 0
    end: int = 0

    def count(self, now: int) -> CallReport:
        if now >= self.end:
            self.used, self.end = 0, self.next_end(now)
        reset = self.end - now
        if self.used >= self.limit:
            return CallReport("limited", "b", self.limit, 0, self.rounded(reset), reset)
        self.used += 1
        return CallReport("answered", "b", self.limit, self.limit - self.used, self.rounded(reset))

    def next_end(self, now: int) -> int:
        return now + self.window

    def shortest(self, calls: int, round_trip: int) -> int:
        """For so many calls, if none is ever refused: nobody can know earlier that a window is over."""
        return (calls - 1) // self.limit * (self.window + round_trip)


class ClockServer(FixedServer):
    """Windows begin by the clock."""

    def next_end(self, now: int) -> int:
        return (now // self.window + 1) * self.window


@dataclass
class SlidingServer:
    """One call more every `window / limit`."""

    limit: int
    window: int
    rounded: Callable[[int], int]
    full: int = 0

    def count(self, now: int) -> CallReport:
        slot = self.window // self.limit
        full = max(self.full, now) + slot
        retry = full - now - self.limit * slot
        if retry > 0:
            return CallReport("limited", "b", self.limit, 0, self.rounded(self.full - now), retry)
        self.full = full
        return CallReport("answered", "b", self.limit, -retry // slot, self.rounded(full - now))

    def shortest(self, calls: int, round_trip: int) -> int:
        trip = round_trip if self.limit == 1 else 0  # with one at a time, as above
        return max(0, calls - self.limit) * (self.window // self.limit + trip)


@dataclass
class HiddenServer(FixedServer):
    """Its answers are silent, and its refusals say what they like of the limit, but always for how long."""

    tells: bool = True

    def count(self, now: int) -> CallReport:
        answer = super().count(now)
        if answer.verdict == "answered":
            return CallReport("answered")
        return answer if self.tells else CallReport("limited", retry_us=answer.retry_us)


SERVERS = (FixedServer, ClockServer, SlidingServer)
SomeServer = FixedServer | SlidingServer


# The way to them.

LATENCIES: dict[str, Callable[[Random], int]] = {
    "none": lambda _: 0,
    "a millisecond": lambda random: random.randrange(2_000),
    "up to 60 ms": lambda random: random.randrange(60_000),
    "with spikes": lambda random: random.randrange(5_000, 30_000) + (250_000 if random.random() < 0.1 else 0),
    "on a busy machine": lambda random: random.randrange(60_000) + random.choice((0, 0, random.randrange(400_000))),
}
SOON = [latency for latency in LATENCIES if latency != "on a busy machine"]
LONGEST = 2 * 60_000  # there and back, without spikes


@dataclass
class Client:
    """Sends calls as the bucket allows; what is refused is sent again."""

    server: SomeServer
    latency: Callable[[], int]
    bucket: LearnedBucket = field(default_factory=LearnedBucket)
    now: int = START
    waiting: int = 0
    counted: list[int] = field(default_factory=list)  # when, by the server
    refused: int = 0

    def play(self, arrivals: Sequence[int]) -> None:
        self._order, self._alarm = count(), -1
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        for moment in arrivals:
            self._at(moment, self._arrive)
        while self._events:
            self.now, number, happen = heappop(self._events)
            if happen() is not self._wake or number == self._alarm:
                self._send()
        assert not self.waiting, "some were never sent"
        assert not self.bucket.in_flight

    def _at(self, moment: int, happen: Callable[[], object]) -> int:
        number = next(self._order)
        heappush(self._events, (moment, number, happen))
        return number

    def _arrive(self) -> None:
        self.waiting += 1

    def _wake(self) -> object:
        return self._wake

    def _send(self) -> None:
        while self.waiting:
            wait = self.bucket.wait(self.now)
            if wait:
                assert wait != AWAIT_RESPONSE or self.bucket.in_flight, "it waits for a response that never comes"
                self._alarm = self._at(self.now + wait, self._wake) if wait != AWAIT_RESPONSE else -1
                return
            self.waiting -= 1
            permit, sent = f"permit{next(self._order)}", self.now
            self.bucket.take(permit, sent, sent + EXPIRY_US)
            self._at(sent + self.latency(), lambda permit=permit, sent=sent: self._reach(permit, sent))  # type: ignore[misc]

    def _reach(self, permit: str, sent: int) -> None:
        answer = self.server.count(self.now)
        if answer.verdict == "answered":
            self.counted.append(self.now)
        self._at(self.now + self.latency(), lambda: self._hear(permit, sent, answer))

    def _hear(self, permit: str, sent: int, answer: CallReport) -> None:
        del self.bucket.in_flight[permit]
        self.bucket.settle(answer, sent, self.now)
        if answer.verdict == "limited":
            self.refused, self.waiting = self.refused + 1, self.waiting + 1


def in_bursts(random: Random, calls: int, window: int, limit: int) -> Iterator[int]:
    """Moments: sometimes more than a bucket at once, sometimes long nothing."""
    moment = START
    for _ in range(calls):
        if random.random() < 1 / limit:
            moment += random.choice((window // limit, window, 2 * window, random.randrange(30 * window)))
        yield moment


def client_of(server: SomeServer, latency: str, random: Random) -> Client:
    return Client(server, lambda: LATENCIES[latency](random))


LIMITS = st.sampled_from([1, 1, 2, 3, 5, 10, 30])
WINDOWS = st.integers(200_000, 60 * SECOND)
ROUNDINGS = st.sampled_from(list(ROUNDED))
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize("latency", SOON)
@pytest.mark.parametrize("kind", SERVERS)
def test_the_only_client_of_a_bucket_is_never_refused(kind: type[SomeServer], latency: str) -> None:
    @settings(max_examples=30)
    @given(LIMITS, WINDOWS, ROUNDINGS, SEEDS, st.sampled_from(["at once", "in bursts"]))
    def it_is_not(limit: int, window: int, rounding: str, seed: int, how: str) -> None:
        assume(window // limit > 2 * LATE)  # else the clock is too coarse for it
        assume(latency != "with spikes" or window > 600_000)  # an answer that took a whole window tells nothing of it
        random, calls = Random(seed), 6 * limit + 3
        client = client_of(kind(limit, window, ROUNDED[rounding]), latency, random)
        client.play([START] * calls if how == "at once" else list(in_bursts(random, calls, window, limit)))
        assert client.refused == 0
        assert len(client.counted) == calls

    it_is_not()


@pytest.mark.parametrize("latency", ["none", "up to 60 ms"])
@pytest.mark.parametrize("kind", [FixedServer, SlidingServer])
def test_in_the_long_run_no_quota_is_lost(kind: type[SomeServer], latency: str) -> None:
    @settings(max_examples=12)
    @given(LIMITS, st.integers(2 * SECOND, 20 * SECOND), ROUNDINGS, SEEDS)
    def it_is_not(limit: int, window: int, rounding: str, seed: int) -> None:
        server, calls = kind(limit, window, ROUNDED[rounding]), 25 * limit
        client = client_of(server, latency, Random(seed))
        client.play([START] * calls)
        needed = client.counted[-1] - client.counted[0]
        assert server.shortest(calls, LONGEST if latency != "none" else 0) >= 0.95 * needed

    it_is_not()


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_client_that_finds_the_bucket_used_is_refused_once_at_most(kind: type[SomeServer], latency: str) -> None:
    """As it is after a restart. Nothing is known of the first call's bucket, so it may be refused."""

    @settings(max_examples=15)
    @given(LIMITS, st.integers(SECOND, 20 * SECOND), SEEDS, st.data())
    def it_is(limit: int, window: int, seed: int, data: st.DataObject) -> None:
        server = kind(limit, window, ROUNDED["to the nearest"])
        for _ in range(data.draw(st.integers(1, limit))):
            server.count(START - 10_000)
        client = client_of(server, latency, Random(seed))
        client.play([START] * (6 * limit))
        assert client.refused <= 1

    it_is()


# What the traffic above meets too seldom, or not at all

SLOT = 200_000


def report(remaining: int, reset: int, limit: int = 5) -> CallReport:
    return CallReport("answered", "b", limit, remaining, reset)


def told_record(kind: int) -> LearnedBucket:
    """Of five; the second call has just been answered."""
    bucket = LearnedBucket()
    bucket.settle(report(4, 5 * SLOT if kind == FIXED else SLOT), START, START)
    bucket.settle(report(3, 5 * SLOT if kind == FIXED else 2 * SLOT), START, START)
    assert bucket.kind == kind
    return bucket


def test_the_second_answer_shows_whether_a_bucket_slides() -> None:
    assert (told_record(SLIDING).slot, told_record(FIXED).slot) == (SLOT, 5 * SLOT)


@pytest.mark.parametrize("kind", [FIXED, SLIDING])
def test_a_lost_call_may_have_been_the_first_of_a_full_bucket(kind: int) -> None:
    bucket = told_record(kind)
    now = bucket.reset_max + SECOND
    bucket.settle(CallReport("lost"), now, now)
    assert (bucket.remaining, bucket.reset_max) == (4, now + bucket.slot + LATE)


def test_a_lost_call_counts() -> None:
    fixed, sliding = told_record(FIXED), told_record(SLIDING)
    full = sliding.reset_max
    for bucket in (fixed, sliding):
        bucket.settle(CallReport("lost"), START, START)
    assert (fixed.remaining, sliding.remaining, sliding.reset_max) == (2, 2, full + SLOT)


def test_a_permit_that_is_not_settled_counts_as_lost_when_its_time_is_over() -> None:
    bucket = told_record(FIXED)
    bucket.take("a", START, START + 1_000)
    assert (bucket.wait(START + 999), len(bucket.in_flight), bucket.remaining) == (0, 1, 3)
    assert (bucket.wait(START + 1_000), len(bucket.in_flight), bucket.remaining) == (0, 0, 2)


def test_another_limit_is_learned_again() -> None:
    bucket = told_record(SLIDING)
    bucket.settle(report(6, 4 * SECOND, limit=9), START, START + 1)
    assert (bucket.limit, bucket.remaining, bucket.kind, bucket.slot) == (9, 6, UNKNOWN, 0)


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    bucket = told_record(FIXED)
    later = bucket.reset_max + 10 * SECOND
    bucket.settle(report(1, 5 * SLOT), later, later)
    before = bucket.as_text()
    bucket.settle(report(4, SLOT), START, later + 1)
    assert bucket.as_text() == before


def test_answers_without_a_word_about_the_limit_let_more_go_at_once() -> None:
    bucket = LearnedBucket()
    allowed = []
    for _ in range(3):
        while bucket.wait(START) == 0:
            bucket.take(f"permit{len(bucket.in_flight)}", START, START + EXPIRY_US)
        allowed.append(len(bucket.in_flight))
        bucket.in_flight.clear()
        bucket.settle(CallReport("answered"), START, START)
    assert allowed == [1, 2, 3]


def test_a_hidden_limit_is_the_number_let_through_before_the_refusal() -> None:
    bucket = LearnedBucket()
    for moment in range(START, START + 3):
        bucket.take("a", moment, moment + EXPIRY_US)
        del bucket.in_flight["a"]
        bucket.settle(CallReport("answered"), moment, moment)
    bucket.settle(CallReport("limited", retry_us=SECOND), START + 3, START + 3)
    assert (bucket.kind, bucket.limit, bucket.slot) == (HIDDEN, 3, SECOND + 3 + LATE)
    assert bucket.wait(START + 3) == SECOND + LATE
    then = bucket.reset_max
    bucket.settle(CallReport("answered"), then, then)
    assert (bucket.wait(then), bucket.remaining) == (0, 2)


@pytest.mark.parametrize("tells", [True, False], ids=["the refusal tells it", "nothing tells it"])
@pytest.mark.parametrize("latency", LATENCIES)
def test_a_hidden_limit_refuses_the_calls_in_flight_when_it_is_reached(latency: str, tells: bool) -> None:
    for seed, limit in product(range(50), (1, 2, 5)):
        server = HiddenServer(limit, 1_200_000, ROUNDED["up"], tells=tells)
        client = client_of(server, latency, Random(seed))
        client.play([START] * (4 * limit + 1))
        assert 0 < client.refused <= limit + 1, seed
        assert client.bucket.limit == limit, seed


def hidden_record() -> LearnedBucket:
    """Two of them passed, and the third one was refused, until a second after START."""
    bucket = LearnedBucket(kind=HIDDEN, limit=2, slot=SECOND, passed=2, opened=START)
    bucket.settle(CallReport("limited", retry_us=SECOND), START, START)
    return bucket


def test_a_refusal_that_is_read_late_is_of_the_same_window() -> None:
    bucket = hidden_record()
    end, sent = bucket.reset_max, bucket.reset_max + 1000
    bucket.take("a", sent, sent + EXPIRY_US)
    bucket.settle(CallReport("limited", retry_us=SECOND), START + 1, sent + 1)
    assert (bucket.reset_max, bucket.stopped) == (end, sent + 1 + SECOND + LATE)  # it is obeyed all the same
    del bucket.in_flight["a"]
    bucket.settle(CallReport("answered"), sent, bucket.stopped)
    assert (bucket.wait(bucket.stopped), bucket.remaining) == (0, 1)  # one of two: its window is the present one


def test_a_refusal_by_a_later_window_moves_the_end() -> None:
    bucket = hidden_record()
    bucket.settle(CallReport("limited", retry_us=2 * SECOND), START + 1, START + 2)
    assert bucket.reset_max == bucket.stopped == START + 2 + 2 * SECOND + LATE


def test_calls_that_turn_out_to_have_passed_before_the_refusal_count_too() -> None:
    bucket = hidden_record()
    bucket.settle(CallReport("answered"), START, START + 1)
    assert (bucket.limit, bucket.remaining) == (3, 0)


def test_a_record_is_over_when_nothing_can_be_learned_from_it() -> None:
    bucket = told_record(FIXED)
    bucket.take("a", START, START + EXPIRY_US)
    assert bucket.expires_at() == START + EXPIRY_US + 60 * SECOND


def test_a_text_contains_all_of_a_record() -> None:
    bucket = LearnedBucket(1, 2, 3, 4, 5, 6, 7, 3, 8, 9, 10, {"b": 12, "a": 11})
    assert bucket.as_text() == "1 2 3 4 5 6 7 3 8 9 10 a 11 b 12"
