"""A limit is a frozen value: how it is written, what makes its identity, and what is refused in words."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Quota, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit, as_limits

KINDS: list[type[Limit]] = [TokenBucket, LeakyBucket, FixedWindow, SlidingWindow, Quota]


def endless() -> list[Any]:
    """A list that contains itself."""
    limits: list[Any] = []
    limits.append(limits)
    return limits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenBucket("5/"), "cannot read the limit '5/'"),
        (lambda: TokenBucket("0/s burst 5"), "a limit of zero has no burst"),
        (lambda: TokenBucket("0/s", burst=5), "a limit of zero has no burst"),
        (lambda: Limit("0/s"), "refuses every call"),
        (lambda: TokenBucket("5/s", burst=0), "burst must be a whole number of at least 1"),
        (lambda: TokenBucket("5/s", burst=float("nan")), "burst must be a whole number"),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", burst=True), "burst must be a whole number"),
        (lambda: TokenBucket("5/s burst 6", burst=7), "the burst is given twice"),
        (lambda: TokenBucket(5), "a limit is a string such as"),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", scope="everyone"), 'scope must be "user", "global" or "shared"'),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", name=""), "the name of a limit is a string"),
        (lambda: LeakyBucket("5/s", queue=-1), "queue must be a whole number of at least 0"),
        (lambda: LeakyBucket("5/s burst 6"), "a LeakyBucket has no burst"),
        (lambda: SlidingWindow("5/s burst 6"), "a SlidingWindow has no burst"),
        (lambda: FixedWindow("5/s burst 6"), "a FixedWindow has no burst"),
        (lambda: TokenBucket("99999999999/ms"), "too fine or too deep"),
        (lambda: TokenBucket("1/60000d"), "too long to count exactly"),
        (lambda: TokenBucket("1/day burst 99999"), "too fine or too deep"),
        (lambda: as_limits([]), "an empty list limits nothing"),
        (lambda: TokenBucket("5/s", enforce=1), "enforce is True, or False for a soft limit"),  # type: ignore[arg-type]
        (lambda: TokenBucket("5/s", unit=""), "the unit of a limit is a string"),
        (lambda: TokenBucket("5/month"), r'a limit by the calendar, as in Quota\("3000/month"\)'),
        (lambda: as_limits(["5/s", "5/s"]), 'name one of them if both are meant, e.g. TokenBucket'),
        (lambda: as_limits(["5/s", "9/s burst 20"]), "have the same kind and period"),
        (lambda: as_limits([FixedWindow("5/60s"), FixedWindow("9/minute")]), "have the same kind and period"),
        (lambda: as_limits([Quota("5/day"), Quota("9/day", tz="Asia/Tokyo")]), "have the same kind and period"),
        (lambda: as_limits(None), "a limit is a string such as"),
        (lambda: as_limits(itertools.repeat("5/s")), "at most 100 limits"),
        (lambda: as_limits(f"1/{count}s" for count in itertools.count(1)), "at most 100 limits"),
        (lambda: as_limits(endless()), "a limit is a string such as"),
        (lambda: as_limits(0), '"0/day" refuses every call'),
        (lambda: as_limits(60), 'write the period as well, "60/minute"'),
        (lambda: as_limits(5), "a limit is a string such as"),
        (lambda: as_limits(float("nan")), "a limit is a string such as"),
        (lambda: as_limits({"5/s": 1}), "a limit is a string such as"),
        (lambda: as_limits(["5/s", None]), "a limit is a string such as"),
    ],
)  # fmt: skip
def test_a_bad_limit_is_a_value_error_that_says_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_is_a_frozen_value(kind: Any) -> None:
    options = {"name": "burst", "scope": "shared", "outage": "open", "enforce": False, "unit": "tokens"}
    limit = kind("7/day", **options)
    assert limit == kind("7/day", **options)
    assert hash(limit) == hash(kind("7/day", **options))
    assert limit != kind("8/day", **options)
    for option in options:
        assert limit != kind("7/day", **{name: value for name, value in options.items() if name != option}), option
    assert pickle.loads(pickle.dumps(limit)) == copy.deepcopy(limit) == limit
    with pytest.raises(FrozenInstanceError):
        limit.capacity = 9
    with pytest.raises(FrozenInstanceError):
        del limit.capacity


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_and_what_a_client_sees_are_no_part_of_a_limit_s_identity(kind: Any) -> None:
    limit = kind("7/day", name="burst", scope="shared")
    for changed in (
        kind("8/day", name="burst", scope="shared"),
        kind("7/day", name="burst", scope="shared", enforce=False),
        kind("7/day", name="burst", scope="shared", outage="closed", unit="tokens"),
    ):
        assert changed.identity == limit.identity
    others = [kind("7/day", scope="shared"), kind("7/day", name="burst"), kind("7/week", name="burst", scope="shared")]
    assert len({limit.identity, *(other.identity for other in others)}) == 4


def test_the_burst_the_queue_and_the_calendar_s_place_are_no_part_of_it_either() -> None:
    assert TokenBucket("5/s").identity == TokenBucket("7/s burst 30").identity
    assert LeakyBucket("5/s", queue=0).identity == LeakyBucket("7/s", queue=9).identity
    assert TokenBucket("60/60s").identity == TokenBucket("1/minute").identity
    quotas = [Quota("5/month"), Quota("5/month", tz="Asia/Tokyo"), Quota("5/month", starts=9, rollover=0.5)]
    assert len({quota.identity for quota in quotas}) == 1
    assert len(set(quotas)) == 3


def test_kinds_of_the_same_period_have_buckets_of_their_own() -> None:
    assert len({kind("5/day").identity for kind in KINDS}) == len(KINDS)
    names = ("burst", "sustained")
    assert len(as_limits([TokenBucket("10/s", name=name) for name in names])) == 2


def test_kinds_of_the_same_rate_are_different_limits() -> None:
    assert len({TokenBucket("5/s"), LeakyBucket("5/s", queue=4), FixedWindow("5/s"), SlidingWindow("5/s")}) == 4


def test_a_limit_shows_how_it_is_written() -> None:
    assert str(TokenBucket("60/60s")) == "60/minute"
    assert repr(TokenBucket("50/s burst 100", scope="global")) == "TokenBucket(\"50/second burst 100\", scope='global')"
    assert TokenBucket("90/minute").period == 60.0
    assert TokenBucket("90/minute").count == 90
    assert (
        repr(FixedWindow("5/s", enforce=False, unit="bytes"))
        == "FixedWindow(\"5/second\", unit='bytes', enforce=False)"
    )


def test_a_nested_list_of_limits_is_flattened() -> None:
    assert as_limits(["5/s", [FixedWindow("9/h")]]) == (TokenBucket("5/s"), FixedWindow("9/h"))
