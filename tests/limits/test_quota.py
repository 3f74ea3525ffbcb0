"""Quotas by the calendar: the real boundary is told, a debt is carried over it, and a share of what was left."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import Quota
from asgi_ratelimit.limits import Limit
from tests.support.limits import quotas

BERLIN = ZoneInfo("Europe/Berlin")
DAY_US = 86_400_000_000


def moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0, *, tz: tzinfo = UTC) -> int:
    """Microseconds since the epoch."""
    then = datetime(year, month, day, hour, minute, tzinfo=tz)
    return (then - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("quota", "now", "end"),
    [
        (Quota("3/day"), moment(2024, 2, 28, 23, 59), moment(2024, 2, 29)),
        (Quota("3/day", tz="Asia/Kolkata"), moment(2024, 3, 1, 18, 29), moment(2024, 3, 1, 18, 30)),
        (Quota("3/day", tz=BERLIN), moment(2024, 3, 31, tz=BERLIN), moment(2024, 3, 31, 22)),  # 23 hours
        (Quota("3/day", tz=BERLIN), moment(2024, 10, 27, tz=BERLIN), moment(2024, 10, 27, 23)),  # 25 hours
        (Quota("3/week"), moment(2024, 5, 5, 12), moment(2024, 5, 6)),
        (Quota("3/week", starts="sunday"), moment(2024, 5, 5, 12), moment(2024, 5, 12)),
        (Quota("3/month", starts=31), moment(2024, 2, 10), moment(2024, 2, 29)),
        (Quota("3/month", starts=31), moment(2023, 2, 28), moment(2023, 3, 31)),
        (Quota("3/month", tz=BERLIN, starts=15), moment(2024, 5, 20), moment(2024, 6, 14, 22)),
        (Quota("3/year"), moment(2024, 5, 5), moment(2025, 1, 1)),
    ],
    ids=str,
)
def test_it_is_full_again_at_the_boundary_and_no_microsecond_earlier(quota: Quota, now: int, end: int) -> None:
    state = quota.take(None, now, 3)
    assert quota.measure(state, now, 1) == (0, end - now, end - now)
    assert quota.take(state, end - 1, 1) is None
    assert quota.measure(state, end, 1) == (3, 0, 0)
    assert quota.take(state, end, 3) is not None


@given(quotas, st.integers(0, 10**9), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 7)), max_size=30))
def test_its_wait_is_exact_and_no_period_lets_more_pass_than_the_count_and_the_rollover(
    quota: Quota, begin_s: int, trace: list[tuple[int, int]]
) -> None:
    now, state = 1_600_000_000_000_000 + begin_s * 1_000_000, None
    passed: dict[int, int] = {}
    for days, cost in trace:
        now += days * DAY_US // 3
        end = quota.calendar.around(now)[3]
        wanted = max(1, min(cost, quota.capacity))
        wait = quota.measure(state, now, wanted)[2]
        after = quota.take(state, now, wanted)
        assert (after is None) == (wait > 0)
        if wait:
            assert quota.take(state, now + wait - 1, wanted) is None
            assert quota.take(state, now + wait, wanted) is not None
        state = state if after is None else after
        passed[end] = passed.get(end, 0) + (wanted if after is not None else 0)
        assert passed[end] <= quota.capacity + int(quota.capacity * quota.rollover)


# A record that may be dropped changes nothing


@given(quotas, st.integers(0, 10**9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3000))
def test_a_record_that_may_be_dropped_says_the_same_as_none(
    quota: Quota, begin_s: int, cost: int, owed: int, days: int
) -> None:
    now = 1_600_000_000_000_000 + begin_s * 1_000_000
    state = quota.take(None, now, min(cost, quota.capacity))
    state = quota.owe(state, now, owed)[0] if owed else state
    if state is None:
        return
    later = now + days * DAY_US // 3
    if quota.is_full(state, later):
        assert quota.measure(state, later, 1) == quota.measure(None, later, 1)
    if later < quota.calendar.around(now)[3]:
        assert not quota.is_full(state, later)


# What is carried over


def test_a_debt_is_used_in_the_next_period_and_no_later() -> None:
    quota, now = Quota("10/month"), moment(2024, 1, 20)
    state, is_cut = quota.owe(quota.take(None, now, 8), now, 6)
    assert not is_cut
    assert quota.measure(state, now, 1) == (0, moment(2024, 3, 1) - now, moment(2024, 2, 1) - now)
    assert quota.measure(state, now, 7)[2] == moment(2024, 3, 1) - now
    assert quota.measure(state, moment(2024, 2, 1), 1)[0] == 6
    assert quota.measure(state, moment(2024, 2, 29, 23), 1)[0] == 6
    assert quota.measure(state, moment(2024, 3, 1), 1)[0] == 10


def test_a_share_of_what_was_left_is_there_in_addition_for_one_period() -> None:
    quota = Quota("10/month", rollover=0.5)
    state = quota.take(None, moment(2024, 1, 20), 3)
    february = moment(2024, 2, 10)
    assert quota.measure(state, february, 1)[0] == 13  # half of seven, rounded down
    state = quota.take(state, february, 10)
    assert quota.measure(state, february, 1)[0] == 3
    assert quota.measure(state, moment(2024, 3, 1), 1)[0] == 11  # half of three
    assert quota.measure(state, moment(2024, 4, 1), 1)[0] == 15  # of a month without a call all was left
    assert quota.measure(state, moment(2024, 6, 1), 1)[0] == 10  # and then it is forgotten


def test_an_overdrawn_period_leaves_no_rollover() -> None:
    quota, now = Quota("10/month", rollover=1), moment(2024, 1, 20)
    state, _ = quota.owe(quota.take(None, now, 10), now, 4)
    assert quota.measure(state, moment(2024, 2, 1), 1)[0] == 6


def test_what_is_given_back_is_left_for_the_next_period() -> None:
    quota: Limit = Quota("10/month", rollover=1.0)
    now = moment(2024, 1, 20)
    charged = quota.take(None, now, 10)
    state = quota.give_back(charged, now, 10, charged, now)
    assert quota.measure(state, now, 1)[0] == 10
    assert quota.measure(state, moment(2024, 2, 1), 1)[0] == 20
    late = moment(2024, 2, 1)
    assert quota.measure(quota.give_back(charged, late, 10, charged, now), late, 1)[0] == 10  # that month is over


# A quota that changes


def test_another_count_keeps_what_was_used() -> None:
    small, large, now = Quota("10/month"), Quota("100/month"), moment(2024, 1, 20)
    state = large.take(small.take(None, now, 10), now, 50)
    assert large.measure(state, now, 1)[0] == 40
    assert small.measure(state, now, 1) == (0, moment(2024, 2, 1) - now, moment(2024, 2, 1) - now)
    assert small.measure(state, moment(2024, 2, 1), 1)[0] == 10


@pytest.mark.parametrize(
    "options", [{"tz": "Asia/Tokyo"}, {"tz": "America/Los_Angeles"}, {"starts": 20}, {"starts": 22}], ids=str
)
def test_another_zone_or_first_day_hands_nothing_out(options: dict[str, Any]) -> None:
    before, after, now = Quota("10/month"), Quota("10/month", **options), moment(2024, 1, 21)
    for one, other in ((before, after), (after, before)):
        state = one.take(None, now, 10)
        for then in (now, now + 2 * DAY_US):
            if then < one.calendar.around(now)[3]:
                assert other.measure(state, then, 1)[0] == 0
                assert other.take(other.cut(state, then), then, 1) is None
        refused = other.cut(state, now)
        assert other.measure(refused, max(other.calendar.around(now)[3], one.calendar.around(now)[3]), 1)[0] == 10


def test_the_use_of_a_period_that_is_over_is_not_that_of_one_with_another_first_day() -> None:
    state = Quota("10/month").take(None, moment(2023, 12, 10), 10)
    assert Quota("10/month", starts=20).measure(state, moment(2024, 1, 2), 1)[0] == 10


def test_a_quota_of_zero_has_no_room_for_a_rollover_either() -> None:
    quota, zero = Quota("10/month", rollover=1), Quota("0/month", rollover=1)
    state = quota.take(None, moment(2024, 1, 20), 1)
    february = moment(2024, 2, 3)
    assert quota.measure(state, february, 1)[0] == 19
    assert zero.take(state, february, 1) is None
    assert zero.measure(state, february, 1)[0] == 0
    assert zero.cut(state, february) is state
    assert quota.measure(state, february, 1)[0] == 19


def test_a_smaller_plan_has_no_more_in_addition_than_it_holds() -> None:
    large, small = Quota("1000/month", rollover=1), Quota("10/month", rollover=1)
    state = large.take(None, moment(2024, 1, 20), 1)
    february = moment(2024, 2, 3)
    assert large.measure(state, february, 1)[0] == 1999
    state = large.take(state, february, 1)
    assert small.measure(state, february, 1)[0] == 19
    assert small.take(state, february, 19) is not None
    assert small.take(state, february, 20) is None


def test_a_clock_that_goes_back_over_a_boundary_keeps_what_was_used() -> None:
    quota, now = Quota("10/month"), moment(2024, 3, 2)
    state = quota.take(None, now, 10)
    for then in (moment(2024, 2, 27), moment(2024, 1, 3), moment(2020, 5, 5)):
        end = quota.calendar.around(then)[3]
        assert quota.measure(state, then, 1) == (0, end - then, end - then)
        assert quota.cut(state, then) == (end, 10, 0, 0)


# The value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "10/hour"}, "a quota is so many per day, week, month or year"),
        ({"rate": "10/2 days"}, "a quota is so many per day, week, month or year"),
        ({"rate": "-1/day"}, "a quota is so many per day, week, month or year"),
        ({"rate": "x" * 200}, "a quota is so many per day, week, month or year"),
        ({"rate": 10}, "a quota is so many per day, week, month or year"),
        ({"rate": "10/day", "tz": "Berlin"}, "unknown zone 'Berlin'"),
        ({"rate": "10/day", "starts": 3}, "only a month or a week has a first day"),
        ({"rate": "10/month", "starts": 32}, "a month starts on a day from 1 to 31"),
        ({"rate": "10/week", "starts": 1}, "a week starts on a weekday"),
        ({"rate": "10/month", "rollover": 1.5}, "rollover is the share of the rest, from 0 to 1"),
        ({"rate": "10/month", "rollover": float("nan")}, "rollover is the share of the rest"),
        ({"rate": "10/month", "rollover": True}, "rollover is the share of the rest"),
    ],
)
def test_a_bad_quota_is_a_value_error_that_shows_a_right_one(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Quota(**options)


def test_it_is_read_as_it_is_written() -> None:
    assert Quota("50000 per Month") == Quota("50000/month") == Quota("50000/months") == Quota(" 50000 / mo ")
    assert repr(Quota("5/day", unit="tokens")) == "Quota(\"5/day\", unit='tokens')"
    assert [str(Quota(f"5/{unit}")) for unit in ("d", "w", "mo", "y")] == ["5/day", "5/week", "5/month", "5/year"]


def test_a_copy_and_a_pickle_count_by_the_same_calendar() -> None:
    quota, now = Quota("10/month", tz="Europe/Berlin", starts=15, rollover=0.5), moment(2024, 5, 20)
    state = quota.take(None, now, 10)
    for twin in (copy.copy(quota), copy.deepcopy(quota), pickle.loads(pickle.dumps(quota))):
        assert twin == quota
        assert hash(twin) == hash(quota)
        assert twin.measure(state, now, 1) == quota.measure(state, now, 1)


def test_the_period_of_any_moment_is_public() -> None:
    plan = Quota("9/month", tz=BERLIN, starts=15)
    begins, ends = plan.period_at(datetime(2024, 3, 20, 3, tzinfo=ZoneInfo("Asia/Tokyo")))
    assert (begins.isoformat(), ends.isoformat()) == ("2024-03-15T00:00:00+01:00", "2024-04-15T00:00:00+02:00")
    assert plan.period_at(ends)[0] == ends
    assert plan.period_at(ends - timedelta(microseconds=1)) == (begins, ends)


@pytest.mark.parametrize("bad", [datetime(2024, 3, 20), 1_700_000_000, None, "2024-03-20"])
def test_a_moment_without_a_zone_is_in_no_period(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"a moment has a zone, e\.g\. datetime\.now\(UTC\), not "):
        Quota("9/month").period_at(bad)
