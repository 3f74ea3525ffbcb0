"""Slot: the receipt of a call that is counted while it goes on. SlotCounts: how many of them this process holds."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

__all__ = ["Slot", "SlotCount", "SlotCounts", "count_lost_slots"]

Listener = Callable[[str, int], object]  # of a limiter's name, and the change of its number


class Slot:
    """One of the calls that are allowed at a time. It is renewed for as long as this object lives and is held.

    home: the slot was taken here
    id: the slot among all of its record
    place: where it is renewed by a timer; None: nowhere
    """

    __slots__ = ("__weakref__", "_flight", "home", "id", "is_held", "place")

    def __init__(self, home: object, slot_id: int) -> None:
        self.home, self.id = home, slot_id
        self.is_held = True  # until it is released
        self.place: object = None
        self._flight: _Flight | None = None

    def count_in(self, counts: SlotCounts, limiter: str) -> None:
        """Count it as long as it is held. It is the one slot of its call that is counted."""
        if self._flight is None and self.is_held:
            self._flight = _Flight(counts.of(limiter))

    def end(self) -> None:
        """It is released."""
        self.is_held = False
        if self._flight is not None:
            self._flight.end()


class _Flight:
    """One call that is counted, until it ends or is forgotten."""

    __slots__ = ("_count", "_is_over")

    def __init__(self, count: SlotCount) -> None:
        self._count, self._is_over = count, False
        count.change(1)

    def end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._count.change(-1)

    def __del__(self) -> None:
        if not self._is_over:
            self._count.lost.append(None)


class SlotCount:
    """The calls of one limiter that hold a slot in this process."""

    __slots__ = ("_counts", "limiter", "lost", "number")

    def __init__(self, counts: SlotCounts, limiter: str) -> None:
        self._counts, self.limiter = counts, limiter
        self.number = 0
        self.lost: deque[None] = deque()  # a destructor may interrupt any line, so it takes no lock

    def change(self, by: int) -> None:
        """Count slots that are taken or freed."""
        self._counts.change(self, by)


class SlotCounts:
    """The counts of all limiters of a store, and the functions that are called with each change.

    A call is counted from its beginning, or not at all: so none is before the first listener.
    """

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self.is_heard = False
        self.clear()
        _all.add(self)

    def clear(self) -> None:
        """Hold none: in a forked process, the slots are those of its parent."""
        self._lock, self._counts = threading.RLock(), dict[str, SlotCount]()

    def of(self, limiter: str) -> SlotCount:
        """The count of a limiter."""
        with self._lock:
            count = self._counts.get(limiter)
            if count is None:
                count = self._counts[limiter] = SlotCount(self, limiter)
            return count

    def change(self, count: SlotCount, by: int) -> None:
        """Change one count, and report it. Slots that were lost since are counted out."""
        with self._lock:
            while count.lost:
                count.lost.popleft()
                by -= 1
            if by and self._counts.get(count.limiter) is count:
                count.number += by
                for listener in self._listeners:
                    listener(count.limiter, by)

    def listen(self, listener: Listener) -> None:
        """Call this with every change, and at once with the present numbers."""
        with self._lock:
            self._listeners += (listener,)
            self.is_heard = True
            for count in self._counts.values():
                if count.number:
                    listener(count.limiter, count.number)

    def forget(self, listener: Listener) -> None:
        """Call this no more."""
        with self._lock:
            self._listeners = tuple([one for one in self._listeners if one != listener])

    def count_lost(self) -> None:
        """Count out the slots of decisions that were forgotten."""
        with self._lock:
            for count in list(self._counts.values()):
                self.change(count, 0)


_all: Final[WeakSet[SlotCounts]] = WeakSet()


def count_lost_slots() -> None:
    """Before the numbers are read: count out the slots of decisions that were forgotten, in all stores."""
    for counts in list(_all):
        counts.count_lost()


def _after_fork() -> None:
    for counts in list(_all):
        counts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
