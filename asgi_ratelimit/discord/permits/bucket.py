"""The arithmetic of one bucket. Its limit is not published: the responses to calls teach it.

A permit is taken before a call is sent, and settled when its response is in. A report was true at some
moment between the two. So a reset is only bounded: `reset_min` and `reset_max`. All times are whole microseconds of one
clock. bucket.lua computes the same integers in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["AWAIT_RESPONSE", "FIXED", "HIDDEN", "SLIDING", "UNKNOWN", "CallReport", "LearnedBucket", "Verdict"]

UNKNOWN: Final = 0
FIXED: Final = 1  # a window that ends all at once
SLIDING: Final = 2  # one more every `slot`
HIDDEN: Final = 3  # its responses report no limit; refusals have taught `limit` calls in every `slot`

AWAIT_RESPONSE: Final = -1  # instead of a wait: until one of the calls in flight has its response

EARLY: Final = 1_000  # headers are rounded to milliseconds, up or down
LATE: Final = 1_000
IDLE: Final = 10_000_000  # after which a new burst begins
RETENTION: Final = 60_000_000  # after the last moment at which it matters

Verdict = Literal["unsent", "lost", "answered", "limited", "sublimited", "stopped", "banned"]


@dataclass(frozen=True, slots=True)
class CallReport:
    """The outcome of a call.

    "unsent": it never left. "lost": it left, and there is no response. "answered": the response is no 429. A 429 is
    "limited" (its bucket), "sublimited" (its kind of call alone), "stopped" (everything under the global limit) or
    "banned" (everything). `bucket` is "" and `limit` 0 if the response does not report them.
    """

    verdict: Verdict
    bucket: str = ""
    limit: int = 0
    remaining: int = 0
    reset_us: int = 0
    retry_us: int = 0


@dataclass(slots=True)
class LearnedBucket:
    """The state of one bucket as responses report it, and the permits that are out."""

    limit: int = 0  # 0: not learned yet
    remaining: int = 0  # as of the last response: permits that are out are not taken off
    reset_min: int = 0  # it is full again at `reset_min` or later,
    reset_max: int = 0  # and at `reset_max` at the latest
    updated_at: int = 0  # when the last response came
    stopped: int = 0  # until then no call may go
    probes: int = 1  # may be out while the limit is not learned
    kind: int = UNKNOWN
    slot: int = 0  # as a full bucket's first response reports it: of FIXED the window, of SLIDING one token's time
    opened: int = 0  # when the present burst began (of HIDDEN after a refusal: when the next may), and
    passed: int = 0  # how many of its calls got through with no limit reported
    in_flight: dict[str, int] = field(default_factory=dict)  # permit -> when it counts as lost

    # Before a call

    def wait(self, now: int, spare: int = 0) -> int:
        """Microseconds until one more may go. 0: now. AWAIT_RESPONSE: it depends on the calls in flight.

        `spare` calls are left to others; but one may always go.
        """
        self._expire(now)
        spare = min(spare, max(0, self.limit - 1))
        out = len(self.in_flight) + spare
        if now < self.stopped:
            return self.stopped - now
        if not self.limit:
            return 0 if len(self.in_flight) < self.probes else AWAIT_RESPONSE
        if now >= self.reset_max:
            return 0 if out < self.limit else AWAIT_RESPONSE
        if out < self.remaining:
            return 0
        if self.kind == SLIDING:
            due = self.reset_max + out * (self.slot + LATE) - (self.limit - 1) * (self.slot - EARLY)
            return max(0, due - now)
        return AWAIT_RESPONSE if self.remaining > spare else self.reset_max - now

    def take(self, permit: str, now: int, until: int) -> None:
        """A call goes. Without a response by `until` it counts as lost."""
        is_rested = now >= self.reset_max if self.kind == HIDDEN else not self.limit and now > self.updated_at + IDLE
        if is_rested and not self.in_flight:
            self.opened, self.passed = now, 0
        self.in_flight[permit] = until

    @property
    def is_untouched(self) -> bool:
        """Whether no call but the one that is out may have been counted in it."""
        return not self.limit and not self.updated_at and len(self.in_flight) == 1

    def expires_at(self) -> int:
        """When it may be forgotten without any harm."""
        return max(self.reset_max, self.stopped, self.updated_at, *self.in_flight.values()) + RETENTION

    def _expire(self, now: int) -> None:
        if self.in_flight and min(self.in_flight.values()) <= now:
            for permit in [permit for permit, until in self.in_flight.items() if until <= now]:
                del self.in_flight[permit]
                self._count_one(now)

    # After it

    def settle(self, report: CallReport, sent: int, now: int) -> None:
        """Learn from a report about this bucket. Its permit is back already."""
        if report.verdict == "lost":
            self._count_one(now)
        elif report.verdict == "limited":
            self._on_refusal(report, sent, now)
        elif report.verdict == "answered" and report.limit:
            self._on_limit(report, sent, now)
        elif report.verdict == "answered":
            self._on_silence(sent, now)
        elif report.verdict == "sublimited" and not self.limit:
            self.updated_at = now

    def _count_one(self, now: int) -> None:
        """A call without a response may have been counted, perhaps as the first of a full bucket."""
        if self.limit and now >= self.reset_max:
            self.remaining, self.reset_max = self.limit - 1, now + self.slot + LATE
            return
        if not self.limit:
            self.updated_at = now
        self.remaining = max(0, self.remaining - 1)
        if self.kind == SLIDING:
            self.reset_max += self.slot

    def _on_limit(self, report: CallReport, sent: int, now: int) -> None:
        lo, hi = sent + report.reset_us - EARLY, now + report.reset_us + LATE
        if self.kind == HIDDEN or self.limit != report.limit:
            self.kind, self.slot, self.reset_min, self.reset_max = UNKNOWN, 0, 0, 0
        self.limit = report.limit
        if self.kind == UNKNOWN and report.remaining == report.limit - 1:
            self.slot = report.reset_us
        if not self.reset_max:
            self._reset(report, lo, hi)
        elif hi < self.reset_min:
            return  # overtaken by the response to a later call
        elif self.kind == SLIDING:
            self._slide(report, sent, lo, hi)
        elif self.kind == UNKNOWN and lo > self.reset_max and now < self.reset_min and self.slot:
            self.kind = SLIDING  # the same window cannot have been over, and yet its end has moved
            self._slide(report, sent, lo, hi)
        elif lo > self.reset_max:
            self._reset(report, lo, hi)
        else:
            self._narrow(report, sent, lo, hi, now)
        self.updated_at = now

    def _reset(self, report: CallReport, lo: int, hi: int) -> None:
        self.remaining, self.reset_min, self.reset_max = report.remaining, lo, hi

    def _slide(self, report: CallReport, sent: int, lo: int, hi: int) -> None:
        if sent >= self.updated_at:
            self.remaining, self.reset_min, self.reset_max = report.remaining, lo, hi
        else:
            self.remaining = min(self.remaining, report.remaining)
            self.reset_min, self.reset_max = max(self.reset_min, lo), max(self.reset_max, hi)

    def _narrow(self, report: CallReport, sent: int, lo: int, hi: int, now: int) -> None:
        later = sent >= self.updated_at
        self.remaining = report.remaining if later else min(self.remaining, report.remaining)
        if self.kind == UNKNOWN and later and report.remaining < report.limit - 1 and hi < self.reset_min + self.slot:
            self.kind = FIXED  # one more was counted, and the end has not moved
        if self.kind == FIXED and now < self.reset_max:
            self.reset_min, self.reset_max = max(self.reset_min, lo), min(self.reset_max, hi)
        else:  # perhaps it was counted in the next window already
            self.reset_max = max(self.reset_max, hi)

    def _on_silence(self, sent: int, now: int) -> None:
        self.passed += 1
        self.probes += 1
        if not self.limit:
            self.updated_at = now
            return
        if self.kind == HIDDEN and sent < self.opened:  # let through before the latest refusal
            self.limit = max(self.limit, self.passed)
        self._count_one(now)

    def _on_refusal(self, report: CallReport, sent: int, now: int) -> None:
        end = now + report.retry_us + LATE
        if self.kind == HIDDEN and sent < self.opened:  # of a burst that was refused already
            if sent + report.retry_us - EARLY > self.reset_max:  # and yet by a later window
                self.remaining, self.reset_min, self.reset_max = 0, end, end
        elif self.kind == HIDDEN or self._is_silent(report):
            self._uncover(report, end)
        else:
            self.kind, self.slot, self.remaining = UNKNOWN, 0, 1
            self.limit = report.limit or self.limit
            self.reset_min, self.reset_max = now, max(self.reset_max, end, now + report.reset_us + LATE)
        self.stopped, self.probes, self.updated_at = max(self.stopped, end), 1, now

    def _is_silent(self, refusal: CallReport) -> bool:
        """Whether responses other than refusals report no limit."""
        return not self.slot and (self.probes > 1 or not (refusal.limit or self.limit))

    def _uncover(self, report: CallReport, end: int) -> None:
        """Learn a hidden limit from its refusal: the calls that passed before are the limit.

        It may be higher: more responses may be on their way, and `_on_silence` adds them. The window began after
        `opened`.
        """
        passed = max(1, self.passed)
        limit = report.limit or passed
        self.limit = min(limit, passed) if self.kind == HIDDEN else limit
        self.passed = 0 if report.limit else self.passed
        self.slot = end - self.opened if self.opened else report.retry_us + LATE
        one_us = (report.reset_us - report.retry_us) // max(1, report.limit - 1)
        if report.limit > 1 and one_us > LATE:  # it is full later than one more may go: it fills one by one
            self.limit, self.slot = 1, one_us + LATE
        self.kind, self.remaining, self.reset_min, self.reset_max, self.opened = HIDDEN, 0, end, end, end

    # As it is stored elsewhere

    def as_text(self) -> str:
        """All of it, as it is stored in Redis."""
        numbers = (
            self.limit, self.remaining, self.reset_min, self.reset_max, self.updated_at, self.stopped,
            self.probes, self.kind, self.slot, self.opened, self.passed,
        )  # fmt: skip
        in_flight = (f"{permit} {until}" for permit, until in sorted(self.in_flight.items()))
        return " ".join([*map(str, numbers), *in_flight])
