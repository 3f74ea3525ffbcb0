"""How a limit is written down: "5/5s", "100 per minute", "50/s burst 100"."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from asgi_ratelimit.shown import shown

__all__ = ["Rate", "number_hint", "parse_rate", "suggestion"]

EXAMPLES = '"5/5s", "100/minute", "10 per second", "200/500ms" or "50/s burst 100"'
_LONGEST = 100  # characters

_MICROSECONDS = {
    "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000,
}  # fmt: skip
_UNITS = (
    dict.fromkeys(("ms", "millisecond", "milliseconds"), "ms")
    | dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s")
    | dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m")
    | dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h")
    | dict.fromkeys(("d", "day", "days"), "d")
    | dict.fromkeys(("w", "week", "weeks"), "w")
)
_LONG = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_CALENDAR = ("mo", "month", "months", "y", "year", "years")
# Possessive, so that no text is read twice.
_FORM = re.compile(
    r"\s*+([0-9]{1,15}+)\s*+(?:/|\bper\b)\s*+([0-9]{1,12}+(?:\.[0-9]{1,9}+)?+)?+\s*+([a-z]++)"
    r"(?:\s++burst\s++([0-9]{1,15}+))?+\s*+",
    re.ASCII | re.IGNORECASE,
)
# Of the spelling in other libraries. They are compiled when a text cannot be read.
_FILLERS = r"(?ai)\b(?:req(?:uest)?s?|calls?|times?|hits?|an?)\b|(?<=[0-9])[xr]\b"
_JOINTS = r"(?ai)[;,|&+]|\band\b"  # between the limits of a list
_EACH = r"(?ai)\b(?:every|each|in)\b"


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
    """Parse a rate. Raises ValueError that names the value and shows a right one. A count of 0 allows nothing."""
    if isinstance(text, Rate):
        return text
    if not isinstance(text, str):
        raise ValueError(f"a limit is a string such as {EXAMPLES}, not {shown(text)}{number_hint(text)}")
    match = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"cannot read the limit {text[:80]!r}; write {suggestion(text)}")
    count, amount, unit, burst = match.groups()
    return Rate(
        int(count), _period_us(amount or "1", unit.lower(), text), None if burst is None else _burst(burst, text)
    )


def _burst(digits: str, text: str) -> int:
    if int(digits) < 1:
        raise ValueError(f"the burst in the limit {text!r} must be at least 1; write {EXAMPLES}")
    return int(digits)


def _period_us(amount: str, unit: str, text: str) -> int:
    if unit in _CALENDAR:
        right = "month" if unit.startswith("mo") else "year"
        raise ValueError(
            f"months and years in the limit {text!r} have no fixed length; "
            f'write days, as in "3000/30 days", or a limit by the calendar, as in Quota("3000/{right}")'
        )
    if unit not in _UNITS:
        raise ValueError(f"unknown unit {unit!r} in the limit {text!r}; use ms, s, minute, hour, day or week")
    whole, _, decimals = amount.partition(".")
    parts: int = 10 ** len(decimals)
    period_us, rest = divmod(int(whole + decimals) * _MICROSECONDS[_UNITS[unit]], parts)
    if rest or not period_us:
        raise ValueError(f"the period in the limit {text!r} must be a whole number of microseconds above 0")
    return period_us


def _period_text(period_us: int) -> str:
    for unit in ("w", "d", "h", "m", "s", "ms"):
        amount, rest = divmod(period_us, _MICROSECONDS[unit])
        if amount == 1 and not rest and unit in _LONG:
            return _LONG[unit]
        if amount and not rest:
            return f"{amount}{unit}"
    return f"{period_us // 1000}.{period_us % 1000:03}".rstrip("0") + "ms"


# The spelling here of what other libraries write


def suggestion(text: str) -> str:
    """How a text is written here, in quotes or as a list; the usual forms if that cannot be guessed."""
    parts = [_one(part) for part in re.split(_JOINTS, text) if part.strip()] if len(text) <= _LONGEST else []
    if not parts or "" in parts:
        return EXAMPLES
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"


def _one(text: str) -> str:
    plain = " ".join(re.sub(_EACH, "per", re.sub(_FILLERS, " ", text)).split()).replace(" /", "/")
    for spelled in (plain, f"{plain}s", plain.replace(" ", "/", 1)):
        with suppress(ValueError):
            if match := _FORM.fullmatch(spelled):
                _period_us(match[2] or "1", match[3].lower(), spelled)
                return f'"{spelled}"'.replace(" per ", "/")
    return ""


def number_hint(value: object) -> str:
    """What to write instead of a number without a period."""
    if isinstance(value, float) or not isinstance(value, int) or value < 0 or value is True:
        return ""
    return '; "0/day" refuses every call' if value == 0 else f'; write the period as well, "{value}/minute"'
