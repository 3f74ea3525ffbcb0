"""How a limit is written down: "5/5s", "100 per minute", "50/s burst 100"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Rate", "parse_rate"]

EXAMPLES = '"5/5s", "100/minute", "10 per second", "200/500ms" or "50/s burst 100"'

_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_UNITS = (
    dict.fromkeys(("ms", "millisecond", "milliseconds"), "ms")
    | dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s")
    | dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m")
    | dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h")
    | dict.fromkeys(("d", "day", "days"), "d")
)
_LONG = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_FORM = re.compile(
    r"\s*([0-9]{1,15})\s*(?:/|\bper\b)\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)?\s*([a-z]+)(?:\s+burst\s+([0-9]{1,15}))?\s*",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` per `period_us` microseconds; `burst` is None where the text names none."""

    count: int
    period_us: int
    burst: int | None = None

    @property
    def plain(self) -> Rate:
        """The rate without a burst."""
        return Rate(self.count, self.period_us)

    def __str__(self) -> str:
        text = f"{self.count}/{_period_text(self.period_us)}"
        return text if self.burst in (None, self.count) else f"{text} burst {self.burst}"


def parse_rate(text: object) -> Rate:
    """Parse a rate. Raises ValueError that names the value and shows a right one."""
    if isinstance(text, Rate):
        return text
    if not isinstance(text, str):
        raise ValueError(f"a limit is a string such as {EXAMPLES}, not {text!r}")
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read the limit {text[:80]!r}; write {EXAMPLES}")
    count, amount, unit, burst = match.groups()
    return Rate(
        _positive("count", count, text),
        _period_us(amount or "1", unit.lower(), text),
        None if burst is None else _positive("burst", burst, text),
    )


def _positive(part: str, digits: str, text: str) -> int:
    if int(digits) < 1:
        raise ValueError(f"the {part} in the limit {text!r} must be at least 1; write {EXAMPLES}")
    return int(digits)


def _period_us(amount: str, unit: str, text: str) -> int:
    if unit not in _UNITS:
        raise ValueError(f"unknown unit {unit!r} in the limit {text!r}; use ms, s, minute, hour or day")
    period = Decimal(amount) * _MICROSECONDS[_UNITS[unit]]
    if period < 1 or period != int(period):
        raise ValueError(f"the period in the limit {text!r} must be a whole number of microseconds above 0")
    return int(period)


def _period_text(period_us: int) -> str:
    for unit in ("d", "h", "m", "s", "ms"):
        amount, rest = divmod(period_us, _MICROSECONDS[unit])
        if amount == 1 and not rest and unit in _LONG:
            return _LONG[unit]
        if amount and not rest:
            return f"{amount}{unit}"
    return f"{Decimal(period_us) / 1000}ms"
