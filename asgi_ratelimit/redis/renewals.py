"""The slots that this process holds on a server: each is renewed until it is released, or forgotten by its holder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary, ref

from asgi_ratelimit.clock import Clock, Timer
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.slot import Slot

__all__ = ["Renewals", "SlotPlace"]

_PER_LEASE = 3  # renewals, so that two of them may be lost


class Renewer(Protocol):
    """Buckets with slots."""

    @property
    def server(self) -> object:
        """The receipt of the slots that they have taken."""
        ...

    def renew(self, place: SlotPlace, slots: list[int]) -> object:
        """Begin the leases of these slots anew, which are all in one record."""
        ...


class SlotPlace(NamedTuple):
    """The record of a slot, and the call that has taken it."""

    name: str
    policy: Policy
    buckets: Renewer
    key: str
    per: str
    process: int  # a forked one does not hold the slots of its parent

    @property
    def interval(self) -> float:
        """Seconds between two renewals."""
        return self.policy.limit.period / _PER_LEASE


class Renewals:
    """The slots by event loop. Each loop has one timer, and only while slots are held on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rounds: dict[asyncio.AbstractEventLoop, _Round] = {}

    def add(self, slot: Slot, place: SlotPlace) -> None:
        """Renew a slot from now on, by the running event loop."""
        slot.place = place
        loop = asyncio.get_running_loop()
        (self._rounds.get(loop) or self._new_round(loop)).add(slot, place)

    def held(self, name: str, ids: Iterable[int]) -> list[Slot]:
        """Those of the slots of a record that this process holds."""
        rounds, ids = list(self._rounds.values()), list(ids)
        slots = [each.slots.get((name, slot_id)) for each in rounds for slot_id in ids]
        return [slot for slot in slots if slot is not None and slot.is_held]

    def stop(self) -> None:
        """Renew nothing on the running event loop, until the next slot is added there."""
        current = self._rounds.get(asyncio.get_running_loop())
        if current is not None:
            current.stop()

    def _new_round(self, loop: asyncio.AbstractEventLoop) -> _Round:
        for former in [other for other in list(self._rounds) if other.is_closed()]:
            self._rounds.pop(former, None)
        new = self._rounds[loop] = _Round(self._clock)
        return new


class _Round:
    """The slots of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.slots: WeakValueDictionary[tuple[str, int], Slot] = WeakValueDictionary()
        self._timer: Timer | None = None
        self._due_us = 0  # when it goes off

    def add(self, slot: Slot, place: SlotPlace) -> None:
        self.slots[place.name, slot.id] = slot
        if self._timer is None or self._clock.now_us() + place.interval * 1e6 < self._due_us:
            self._start(place.interval)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, seconds: float) -> None:
        self.stop()
        this = ref(self)  # the event loop keeps neither the store nor its slots alive

        def renew() -> None:
            current = this()
            if current is not None:
                current.renew()

        self._due_us = self._clock.now_us() + round(seconds * 1e6)
        self._timer = self._clock.call_later(seconds, renew)

    def renew(self) -> None:
        """Renew all slots that are held, in one batch, and once more after a while."""
        self._timer, process = None, os.getpid()
        held = [(slot, slot.place) for slot in list(self.slots.values()) if slot.is_held]
        placed = [(place, slot.id) for slot, place in held if isinstance(place, SlotPlace) and place.process == process]
        if not placed:
            return
        placed.sort(key=lambda each: (each[0].name, each[1]))
        self._start(min(place.interval for place, _ in placed))
        for _, group in groupby(placed, key=lambda each: each[0].name):
            slots = list(group)
            slots[0][0].buckets.renew(slots[0][0], [slot_id for _, slot_id in slots])
