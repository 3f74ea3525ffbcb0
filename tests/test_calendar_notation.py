"""What a user may write of a calendar: its unit, its zone and its first day."""

from __future__ import annotations

import re
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from asgi_ratelimit.limits.calendar import Calendar, parse_calendar


class Clueless(tzinfo):
    """A tzinfo that answers with None."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        return None


class Abstract(Clueless):
    """A tzinfo that answers not at all."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "tz", ["Europe/Berln", "", "Europe", "CEST", "/etc/passwd", "../zone", "a\0b", "x" * 300, "\ud800", "zone.tab"]
)
def test_an_unknown_zone(tz: str) -> None:
    with pytest.raises(ValueError, match=r'unknown zone .*; write one such as tz="Europe/Berlin" or "UTC"$') as error:
        parse_calendar("month", tz)
    assert f"{tz!r:.80}" in str(error.value)


@pytest.mark.parametrize("tz", [None, 2, b"UTC", timezone, timedelta(hours=2), Clueless(), Abstract()])
def test_what_is_no_zone(tz: object) -> None:
    with pytest.raises(ValueError, match=r"Europe/Berlin") as error:
        parse_calendar("month", tz)
    assert f"{tz!r:.80}" in str(error.value)


def test_a_machine_without_a_zone_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath([])
    try:
        with pytest.raises(ValueError, match=r"unknown zone 'Antarctica/Troll'.* pip install tzdata"):
            parse_calendar("month", "Antarctica/Troll")
        assert parse_calendar("day", "UTC").around(0)[2] == 0
    finally:
        zoneinfo.reset_tzpath()
    assert parse_calendar("month", "Antarctica/Troll").zone is ZoneInfo("Antarctica/Troll")


@pytest.mark.parametrize(
    ("unit", "starts", "right"),
    [
        ("month", 0, "starts=15"),
        ("month", 32, "starts=15"),
        ("month", -1, "starts=15"),
        ("month", 1.0, "starts=15"),
        ("month", True, "starts=15"),
        ("month", "monday", "starts=15"),
        ("month", "15", "starts=15"),
        ("week", 15, 'starts="monday"'),
        ("week", 0, 'starts="monday"'),
        ("week", "mo", 'starts="monday"'),
        ("week", "mondays", 'starts="monday"'),
        ("week", "", 'starts="monday"'),
        ("day", 1, "leave out 1"),
        ("day", "monday", "leave out 'monday'"),
        ("year", 15, "leave out 15"),
        ("year", 0, "leave out 0"),
    ],
)
def test_a_first_day_that_there_is_not(unit: str, starts: object, right: str) -> None:
    with pytest.raises(ValueError, match=re.escape(right)) as error:
        parse_calendar(unit, "UTC", starts)
    assert repr(starts) in str(error.value)
    assert unit in str(error.value)


@pytest.mark.parametrize("unit", ["hour", "fortnight", "", "Month", "months"])
def test_an_unknown_unit(unit: str) -> None:
    with pytest.raises(ValueError, match=f'"day", "week", "month" or "year", not {unit!r}'):
        parse_calendar(unit, "UTC")


def test_a_parsed_calendar() -> None:
    assert parse_calendar("month", "Europe/Berlin", 15) == Calendar("month", ZoneInfo("Europe/Berlin"), 15)
    assert parse_calendar("week", UTC, "Sunday") == Calendar("week", UTC, 6)
    assert parse_calendar("year", "UTC") == Calendar("year", UTC, 0)
