"""What the headers of answers say, and what no client can make sense of."""

from __future__ import annotations

import httpx
import pytest

from asgi_ratelimit.cli.examination.app_requests import Answer
from asgi_ratelimit.cli.examination.findings import Level
from asgi_ratelimit.cli.examination.rate_headers import headers_of, retry_after_of

DATE = ("Date", "Tue, 14 Nov 2023 22:13:20 GMT")  # 1 700 000 000
WELL = [
    ("X-RateLimit-Limit", "5"), ("X-RateLimit-Remaining", "4"), ("X-RateLimit-Reset", "1700000001.500"),
    ("X-RateLimit-Reset-After", "1.000"), ("X-RateLimit-Bucket", "abc"), DATE,
]  # fmt: skip


def answer(*headers: tuple[str, str], status: int = 200) -> Answer:
    return Answer(status, httpx.Headers(headers))


def test_headers_that_agree() -> None:
    (found,) = headers_of([answer(*WELL), answer(*WELL)])
    assert found.level == "ok"
    assert found.says == "Discord's X-RateLimit-*, on each answer. The first one: limit 5, 4 left, full in 1 s."


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([("X-RateLimit-Limit", "9")], "x-ratelimit-limit is there 2 times: 5, 9."),
        ([("Retry-After", "1"), ("Retry-After", "2")], "retry-after is there 2 times"),
    ],
)
def test_a_header_that_is_there_twice_is_bad(more: list[tuple[str, str]], says: str) -> None:
    (found,) = headers_of([answer(*WELL, *more)])
    assert found.level == "bad"
    assert says in found.says


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e3", ""])
def test_what_is_no_number_is_bad(text: str) -> None:
    (found,) = headers_of([answer(("X-RateLimit-Remaining", text))])
    assert (found.level, found.says) == ("bad", f"x-ratelimit-remaining is no number: {text}.")


def test_more_left_than_the_limit_is_bad() -> None:
    (found,) = headers_of([answer(("X-RateLimit-Limit", "5"), ("X-RateLimit-Remaining", "6"))])
    assert (found.level, found.says) == ("bad", "X-RateLimit-Remaining is 6, more than X-RateLimit-Limit, 5.")


def test_a_reset_far_from_the_date_is_a_warning() -> None:
    late = [(name, "1700000100" if name == "X-RateLimit-Reset" else value) for name, value in WELL]
    found = headers_of([answer(*late)])
    assert [(one.about, one.level) for one in found] == [("headers", "ok"), ("reset", "warning")]
    assert "1 min 39 s away" in found[1].says


def test_other_forms_are_a_warning_and_some_answers_may_say_nothing() -> None:
    (found,) = headers_of([answer(("RateLimit-Limit", "5"), ("RateLimit-Remaining", "3")), answer()])
    assert found.level == "warning"
    assert "(ratelimit-limit, ratelimit-remaining), on 1 of 2 answers. The first one: 3 left." in found.says
    assert headers_of([answer(("X-RateLimit-Global", "true"), status=429)])[0].level == "ok"


@pytest.mark.parametrize(
    ("headers", "status", "left"),
    [
        ([("RateLimit", '"a";r=5;t=2, "b";r=3')], 200, 3),
        ([("RateLimit-Remaining", "7")], 200, 7),
        ([("X-RateLimit-Remaining", "7")], 429, -1),
        ([], 200, None),
    ],
)
def test_what_is_left(headers: list[tuple[str, str]], status: int, left: int | None) -> None:
    assert answer(*headers, status=status).left == left


@pytest.mark.parametrize(
    ("text", "status", "level", "says"),
    [
        ("3", 429, "ok", "On each refusal"),
        (None, 429, "bad", "no Retry-After"),
        ("0.5", 429, "warning", "not whole seconds"),
        ("3", 200, "warning", "no refusal"),
        ("3", 503, "ok", "Not seen"),
        (None, 200, "ok", "Not seen"),
    ],
)
def test_retry_after(text: str | None, status: int, level: Level, says: str) -> None:
    headers = [] if text is None else [("Retry-After", text)]
    found = retry_after_of([answer(*headers, status=status)])
    assert found.level == level
    assert says in found.says
