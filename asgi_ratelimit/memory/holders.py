"""The calls that hold a slot in a store in memory, as long as each of them lives."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from asgi_ratelimit.decision import BucketKey
from asgi_ratelimit.slot import Slot

__all__ = ["Holders"]


class Holders:
    """The living slots of one table. They need no timer: an expired one is renewed when its record is looked at."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: WeakValueDictionary[tuple[BucketKey, int], Slot] = WeakValueDictionary()

    def add(self, key: BucketKey, slot: Slot) -> None:
        self._slots[key, slot.id] = slot

    def among(self, key: BucketKey, slots: Sequence[int]) -> list[int]:
        """Those of these slots that are still held."""
        return [each for each in slots if (slot := self._slots.get((key, each))) is not None and slot.is_held]
