"""The heaviest keys of a stream, in memory that does not grow with the number of keys."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Final

__all__ = ["HeavyHitters", "Row"]

Row = list[int]  # of one key: calls at most, refused, and how many of the calls may be none of its own

_LONGEST: Final = 200  # characters of a key; a longer one is stored as its beginning and a digest


class HeavyHitters(dict[str, Row]):
    """A sketch of how often each key was allowed and refused: `sketch[key]` is the row of a key, made if it is new.

    It has at most `2 * size` rows. When they are used up, the `size` heaviest stay at most, and `floor` rises to
    the count of the heaviest that is dropped. A key that is noticed later starts with the floor as its count and as its
    error, since so many of its calls may have been dropped.

    With N calls in all, and n calls of one key, so much is sure for every stream:

    - a key with a row: count - error <= n <= count, and not more were refused than the row says
    - a key without a row: n <= floor
    - error <= floor <= N / (size + 1), so a key with more calls than that has a row

    These are the bounds of Space-Saving with `size` counters, in the lazy form of Misra and Gries: a key with a row is
    counted by one look-up, and rows are dropped once in `size` new keys, not with each of them. A key that was there
    from the start has no error at all.

    It is a dict, so that the row of a key is found without a call. Several threads may use it. A call that is counted
    while its row is dropped may be lost.
    """

    __slots__ = ("_lock", "_most", "floor", "size")

    def __init__(self, size: int) -> None:
        self.size, self._most = size, 2 * size
        self.floor = 0
        self._lock = threading.RLock()  # a destructor may report an event while it is held

    def __missing__(self, key: str) -> Row:
        """The row of a key that has none, or a long one. The caller adds its call at once."""
        if len(key) > _LONGEST:
            key = _shortened(key)
        if len(self) >= self._most:
            self._drop()
        floor = self.floor
        return self.setdefault(key, [floor, 0, floor])

    def _drop(self) -> None:
        """Drop all rows but the heaviest. They lose as much each as the floor rises, so it rises slowly."""
        with self._lock:
            rows = list(self.items())
            if len(rows) >= self._most:
                self.floor = floor = sorted([row[0] for _, row in rows])[-self.size - 1]
                for key, row in rows:
                    if row[0] <= floor:
                        del self[key]

    def heaviest_first(self) -> list[tuple[str, Row]]:
        """Each key with a copy of its row."""
        rows = [(key, list(row)) for key, row in list(self.items())]
        return sorted(rows, key=lambda item: (-item[1][0], item[0]))


def _shortened(key: str) -> str:
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=15).hexdigest()
    return f"{key[: _LONGEST - len(digest)]}{digest}"
