"""The sketch of keys: its bounds hold for every stream, and its rows are few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.observe.heavy_hitters import HeavyHitters

keys = st.integers(0, 40).map(str)
runs = st.lists(st.tuples(keys, st.booleans(), st.integers(1, 20)), max_size=150)
sizes = st.integers(1, 8)
Call = tuple[str, bool]  # a key, and whether it was refused


def calls_of(runs: Iterable[tuple[str, bool, int]]) -> list[Call]:
    return [(key, refused) for key, refused, times in runs for _ in range(times)]


def counted(calls: Iterable[Call], size: int) -> HeavyHitters:
    sketch = HeavyHitters(size)
    for key, refused in calls:
        row = sketch[key]
        row[0] += 1
        row[1] += refused
    return sketch


@given(runs, sizes)
def test_the_bounds_hold_for_every_stream(runs: list[tuple[str, bool, int]], size: int) -> None:
    calls = calls_of(runs)
    sketch, truth, refusals = counted(calls, size), Counter(key for key, _ in calls), Counter(calls)
    assert len(sketch) <= 2 * size
    assert sketch.floor * (size + 1) <= len(calls)
    for key, number in truth.items():
        row = sketch.get(key)
        if row is None:
            assert number <= sketch.floor
        else:
            most, refused, error = row
            assert most - error <= number <= most
            assert error <= sketch.floor
            assert refused <= refusals[key, True]
            assert most - error - refused <= refusals[key, False]


@given(runs, sizes)
def test_a_key_with_more_than_its_share_has_a_row(runs: list[tuple[str, bool, int]], size: int) -> None:
    calls = calls_of(runs)
    sketch = counted(calls, size)
    for key, number in Counter(key for key, _ in calls).items():
        assert sketch.get(key) or number * (size + 1) <= len(calls)


@given(st.lists(st.tuples(st.integers(1, 8).map(str), st.booleans()), max_size=100))
def test_few_keys_are_counted_exactly(calls: list[Call]) -> None:
    rows = dict(counted(calls, 4).heaviest_first())
    assert {key: row[0] for key, row in rows.items()} == Counter(key for key, _ in calls)
    assert all(error == 0 for _, _, error in rows.values())


def test_the_heaviest_is_first() -> None:
    sketch = counted([(key, False) for key in "a" * 3 + "b" * 9 + "c" * 5], 4)
    assert [key for key, _ in sketch.heaviest_first()] == ["b", "c", "a"]


def test_rows_are_few_after_a_hundred_thousand_keys() -> None:
    calls = ((key, False) for number in range(100_000) for key in (f"user:{number}", "heavy")[: 1 + (number % 9 == 0)])
    sketch = counted(calls, 50)
    assert len(sketch) <= 100
    assert sketch.heaviest_first()[0][0] == "heavy"


@pytest.mark.parametrize("beginning", ["x", "\ud800"])
def test_a_long_key_takes_little_memory_and_is_told_from_another(beginning: str) -> None:
    sketch = counted([(beginning * 10_000 + end, False) for end in "aab"], 4)
    (one, first), (other, second) = sketch.heaviest_first()
    assert (first[0], second[0]) == (2, 1)
    assert len(one) == len(other) == 200
