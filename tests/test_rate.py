"""The mini-language in which limits are written."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.rate import _FORM, Rate, parse_rate

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5/5s", Rate(5, 5 * SECOND)),
        ("100/minute", Rate(100, 60 * SECOND)),
        ("10 per second", Rate(10, SECOND)),
        ("1000/hour", Rate(1000, 3600 * SECOND)),
        ("200/500ms", Rate(200, 500_000)),
        ("50/s burst 100", Rate(50, SECOND, 100)),
        ("5 per 5 s", Rate(5, 5 * SECOND)),
        ("1/day", Rate(1, 86_400 * SECOND)),
        ("  3 / 1.5 s  ", Rate(3, 1_500_000)),
        ("2/0.5ms", Rate(2, 500)),
        ("10 PER Minute BURST 20", Rate(10, 60 * SECOND, 20)),
        ("120/60s", Rate(120, 60 * SECOND)),
        ("7/2 hours", Rate(7, 7200 * SECOND)),
        ("2000/week", Rate(2000, 604_800 * SECOND)),
        ("5 per 2 weeks", Rate(5, 1_209_600 * SECOND)),
        ("0/day", Rate(0, 86_400 * SECOND)),
    ],
)
def test_every_documented_form_is_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "5", "5/", "/s", "-5/s", "5/-1s", "5/0s", "nan/s", "inf/s", "5/s5", "5//s", "1e3/s", "5/s burst",
     "5/s burst 0", "5/s burst -1", "5/fortnight", "5/0.0000001s", "\u0665/s", "5/s; 6/s", "5/s\0", "9" * 40 + "/s",
     "1.5/s", "five/s"],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_the_value_and_a_right_one(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"(?s)(write \[?\"5/|use ms, s, minute|whole number of microseconds)"
    ) as raised:
        parse_rate(text)
    assert repr(text)[1:20].rstrip("'") in str(raised.value)


@pytest.mark.parametrize("value", [None, 5, 5.0, float("nan"), b"5/s", ["5/s"], True])
def test_what_is_no_string_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a limit is a string such as"):
        parse_rate(value)


@given(st.text(max_size=40))
def test_any_text_is_a_rate_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_rate(text).count >= 0


@given(st.integers(0, 10**9), st.integers(1, 10**15), st.none() | st.integers(1, 10**9))
def test_a_rate_reads_back_as_it_is_written(count: int, period_us: int, burst: int | None) -> None:
    read = parse_rate(str(Rate(count, period_us, burst)))
    assert (read.count, read.period_us) == (count, period_us)
    assert (read.burst or count) == (burst or count)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("5/5", '"5/5s"'),
        ("5/s;1/m", '["5/s", "1/m"]'),
        ("5/s, 1/m", '["5/s", "1/m"]'),
        ("100/hour | 5/second", '["100/hour", "5/second"]'),
        ("200 per day and 50 per hour", '["200/day", "50/hour"]'),
        ("5 requests per minute", '"5/minute"'),
        ("10 requests/minute", '"10/minute"'),
        ("5 calls in 10 seconds", '"5/10 seconds"'),
        ("5 every 10 seconds", '"5/10 seconds"'),
        ("5 a minute", '"5/minute"'),
        ("5r/s", '"5/s"'),
        ("1000 hour", '"1000/hour"'),
        ("100/month", "30 days"),
    ],
)
def test_the_spelling_of_another_library_is_answered_with_the_one_here(theirs: str, ours: str) -> None:
    with pytest.raises(ValueError, match=re.escape(ours)):
        parse_rate(theirs)


@pytest.mark.parametrize("blanks", [" ", "\t", "5", "5/", "5 per ", "0.", "s "])
@pytest.mark.parametrize("end", ["", "x", "/"])
def test_hostile_text_is_bounded_before_it_is_read(blanks: str, end: str) -> None:
    for text in (blanks * 1_000_000 + end, "5" + blanks * 1_000_000 + end, "5/" + blanks * 1_000_000 + end):
        with pytest.raises(ValueError, match="cannot read the limit") as raised:
            parse_rate(text)
        assert len(str(raised.value)) < 300


def test_the_form_of_a_rate_never_reads_a_text_twice() -> None:
    """Every repetition is possessive, so the work grows with the text and not with its square."""
    parsed = repr(re._parser.parse(_FORM.pattern, _FORM.flags))  # type: ignore[attr-defined]
    assert "POSSESSIVE_REPEAT" in parsed
    assert "MAX_REPEAT" not in parsed.replace("POSSESSIVE_REPEAT", "")
