"""The off switch of every limiter in this process, for the tests of users."""

from __future__ import annotations

import threading
from typing import Protocol
from weakref import WeakValueDictionary

__all__ = ["OFF_SWITCH", "OffSwitch"]


class Switchable(Protocol):
    """A limiter."""

    def turn(self, *, off: bool) -> None:
        """Allow everything and count nothing, or limit again. A second time does nothing."""
        ...


class OffSwitch:
    """Turns limiters off instead of being asked by each call, so it costs nothing while it is not in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._limiters: WeakValueDictionary[int, Switchable] = WeakValueDictionary()

    @property
    def is_off(self) -> bool:
        """Whether nothing is limited now."""
        return self._uses > 0

    def register(self, limiter: Switchable) -> None:
        """Add a new limiter. It needs no lock: `turn` changes the count first, and looks at the limiters then."""
        self._limiters[id(limiter)] = limiter
        if self._uses:
            limiter.turn(off=True)

    def turn(self, *, off: bool) -> None:
        """Turn every limiter off, or on again once each use has ended."""
        with self._lock:
            self._uses += 1 if off else -1
            for reference in self._limiters.valuerefs():
                limiter = reference()
                if limiter is not None:
                    limiter.turn(off=self._uses > 0)


OFF_SWITCH = OffSwitch()
