"""Quota: so many per day, week, month or year of the calendar."""

from __future__ import annotations

import re
from copy import copy
from datetime import UTC, datetime, timedelta, tzinfo

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.limits.base import SHIPPED, Outage, Scope
from asgi_ratelimit.limits.calendar import Boundaries, Calendar, CalendarUnit, parse_calendar
from asgi_ratelimit.limits.counted import Counted, Use
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.shown import shown

__all__ = ["Quota"]

_FORM = re.compile(r"\s*+([0-9]{1,15}+)\s*+(?:/|\bper\b)\s*+([a-z]++)\s*+", re.ASCII | re.IGNORECASE)
_UNITS: dict[str, CalendarUnit] = {
    "day": "day", "d": "day", "week": "week", "w": "week", "month": "month", "mo": "month", "year": "year", "y": "year",
}  # fmt: skip
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_SET_US = 1_000_000  # a smaller change is an error of the measurement
_WIDEST_US = 93_600_000_000  # between the same midnight in two zones
_LONGEST_US = {"day": 2 * _DAY_US, "week": 8 * _DAY_US, "month": 32 * _DAY_US, "year": 367 * _DAY_US}  # clocks change
_USUAL_US = {"day": _DAY_US, "week": 7 * _DAY_US, "month": 2_629_746_000_000, "year": 31_556_952_000_000}


class _Epoch:
    """How far the time since the epoch is ahead of a clock that counts from another moment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_us = self._now_ahead_us()

    def ahead_us(self) -> int:
        """The same number, unless the system's time has been set since."""
        now = self._now_ahead_us()
        if abs(now - self._ahead_us) > _SET_US:
            self._ahead_us = now
        return self._ahead_us

    def _now_ahead_us(self) -> int:
        return round(self._clock.wall() * 1e6) - self._clock.now_us()


class Quota(Counted):
    """`count` in a day, week, month or year of the calendar: `Quota("50000/month", tz="Europe/Berlin", starts=15)`.

    rate: "10/day", "100/week", "50000/month" or "1000000/year"
    tz: the zone of the calendar, as in the zone database, or a tzinfo
    starts: the first day of a month, 1 to 31 (31 is the last day where there is none), or of a week, "monday"
    rollover: the share, 0 to 1, of the rest of a period that the next one has in addition. Of a period in which
        the key was not seen all was left. That is forgotten after two periods without any call

    The state is that of every Counted limit. A debt at the end of a period is used in the next one. A new zone or
    first day keeps the use of the period. The other options are those of every limit. Raises ValueError if the
    quota cannot be read or an option is out of range.
    """

    calendar: Calendar
    rollover: float
    counts_to_zero = True
    _epoch: _Epoch | None  # for states by a clock that counts from another moment

    def __init__(
        self,
        rate: str,
        *,
        tz: str | tzinfo = "UTC",
        starts: int | str | None = None,
        rollover: float = 0.0,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = None,
    ) -> None:
        count, each = _parse(rate)
        if isinstance(rollover, bool) or not isinstance(rollover, (int, float)) or not 0 <= rollover <= 1:
            raise ValueError(f"rollover is the share of the rest, from 0 to 1, e.g. rollover=0.5, not {rollover!r}")
        calendar = parse_calendar(each, tz, starts)
        usual = Rate(count, _USUAL_US[each])
        super().__init__(usual, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)
        self._set(calendar=calendar, rollover=float(rollover), _epoch=None)

    def __getstate__(self) -> dict[str, object]:
        """A copy goes by the epoch itself: a clock belongs to its process."""
        return {**vars(self), "_epoch": None}

    def _options(self) -> tuple[object, ...]:
        return *super()._options(), self.calendar, self.rollover

    def __str__(self) -> str:
        return f"{self.rate.count}/{self.calendar.unit}"

    @property
    def window_us(self) -> int:
        """The longest period in microseconds, a day with a change of the clocks included."""
        return _LONGEST_US[self.calendar.unit]

    def period_at(self, moment: datetime) -> tuple[datetime, datetime]:
        """When the period of a moment begins and ends, in the zone of the calendar: also if nothing is used.

        Raises ValueError if the moment has no zone.
        """
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise ValueError(f"a moment has a zone, e.g. datetime.now(UTC), not {shown(moment)}")
        _, _, start, end, _ = self.calendar.around((moment - _EPOCH) // _MICROSECOND)
        begins, ends = [(_EPOCH + us * _MICROSECOND).astimezone(self.calendar.zone) for us in (start, end)]
        return begins, ends

    def window_at(self, now_us: int) -> int:
        _, _, start, end, _ = self._around(now_us)
        return end - start

    @property
    def keeps_unused(self) -> bool:
        return self.rollover > 0

    def present(self, state: Use | None, now_us: int) -> Use | None:
        if state is None:
            return None
        before_last, last, start, end, _ = self._around(now_us)
        # A record belongs to the period with the end nearest to its own: the rules of a zone may have changed since.
        # One that ends later than now, and later after the start than two zones differ, had another first day.
        if 2 * state[0] > start + end or state[0] > max(now_us, start + _WIDEST_US):
            return (end, *state[1:])
        if 2 * state[0] <= last + start:
            seen = self.rollover and 2 * state[0] > before_last + last  # in the period before the last one
            return (end, 0, 0, self._credit(self.capacity)) if seen else None
        owed, left = self.owed(state), self.room(state[3]) - state[1]
        credit = self._credit(max(0, min(self.capacity, left)))
        return (end, owed, owed, credit) if owed or self.rollover else None

    def _credit(self, left: int) -> int:
        return int(left * self.rollover)

    def fresh(self, now_us: int) -> Use:
        return (self._around(now_us)[3], 0, 0, 0)

    def following_end(self, end: int, now_us: int) -> int:
        return self._around(now_us)[4]

    def _around(self, now_us: int) -> Boundaries:
        if self._epoch is None:
            return self.calendar.around(now_us)
        ahead_us = self._epoch.ahead_us()
        one, two, three, four, five = self.calendar.around(now_us + ahead_us)
        return one - ahead_us, two - ahead_us, three - ahead_us, four - ahead_us, five - ahead_us

    def on(self, clock: Clock) -> Quota:
        epoch = _Epoch(clock)
        if abs(epoch.ahead_us()) < _DAY_US:  # it counts from the epoch itself, as a server's does
            return self
        quota = copy(self)
        object.__setattr__(quota, "_epoch", epoch)
        return quota

    def is_full(self, state: Use, now_us: int) -> bool:
        return state[0] + self._kept_us(state) <= now_us

    def _kept_us(self, state: Use) -> int:
        """How long the record of a period is of use after its end."""
        halves = 5 if self.rollover else 3 if state[2] else 1
        return halves * self.window_us // 2

    def encoded_for(self, now_us: int) -> tuple[int, int] | None:
        return self.calendar.around(now_us)[2:4]

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        kind = "Q" if self.enforce else "q"
        return [kind, self.capacity, cost, self.window_us, self.rollover, *self.calendar.around(now_us)]


SHIPPED.add(Quota)


def _parse(text: object) -> tuple[int, CalendarUnit]:
    match = _FORM.fullmatch(text) if isinstance(text, str) and len(text) <= 100 else None
    unit = _UNITS.get(match[2].lower().removesuffix("s")) if match else None
    if match is None or unit is None:
        raise ValueError(
            f'a quota is so many per day, week, month or year, e.g. Quota("50000/month"), not {shown(text)}; '
            'any other period is a limit such as TokenBucket("100/hour")'
        )
    return int(match[1]), unit
