"""A limit on a command line is the one that Python has under the same words."""

from __future__ import annotations

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, Limit, SlidingWindow, TokenBucket
from asgi_ratelimit.cli.limit_notation import limits_of


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/minute", TokenBucket("100/minute")),
        ("50/s burst 100", TokenBucket("50/s", burst=100)),
        ("TokenBucket(50/s, burst=100)", TokenBucket("50/s", burst=100)),
        ("TokenBucket(50/s, 100)", TokenBucket("50/s", burst=100)),
        (" slidingwindow ( 100/hour ) ", SlidingWindow("100/hour")),
        ("FixedWindow('5/5s', name=\"a, b\")", FixedWindow("5/5s", name="a, b")),
        ("LeakyBucket(5/s, queue=20, scope=global)", LeakyBucket("5/s", queue=20, scope="global")),
        ("SlidingWindow(3/h, name=None)", SlidingWindow("3/h")),
    ],
)
def test_it_reads_what_python_reads(text: str, limit: Limit) -> None:
    assert limits_of([text]) == (limit,)


@pytest.mark.parametrize(
    "limit",
    [
        TokenBucket("5/s", burst=9, name="it's", scope="shared", outage="closed"),
        SlidingWindow("3/h"),
        FixedWindow("7/200ms", scope="global"),
        LeakyBucket("5/s"),
    ],
)
def test_it_reads_what_python_shows(limit: Limit) -> None:
    assert limits_of([repr(limit)]) == (limit,)


def test_several_are_a_list() -> None:
    assert limits_of(["5/s", "SlidingWindow(9/day)"]) == (TokenBucket("5/s"), SlidingWindow("9/day"))


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "which limit"),
        (["100"], "'100'"),
        (["GCRA(5/s)"], "'GCRA' is no kind of limit"),
        (["SlidingWindow()"], "SlidingWindow()"),
        (["SlidingWindow(5/s, size=3)"], "'size'"),
        (["SlidingWindow(5/s, rate=3/s)"], "'SlidingWindow(5/s, rate=3/s)'"),
        (["TokenBucket(5/s, burst=2, burst=3)"], "'burst'"),
        (["TokenBucket(5/s, burst=0)"], "burst"),
        (["TokenBucket(5/s, 1, 2, 3, 4, 5, 6, 7)"], "cannot read"),
        (["SlidingWindow(5/s, 3)"], "the options in the limit"),
        (["5/s", "9/s"], "name one of them"),
        (["SlidingWindow(5/s"], "cannot read"),
    ],
)
def test_what_it_cannot_read_it_names(texts: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=r"limit|burst") as caught:
        limits_of(texts)
    assert says in str(caught.value)
