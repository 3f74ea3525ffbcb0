"""Reads the output of `to_dict`. It may come from another version of this package, or from other software."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from asgi_ratelimit.observe.counts import NUMBERS, KeyCounts, LimiterCounts, Outage, Period

__all__ = ["each", "limiter", "moment", "outage", "table", "whole"]

Value = TypeVar("Value")
_LARGEST: Final = 2**53  # of numbers: a greater one is no float any more, and a sum of those is none
_MOST_PERIODS: Final = 1_000  # of a limiter; a version to come may keep more than this one


def table(value: object, name: str) -> Mapping[str, Any]:
    """A JSON object. Raises ValueError, as all of these do, if it is something else."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} of a snapshot must be a dict with strings as keys, not {value!r:.80}")
    return value


def each(read: Callable[[object], Value], value: object, name: str, most: int = 10_000) -> tuple[Value, ...]:
    """All values of a JSON array, which has at most so many."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} of a snapshot must be a list, not {value!r:.80}")
    if len(value) > most:
        raise ValueError(f"{name} of a snapshot are {most} at most, not {len(value)}")
    return tuple([read(one) for one in value])


def whole(value: object, name: str) -> int:
    """A count."""
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} of a snapshot must be a whole number from 0, not {_shown(value)}")
    return value


def moment(value: object, name: str) -> float:
    """A number of seconds. An int stays one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{name} of a snapshot must be a number of seconds, not {_shown(value)}")
    return value


def limiter(value: object) -> LimiterCounts:
    """What LimiterCounts.to_dict has returned. Fields that are unknown are ignored, and those that are absent are 0."""
    record = table(value, "a limiter")
    busiest = record.get("busiest")
    return LimiterCounts(
        _text(record.get("name"), "the name of a limiter"),
        **{name: whole(record.get(name, 0), name) for name in NUMBERS},
        waited_seconds=moment(record.get("waited_seconds", 0.0), "waited_seconds"),
        busiest=None if busiest is None else _period(busiest),
        minutes=each(_period, record.get("minutes", ()), "minutes", _MOST_PERIODS),
        hours=each(_period, record.get("hours", ()), "hours", _MOST_PERIODS),
        keys=each(_key, record.get("keys", ()), "keys"),
        shadow_sample=each(_digest, record.get("shadow_sample", ()), "shadow_sample"),
    )


def outage(value: object) -> Outage:
    """What Outage.to_dict has returned."""
    record = table(value, "an outage")
    seconds = record.get("seconds")
    return Outage(
        _text(record.get("node"), "the node of an outage"),
        moment(record.get("start"), "the start of an outage"),
        None if seconds is None else moment(seconds, "the seconds of an outage"),
        _text(record.get("cause", ""), "the cause of an outage"),
        whole(record.get("checks", 0), "the checks of an outage"),
    )


def _period(value: object) -> Period:
    record = table(value, "a period")
    start = moment(record.get("start"), "the start of a period")
    return Period(start, whole(record.get("allowed", 0), "allowed"), whole(record.get("refused", 0), "refused"))


def _key(value: object) -> KeyCounts:
    record = table(value, "a key")
    numbers = [whole(record.get(name, 0), name) for name in ("allowed", "refused", "error")]
    return KeyCounts(_text(record.get("key"), "a key"), *numbers)


def _digest(value: object) -> str:
    return _text(value, "a digest")


def _shown(value: object) -> str:
    """A value for an error. The repr of an int with too many digits would be one itself."""
    return "a number that is too large" if isinstance(value, int) and abs(value) > _LARGEST else f"{value!r:.80}"


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} of a snapshot must be a string, not {value!r:.80}")
    return value
