"""The heaviest keys of a stream, in memory that does not grow with the number of keys."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["HeavyHitters", "Row"]

Row = list[int]  # of one key: allowed, refused, and how many calls may have been missed before it was noticed

_LONGEST: Final = 200  # characters of a key; a longer one is kept as its beginning and a digest


class HeavyHitters:
    """A sketch of how often each key was allowed and refused. Not thread-safe.

    It has at most `2 * size` rows. When they are used up, the `size` heaviest are kept at most, and `floor` rises to
    the count of the heaviest that is dropped. A key that is noticed later starts with the floor as its error, since so
    many of its calls may have been dropped.

    With N calls in all, and n calls of one key, so much is sure for every stream:

    - a key with a row: allowed + refused <= n <= allowed + refused + error; neither of the two counts is too high
    - a key without a row: n <= floor
    - error <= floor <= N / (size + 1), so a key with more calls than that has a row

    These are the bounds of Space-Saving with `size` counters, in the lazy form of Misra and Gries: a row that is there
    is counted by two look-ups, and rows are dropped once in `size` new keys, not with each of them. A key that was
    there from the start has no error at all.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.floor = 0
        self.rows: dict[str, Row] = {}
        self.find = self.rows.get  # the row of a key, or None

    def __len__(self) -> int:
        return len(self.rows)

    def meet(self, key: str) -> Row:
        """The row of a key, which may be new. The caller counts in it at once."""
        key = key if len(key) <= _LONGEST else _shortened(key)
        row = self.rows.get(key)
        if row is None:
            if len(self.rows) >= 2 * self.size:
                self._drop()
            row = self.rows[key] = [0, 0, self.floor]
        return row

    def _drop(self) -> None:
        """Drop all rows but the heaviest. They lose as much each as the floor rises, so it rises slowly."""
        self.floor = sorted(map(sum, self.rows.values()))[-self.size - 1]
        for key in [key for key, row in self.rows.items() if sum(row) <= self.floor]:
            del self.rows[key]

    def heaviest_first(self) -> list[tuple[str, Row]]:
        """Each key with a copy of its row. The heaviest is the one that may have the most calls."""
        rows = [(key, list(row)) for key, row in self.rows.items()]
        return sorted(rows, key=lambda item: (-sum(item[1]), item[0]))


def _shortened(key: str) -> str:
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=15).hexdigest()
    return f"{key[: _LONGEST - len(digest)]}{digest}"
