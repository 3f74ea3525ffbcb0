"""Slot: the receipt of a call that is counted while it goes on."""

from __future__ import annotations

__all__ = ["Slot"]


class Slot:
    """One of the calls that are allowed at a time. It is renewed for as long as this object lives and is held.

    home: the slot was taken here
    id: the slot among all of its record
    place: where it is renewed by a timer; None: nowhere
    """

    __slots__ = ("__weakref__", "home", "id", "is_held", "place")

    def __init__(self, home: object, slot_id: int) -> None:
        self.home, self.id = home, slot_id
        self.is_held = True  # until it is released
        self.place: object = None
