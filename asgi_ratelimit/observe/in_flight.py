"""The calls of each limiter that hold a slot: how many there are, and how many there were at most."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

__all__ = ["InFlight"]

_NONE: Final = (0, 0)


class InFlight:
    """Two numbers for each limiter. `most`: so many limiters have their own; all further ones share `others`."""

    def __init__(self, most: int, others: str) -> None:
        self._most, self._others = most, others
        self._lock = threading.RLock()
        self._numbers: dict[str, tuple[int, int]] = {}  # now, and at most

    def change(self, limiter: str, by: int) -> None:
        """Count calls in, or out."""
        with self._lock:
            if limiter not in self._numbers and len(self._numbers) >= self._most:
                limiter = self._others
            now, highest = self._numbers.get(limiter, _NONE)
            self._numbers[limiter] = now + by, max(highest, now + by)

    def restart(self) -> None:
        """The highest number is the present one."""
        with self._lock:
            self._numbers = {name: (now, now) for name, (now, _) in self._numbers.items()}

    def numbers(self) -> Mapping[str, tuple[int, int]]:
        """How many there are now, and how many there were at most, by limiter."""
        with self._lock:
            return dict(self._numbers)
