"""The boundaries of days, weeks, months and years, compared with the zone database read in another way."""

from __future__ import annotations

import copy
import pickle
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.limits.calendar import Calendar, parse_calendar

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Tehran",
    "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "Asia/Beirut",
)  # fmt: skip
DAY = timedelta(days=1)
HOUR_US = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime | str) -> int:
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (moment - EPOCH) // timedelta(microseconds=1)


def local(zone: str, instant: int) -> str:
    """An instant as the zone's clocks show it, e.g. "2024-03-31 00:00"."""
    moment = (EPOCH + timedelta(microseconds=instant)).astimezone(ZoneInfo(zone))
    return f"{moment:%Y-%m-%d %H:%M}"


def starts_around(calendar: Calendar, moment: str) -> list[str]:
    """The five local dates at which the periods around a moment begin."""
    zone = calendar.zone
    return [f"{(EPOCH + timedelta(microseconds=b)).astimezone(zone):%m-%d}" for b in calendar.around(micros(moment))]


# Two references. Both read the zone database in other directions than the calendar


@cache
def days_of(zone: str) -> dict[date, int]:
    """When each day from 1989 to 2041 begins: by the two readings of its midnight, by the minute in a gap."""
    return {day: begin_of(day, ZoneInfo(zone)) for day in first_days("day", 0)}


def begin_of(day: date, zone: ZoneInfo) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    later = midnight.replace(fold=1)
    if midnight.utcoffset() == later.utcoffset():
        return micros(midnight)
    moment = min(midnight.astimezone(UTC), later.astimezone(UTC))
    while moment.astimezone(zone).date() < day:
        moment += timedelta(minutes=1)
    return micros(moment)


@cache
def first_days(unit: str, starts: int) -> list[date]:
    first = date(1989, 1, 1)
    days = (first + number * DAY for number in range((date(2042, 1, 1) - first).days))
    return [day for day in days if is_first(day, unit, starts)]


def is_first(day: date, unit: str, starts: int) -> bool:
    if unit == "week":
        return day.weekday() == starts
    if unit == "month":
        return day.day == starts or (day.day < starts and (day + DAY).day == 1)
    return unit == "day" or (day.month, day.day) == (1, 1)


def walked(zone: str, first: str, days: int) -> Iterator[int]:
    """When the local date became later than ever before, minute by minute."""
    moment = datetime.fromisoformat(first)
    latest = moment.astimezone(ZoneInfo(zone)).date()
    for _ in range(days * 24 * 60):
        moment += timedelta(minutes=1)
        today = moment.astimezone(ZoneInfo(zone)).date()
        if today > latest:
            latest = today
            yield micros(moment)


KINDS = [
    ("day", 0), ("week", 0), ("week", 3), ("week", 6), ("month", 1), ("month", 15), ("month", 29), ("month", 30),
    ("month", 31), ("year", 0),
]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("unit", "starts"), KINDS)
def test_fifty_years_of_boundaries(zone: str, unit: str, starts: int) -> None:
    days = days_of(zone)
    begins = sorted({days[day] for day in first_days(unit, starts)})
    first, last = (bisect_left(begins, micros(f"{year}-01-01T00Z")) for year in (1990, 2040))
    calendar = Calendar(parse_calendar(unit, zone).unit, ZoneInfo(zone), starts)
    for place in asked(begins, max(first, 2), min(last, len(begins) - 3)):
        around = tuple(begins[place - 2 : place + 3])
        assert calendar.around(begins[place]) == around
        assert calendar.around(begins[place + 1] - 1) == around


def asked(begins: list[int], first: int, last: int) -> Iterator[int]:
    """Each period that is not a whole number of days, and of the others enough to see each boundary."""
    for place in range(first, last + 1):
        if not (place - first) % 4 or (begins[place + 1] - begins[place]) % (24 * HOUR_US):
            yield place


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("America/St_Johns", "2006-03-28T12Z"),
        ("America/St_Johns", "2006-10-25T12Z"),
        ("America/St_Johns", "1988-04-01T12Z"),  # two hours at once
        ("America/Sao_Paulo", "2017-10-11T12Z"),
        ("America/Sao_Paulo", "2018-02-14T12Z"),
        ("Pacific/Apia", "2011-12-27T12Z"),
        ("Africa/Cairo", "2023-04-25T12Z"),
        ("Africa/Cairo", "2023-10-23T12Z"),
        ("Asia/Beirut", "2022-03-24T12Z"),
        ("Asia/Beirut", "2022-10-27T12Z"),
        ("Asia/Tehran", "2020-03-18T12Z"),
        ("Australia/Lord_Howe", "2020-04-02T12Z"),
        ("America/Havana", "2020-10-29T12Z"),
        ("Pacific/Kwajalein", "1969-09-28T00Z"),  # the same day almost twice
        ("Pacific/Kwajalein", "1993-08-18T12Z"),  # a day left out
    ],
)
def test_days_begin_where_a_walk_by_the_minute_finds_a_new_date(zone: str, first: str) -> None:
    begins = list(walked(zone, first, 7))
    assert len(begins) >= 6
    for place in range(2, len(begins) - 2):
        around = tuple(begins[place - 2 : place + 3])
        for moment in range(begins[place], begins[place + 1], HOUR_US // 2):
            assert parse_calendar("day", zone).around(moment) == around


@pytest.mark.parametrize(
    ("zone", "noon", "begins", "hours"),
    [
        ("Europe/Berlin", "2024-03-31T12:00+02:00", "2024-03-31 00:00", 23),
        ("Europe/Berlin", "2024-10-27T12:00+01:00", "2024-10-27 00:00", 25),
        ("Australia/Lord_Howe", "2020-04-05T12:00+10:30", "2020-04-05 00:00", 24.5),
        ("America/Sao_Paulo", "2017-10-15T12:00-02:00", "2017-10-15 01:00", 23),
        ("America/Sao_Paulo", "2018-02-17T12:00-02:00", "2018-02-17 00:00", 25),
        ("America/St_Johns", "2006-10-29T12:00-03:30", "2006-10-29 00:00", 25),
        ("America/St_Johns", "2006-10-28T12:00-02:30", "2006-10-28 00:00", 24),
        ("Pacific/Apia", "2011-12-29T12:00-10:00", "2011-12-29 00:00", 24),
    ],
)
def test_the_length_of_a_day(zone: str, noon: str, begins: str, hours: float) -> None:
    around = parse_calendar("day", zone).around(micros(noon))
    assert local(zone, around[2]) == begins
    assert (around[3] - around[2]) / HOUR_US == hours


def test_a_date_that_comes_twice_does_not_take_the_next_day_back() -> None:
    calendar = parse_calendar("day", "America/St_Johns")
    midnight, again = micros("2006-10-29T00:00-02:30"), micros("2006-10-28T23:30-03:30")
    assert local("America/St_Johns", again) == "2006-10-28 23:30"
    assert calendar.around(again)[2] == calendar.around(midnight)[2] == midnight
    assert calendar.around(midnight - 1)[3] == midnight


def test_a_day_that_was_left_out_is_no_period() -> None:
    calendar = parse_calendar("day", "Pacific/Apia")
    assert starts_around(calendar, "2011-12-29T12:00-10:00") == ["12-27", "12-28", "12-29", "12-31", "01-01"]
    assert starts_around(calendar, "2011-12-31T12:00+14:00") == ["12-28", "12-29", "12-31", "01-01", "01-02"]
    month = parse_calendar("month", "Pacific/Apia", 30)
    assert starts_around(month, "2012-01-01T12:00+14:00") == ["10-30", "11-30", "12-31", "01-30", "02-29"]


@pytest.mark.parametrize(
    ("starts", "moment", "begins"),
    [
        (31, "2023-03-15T00Z", ["12-31", "01-31", "02-28", "03-31", "04-30"]),
        (30, "2023-03-15T00Z", ["12-30", "01-30", "02-28", "03-30", "04-30"]),
        (29, "2023-02-28T00Z", ["12-29", "01-29", "02-28", "03-29", "04-29"]),
        (31, "2024-02-29T00Z", ["12-31", "01-31", "02-29", "03-31", "04-30"]),
        (29, "2024-02-28T23:59Z", ["11-29", "12-29", "01-29", "02-29", "03-29"]),
        (28, "2100-03-01T00Z", ["12-28", "01-28", "02-28", "03-28", "04-28"]),
        (None, "2024-01-31T00Z", ["11-01", "12-01", "01-01", "02-01", "03-01"]),
        (15, "2024-01-14T23:59Z", ["10-15", "11-15", "12-15", "01-15", "02-15"]),
    ],
)
def test_a_month_that_is_too_short_starts_on_its_last_day(starts: int | None, moment: str, begins: list[str]) -> None:
    assert starts_around(parse_calendar("month", "UTC", starts), moment) == begins


def test_leap_days_and_leap_years() -> None:
    assert starts_around(parse_calendar("day", "UTC"), "2024-02-29T12Z") == [
        "02-27",
        "02-28",
        "02-29",
        "03-01",
        "03-02",
    ]
    assert starts_around(parse_calendar("day", "UTC"), "2100-03-01T12Z") == [
        "02-27",
        "02-28",
        "03-01",
        "03-02",
        "03-03",
    ]
    years = parse_calendar("year", "UTC").around(micros("2024-12-31T23:59Z"))
    assert [(end - begin) // (24 * HOUR_US) for begin, end in pairwise(years)] == [365, 365, 366, 365]


@pytest.mark.parametrize(
    ("starts", "begins"),
    [
        (None, "11-23"),
        ("monday", "11-23"),
        ("sun", "11-22"),
        ("SATURDAY", "11-28"),
        ("Thu", "11-26"),
        ("friday", "11-27"),
    ],
)
def test_a_week_starts_on_its_weekday(starts: str | None, begins: str) -> None:
    calendar = parse_calendar("week", "Europe/Berlin", starts)  # 2026-11-28 is a Saturday
    assert starts_around(calendar, "2026-11-28T12Z")[2] == begins


def test_moments_around_and_before_1970() -> None:
    days, months = parse_calendar("day", "UTC"), parse_calendar("month", "America/New_York")
    day = 24 * HOUR_US
    assert days.around(0) == (-2 * day, -day, 0, day, 2 * day)
    assert days.around(-1) == (-3 * day, -2 * day, -day, 0, day)
    assert starts_around(months, "1951-04-30T23:59:59.999999-04:00") == ["02-01", "03-01", "04-01", "05-01", "06-01"]
    assert local("America/New_York", months.around(0)[2]) == "1969-12-01 00:00"


calendars = st.builds(
    lambda kind, zone: Calendar(parse_calendar(kind[0], zone).unit, ZoneInfo(zone), kind[1]),
    st.sampled_from(KINDS),
    st.sampled_from((*ZONES, "Pacific/Kwajalein", "Asia/Gaza", "Africa/Monrovia", "Pacific/Kiritimati")),
)
moments = st.integers(micros("1950-01-01T00Z"), micros("2150-01-01T00Z"))


@given(calendars, moments)
def test_periods_join_without_a_gap(calendar: Calendar, now: int) -> None:
    b0, b1, b2, b3, b4 = around = calendar.around(now)
    assert b0 < b1 < b2 <= now < b3 < b4
    assert copy.copy(calendar).around(b2) == copy.copy(calendar).around(b3 - 1) == around
    assert calendar.around(b3)[:4] == (b1, b2, b3, b4)
    assert calendar.around(b2 - 1)[1:] == (b0, b1, b2, b3)
    assert calendar.around(b4 - 1)[1:4] == (b2, b3, b4)


@given(calendars, moments)
def test_a_period_begins_with_its_first_day(calendar: Calendar, now: int) -> None:
    begin = calendar.around(now)[2]
    before, after = ((EPOCH + timedelta(microseconds=b)).astimezone(calendar.zone).date() for b in (begin - 1, begin))
    days = (before + number * DAY for number in range(1, (after - before).days + 1))
    assert any(is_first(day, calendar.unit, calendar.starts) for day in days)


# The zones


class Localizing(tzinfo):
    """A tzinfo that only converts from UTC, as those of some packages: asked by itself it answers local mean time."""

    asked = 0

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(minutes=53, seconds=28)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta()

    def tzname(self, moment: datetime | None) -> str:
        return "LMT"

    def fromutc(self, moment: datetime) -> datetime:
        self.asked += 1
        converted = moment.replace(tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
        return converted.replace(tzinfo=timezone(converted.utcoffset() or timedelta()))


@pytest.mark.parametrize("moment", ["2024-03-31T12Z", "2024-10-26T22Z", "2024-07-01T00Z", "2024-12-31T23Z"])
def test_a_tzinfo_that_converts_only_from_utc(moment: str) -> None:
    mine, database = parse_calendar("day", Localizing()), parse_calendar("day", "Europe/Berlin")
    assert mine.around(micros(moment)) == database.around(micros(moment))


@pytest.mark.parametrize("offset", [timedelta(hours=5, minutes=45), -timedelta(hours=23, microseconds=1), timedelta()])
def test_a_fixed_offset_to_the_microsecond(offset: timedelta) -> None:
    midnight = micros(datetime(2024, 5, 1, tzinfo=timezone(offset)))
    calendar = parse_calendar("month", timezone(offset))
    assert calendar.around(midnight)[2] == midnight == calendar.around(midnight - 1)[3]


def test_the_same_period_is_not_looked_up_twice() -> None:
    zone = Localizing()
    calendar = parse_calendar("month", zone)
    found = calendar.around(0)
    before = zone.asked
    assert calendar.around(HOUR_US) is calendar.around(found[3] - 1) is found
    assert zone.asked == before
    assert calendar.around(found[3])[2] == found[3]


def test_equality_hash_and_repr_ignore_the_last_answer() -> None:
    used, fresh = parse_calendar("month", "Europe/Berlin", 15), parse_calendar("month", "Europe/Berlin", 15)
    written = repr(used)
    used.around(0)
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert repr(used) == written
    assert used != parse_calendar("month", "Europe/Berlin", 16)


def test_copies_and_pickles() -> None:
    calendar = parse_calendar("week", "America/St_Johns", "wed")
    found = calendar.around(0)
    for twin in (copy.copy(calendar), copy.deepcopy(calendar), pickle.loads(pickle.dumps(calendar))):
        assert twin == calendar
        assert twin.around(0) == found
    assert pickle.dumps(calendar) == pickle.dumps(parse_calendar("week", "America/St_Johns", "wed"))


def test_threads_share_a_calendar() -> None:
    calendar = parse_calendar("day", "Europe/Berlin")
    days = [micros("2024-03-30T00Z") + number * 12 * HOUR_US for number in range(8)] * 50
    expected = [parse_calendar("day", "Europe/Berlin").around(day) for day in days[:8]] * 50
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(calendar.around, days)) == expected


@pytest.mark.parametrize("year", [-10_000, 1, 9, 9990, 300_000])
def test_a_clock_outside_the_calendar(year: int) -> None:
    now = (year - 1970) * 366 * 24 * HOUR_US if year > 9 else micros("0001-01-01T00Z") + min(year, 9) * HOUR_US
    with pytest.raises(ValueError, match=f"{now} µs .* outside"):
        parse_calendar("year", "Europe/Berlin").around(now)


@pytest.mark.parametrize("unit", ["day", "week", "month", "year"])
def test_the_ends_of_the_calendar(unit: str) -> None:
    for moment in ("0010-01-01T00Z", "9989-12-31T23:59:59.999999Z"):
        b0, b1, b2, b3, b4 = parse_calendar(unit, "Europe/Berlin").around(micros(moment))
        assert b0 < b1 < b2 <= micros(moment) < b3 < b4
