"""The arithmetic of a bucket whose limit nobody states: the answers of whoever counts teach it.

A permit is taken before a call is sent, and settled when its answer is in. What an answer says held at some moment
between the two, so all that is known of a reset are its bounds. All times are whole microseconds of one clock.
leases.lua is the twin of this file: the same integers, the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["ANSWER", "FIXED", "HIDDEN", "SLIDING", "UNKNOWN", "Answer", "Record", "Verdict"]

UNKNOWN: Final = 0
FIXED: Final = 1  # a window that ends all at once
SLIDING: Final = 2  # one more every `slot`
HIDDEN: Final = 3  # its answers are silent; `limit` in every `slot` is what its refusals have taught

ANSWER: Final = -1  # instead of a wait: until one of the calls in flight is answered

EARLY: Final = 1_000  # headers are rounded to milliseconds, and nobody says in which direction
LATE: Final = 1_000
QUIET: Final = 10_000_000  # after which a new burst begins
KEPT: Final = 60_000_000  # beyond its last moment of use

Verdict = Literal["unsent", "lost", "answered", "limited", "sublimited", "stopped", "banned"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call.

    "unsent": it never left. "lost": it left, and nothing is known. "answered": by anything but a 429. A 429 is
    "limited" (its bucket), "sublimited" (its kind of call alone), "stopped" (everything under the global limit) or
    "banned" (everything). `bucket` is "" and `limit` 0 where the answer did not tell.
    """

    verdict: Verdict
    bucket: str = ""
    limit: int = 0
    remaining: int = 0
    reset_us: int = 0
    retry_us: int = 0


@dataclass(slots=True)
class Record:
    """What is known of one bucket, and the permits that are out."""

    limit: int = 0  # 0: not known
    remaining: int = 0  # as of the last answer: permits that are out are not taken off
    lo: int = 0  # it is full again at `lo` or later,
    hi: int = 0  # and at `hi` at the latest
    asof: int = 0  # when the last answer came
    stopped: int = 0  # until then nothing may go
    probes: int = 1  # may be out while the limit is unknown
    kind: int = UNKNOWN
    slot: int = 0  # what a full bucket's first answer said: of FIXED the window, of SLIDING one token's time
    opened: int = 0  # when the present burst began (of HIDDEN after a refusal: when the next may), and
    passed: int = 0  # how many of its calls were let through without a word about the limit
    flights: dict[str, int] = field(default_factory=dict)  # permit -> when it is given up for lost

    # Before a call

    def wait(self, now: int) -> int:
        """Microseconds until one more may go: 0 for now, ANSWER if that depends on those in flight."""
        self._give_up(now)
        out = len(self.flights)
        if now < self.stopped:
            return self.stopped - now
        if not self.limit:
            return 0 if out < self.probes else ANSWER
        if now >= self.hi:
            return 0 if out < self.limit else ANSWER
        if out < self.remaining:
            return 0
        if self.kind == SLIDING:
            due = self.hi + out * (self.slot + LATE) - (self.limit - 1) * (self.slot - EARLY)
            return max(0, due - now)
        return ANSWER if self.remaining > 0 else self.hi - now

    def take(self, permit: str, now: int, until: int) -> None:
        """A call goes; without an answer by `until` it is given up for lost."""
        is_rested = now >= self.hi if self.kind == HIDDEN else not self.limit and now > self.asof + QUIET
        if is_rested and not self.flights:
            self.opened, self.passed = now, 0
        self.flights[permit] = until

    def over(self) -> int:
        """When nothing is lost any more by forgetting it."""
        return max(self.hi, self.stopped, self.asof, *self.flights.values()) + KEPT

    def _give_up(self, now: int) -> None:
        if self.flights and min(self.flights.values()) <= now:
            for permit in [permit for permit, until in self.flights.items() if until <= now]:
                del self.flights[permit]
                self._count_one(now)

    # After it

    def settle(self, answer: Answer, sent: int, now: int) -> None:
        """Learn from an answer about this bucket; its permit is back already."""
        if answer.verdict == "lost":
            self._count_one(now)
        elif answer.verdict == "limited":
            self._refused(answer, sent, now)
        elif answer.verdict == "answered" and answer.limit:
            self._told(answer, sent, now)
        elif answer.verdict == "answered":
            self._silent(sent, now)

    def _count_one(self, now: int) -> None:
        """A call of which nothing is known may have been counted, perhaps as the first of a full bucket."""
        if self.limit and now >= self.hi:
            self.remaining, self.hi = self.limit - 1, now + self.slot + LATE
            return
        self.remaining = max(0, self.remaining - 1)
        if self.kind == SLIDING:
            self.hi += self.slot

    def _told(self, answer: Answer, sent: int, now: int) -> None:
        lo, hi = sent + answer.reset_us - EARLY, now + answer.reset_us + LATE
        if self.kind == HIDDEN or self.limit != answer.limit:
            self.kind, self.slot, self.lo, self.hi = UNKNOWN, 0, 0, 0
        self.limit = answer.limit
        if self.kind == UNKNOWN and answer.remaining == answer.limit - 1:
            self.slot = answer.reset_us
        if not self.hi:
            self._begin(answer, lo, hi)
        elif hi < self.lo:
            return  # overtaken by the answer to a later call
        elif self.kind == SLIDING:
            self._slide(answer, sent, lo, hi)
        elif self.kind == UNKNOWN and lo > self.hi and now < self.lo and self.slot:
            self.kind = SLIDING  # the same window cannot have been over, and yet its end has moved
            self._slide(answer, sent, lo, hi)
        elif lo > self.hi:
            self._begin(answer, lo, hi)
        else:
            self._narrow(answer, sent, lo, hi, now)
        self.asof = now

    def _begin(self, answer: Answer, lo: int, hi: int) -> None:
        self.remaining, self.lo, self.hi = answer.remaining, lo, hi

    def _slide(self, answer: Answer, sent: int, lo: int, hi: int) -> None:
        if sent >= self.asof:
            self.remaining, self.lo, self.hi = answer.remaining, lo, hi
        else:
            self.remaining = min(self.remaining, answer.remaining)
            self.lo, self.hi = max(self.lo, lo), max(self.hi, hi)

    def _narrow(self, answer: Answer, sent: int, lo: int, hi: int, now: int) -> None:
        later = sent >= self.asof
        self.remaining = answer.remaining if later else min(self.remaining, answer.remaining)
        if self.kind == UNKNOWN and later and answer.remaining < answer.limit - 1 and hi < self.lo + self.slot:
            self.kind = FIXED  # one more was counted, and the end has not moved
        if self.kind == FIXED and now < self.hi:
            self.lo, self.hi = max(self.lo, lo), min(self.hi, hi)
        else:  # perhaps it was counted in the next window already
            self.hi = max(self.hi, hi)

    def _silent(self, sent: int, now: int) -> None:
        self.passed += 1
        self.probes += 1
        if not self.limit:
            self.asof = now
            return
        if self.kind == HIDDEN and sent < self.opened:  # let through before the refusal that we have heard of
            self.limit = max(self.limit, self.passed)
        self._count_one(now)

    def _refused(self, answer: Answer, sent: int, now: int) -> None:
        end = now + answer.retry_us + LATE
        if self.kind == HIDDEN and sent < self.opened:  # of the burst that has been refused already
            if sent + answer.retry_us - EARLY > self.hi:  # and yet by a later window
                self.remaining, self.lo, self.hi = 0, end, end
        elif self.kind == HIDDEN or self._is_silent(answer):
            self._uncover(answer, end)
        else:
            self.kind, self.slot, self.remaining = UNKNOWN, 0, 1
            self.limit = answer.limit or self.limit
            self.lo, self.hi = now, max(self.hi, end, now + answer.reset_us + LATE)
        self.stopped, self.probes, self.asof = max(self.stopped, end), 1, now

    def _is_silent(self, refusal: Answer) -> bool:
        """Whether only refusals tell of the limit, or not even they."""
        return not self.slot and (self.probes > 1 or not (refusal.limit or self.limit))

    def _uncover(self, answer: Answer, end: int) -> None:
        """A refusal by a bucket whose answers are silent: what it let through before is what it allows.

        At least that: answers may be on their way, which `_silent` adds. The window began after `opened`.
        """
        let = max(1, self.passed)
        limit = answer.limit or let
        self.limit = min(limit, let) if self.kind == HIDDEN else limit
        self.passed = 0 if answer.limit else self.passed
        self.slot = end - self.opened if self.opened else answer.retry_us + LATE
        one_us = (answer.reset_us - answer.retry_us) // max(1, answer.limit - 1)
        if answer.limit > 1 and one_us > LATE:  # it is full later than one more may go: it fills one by one
            self.limit, self.slot = 1, one_us + LATE
        self.kind, self.remaining, self.lo, self.hi, self.opened = HIDDEN, 0, end, end, end

    # As it is kept elsewhere

    def text(self) -> str:
        """All of it, as Redis keeps it."""
        numbers = (
            self.limit, self.remaining, self.lo, self.hi, self.asof, self.stopped,
            self.probes, self.kind, self.slot, self.opened, self.passed,
        )  # fmt: skip
        flights = (f"{permit} {until}" for permit, until in sorted(self.flights.items()))
        return " ".join([*map(str, numbers), *flights])
