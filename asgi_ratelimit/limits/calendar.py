"""The calendar of a quota: where the days, weeks, months and years of a zone begin, in exact microseconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

__all__ = ["Boundaries", "Calendar", "CalendarUnit", "parse_calendar"]

CalendarUnit = Literal["day", "week", "month", "year"]
Boundaries = tuple[int, int, int, int, int]

_UNITS: Final[tuple[CalendarUnit, ...]] = get_args(CalendarUnit)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_MICROSECOND = timedelta(microseconds=1)
_DAY_US = timedelta(days=1) // _MICROSECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_EARLIEST_US = (datetime(10, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US = (datetime(9990, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND

# The periods that are looked at, counted from the one that a moment's local date names. Five are enough, but for two
# cases: the next one has begun, where clocks went back across midnight, or one of them is a day that the zone left out.
_NEARBY = (range(-2, 3), range(-3, 4))


@dataclass(frozen=True, slots=True)
class Calendar:
    """Periods of a zone's calendar: days, weeks, months or years. `parse_calendar` makes one of what a user wrote.

    unit: "day", "week", "month" or "year"
    zone: a ZoneInfo or any other tzinfo
    starts: the first day of a month, 1 to 31, or of a week, 0 (Monday) to 6; 0 for days and years.
        A month that is too short starts on its last day.

    A period begins with the first instant at which its first day has come. That is midnight, the end of a gap that
    swallows midnight, or the first of two midnights. A day that the zone left out is no period.
    """

    unit: CalendarUnit
    zone: tzinfo
    starts: int
    # Of the last answer. Replaced as a whole, so that threads may share a calendar.
    _last: Boundaries = field(default=(0, 0, 0, 0, 0), init=False, repr=False, compare=False)

    # A pickle leaves the last answer behind: another machine's zone database may know better
    def __reduce__(self) -> tuple[type[Calendar], tuple[CalendarUnit, tzinfo, int]]:
        return Calendar, (self.unit, self.zone, self.starts)

    def around(self, now_us: int) -> Boundaries:
        """The boundaries around a moment, in µs since the epoch: b0 < b1 < b2 <= now < b3 < b4.

        The current period goes from b2 to b3. The two before it start at b0 and b1, and the next one ends at b4.
        Raises ValueError outside the years 10 to 9989.
        """
        last = self._last
        if last[2] <= now_us < last[3]:
            return last
        found = self._find(now_us)
        object.__setattr__(self, "_last", found)
        return found

    def _find(self, now_us: int) -> Boundaries:
        if not _EARLIEST_US <= now_us < _LATEST_US:
            raise ValueError(f"a calendar goes from year 10 to 9989; {now_us} µs since 1970 is outside, 0 is inside")
        number = self._period_of(_local(self.zone, now_us).date())
        for nearby in _NEARBY:
            begins = sorted({_first_instant(self.zone, self._first_day(number + near)) for near in nearby})
            following = bisect_right(begins, now_us)
            if 3 <= following <= len(begins) - 2:
                break
        before_last, last, current, end, next_end = begins[following - 3 : following + 2]
        return before_last, last, current, end, next_end

    def _period_of(self, day: date) -> int:
        """The number of the period that has a day: they are counted through."""
        match self.unit:
            case "day":
                return day.toordinal()
            case "week":
                return (day.toordinal() - 1 - self.starts) // 7  # the first day of the year 1 is a Monday
            case "month":
                month = day.year * 12 + day.month - 1
                return month if day.toordinal() >= self._first_day(month) else month - 1
            case "year":
                return day.year

    def _first_day(self, number: int) -> int:
        """The ordinal of the first day of a period."""
        match self.unit:
            case "day":
                return number
            case "week":
                return number * 7 + 1 + self.starts
            case "month":
                year, month = number // 12, number % 12 + 1
                return date(year, month, min(self.starts, monthrange(year, month)[1])).toordinal()
            case "year":
                return date(number, 1, 1).toordinal()


def _local(zone: tzinfo, instant_us: int) -> datetime:
    return (_EPOCH + instant_us * _MICROSECOND).astimezone(zone)


def _offset(zone: tzinfo, instant_us: int) -> int:
    """How far local time is ahead of UTC.

    Only this direction is asked of a zone: from UTC, where each instant has one answer. Some kinds of tzinfo do not
    know the other one.
    """
    offset = _local(zone, instant_us).utcoffset()
    if offset is None:
        raise ValueError(f'{zone!r} does not know its offset from UTC; use a zone such as "Europe/Berlin"')
    return offset // _MICROSECOND


def _first_instant(zone: tzinfo, day: int) -> int:
    """The first instant at which a local date, an ordinal, has come.

    It is less than a day from midnight UTC, as every offset is less than a day. The zone changes at most once in
    these two days: no zone of the database has changed twice within three, and since 1950 not within six.
    """
    midnight = (day - _EPOCH_DAY) * _DAY_US
    earliest, latest = midnight - _DAY_US, midnight + _DAY_US
    before, after = _offset(zone, earliest), _offset(zone, latest)
    if before == after:
        return midnight - before
    span = range(earliest, latest)
    change = earliest + bisect_left(span, True, key=lambda instant: _offset(zone, instant) != before)
    return midnight - before if midnight - before < change else max(change, midnight - after)


def parse_calendar(unit: str, tz: object, starts: object = None) -> Calendar:
    """A calendar as a user describes it.

    unit: "day", "week", "month" or "year"
    tz: a name of the zone database, e.g. "Europe/Berlin", or a tzinfo
    starts: the first day of a month, from 1 to 31, or of a week, e.g. "sunday" or "sun"; the 1st or Monday unless given

    Raises ValueError if there is no such unit, zone or first day.
    """
    for known in _UNITS:
        if unit == known:
            return Calendar(known, _zone(tz), _starts(known, starts))
    raise ValueError(f'a period of the calendar is "day", "week", "month" or "year", not {unit!r:.80}')


def _starts(unit: CalendarUnit, starts: object) -> int:
    if unit == "month":
        return 1 if starts is None else _day_of_month(starts)
    if unit == "week":
        return 0 if starts is None else _weekday(starts)
    if starts is not None:
        raise ValueError(f"only a month or a week has a first day; a {unit} starts by itself: leave out {starts!r:.80}")
    return 0


def _day_of_month(starts: object) -> int:
    if isinstance(starts, bool) or not isinstance(starts, int) or not 1 <= starts <= 31:
        raise ValueError(f"a month starts on a day from 1 to 31, e.g. starts=15, not {starts!r:.80}")
    return starts


def _weekday(starts: object) -> int:
    if isinstance(starts, str):
        for number, weekday in enumerate(_WEEKDAYS):
            if starts.lower() in (weekday, weekday[:3]):
                return number
    raise ValueError(f'a week starts on a weekday, e.g. starts="monday" or "mon", not {starts!r:.80}')


def _zone(tz: object) -> tzinfo:
    if isinstance(tz, str):
        return _named_zone(tz)
    if not isinstance(tz, tzinfo):
        raise ValueError(f'tz is a zone such as "Europe/Berlin" or a tzinfo, not {tz!r:.80}')
    try:
        _offset(tz, 0)
    except (NotImplementedError, TypeError, ValueError):
        raise ValueError(f'{tz!r:.80} cannot convert from UTC; use a zone such as tz="Europe/Berlin"') from None
    return tz


def _named_zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also without a zone database
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):  # a name may also be a directory, or no file's name
        hint = "" if available_timezones() else "; this machine has no zone database: pip install tzdata"
        raise ValueError(f'unknown zone {name!r:.80}; write one such as tz="Europe/Berlin" or "UTC"{hint}') from None
