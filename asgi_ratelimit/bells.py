"""Bells: a slot that is freed in this process wakes the first caller that waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from operator import attrgetter

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import BucketKey, Decision

__all__ = ["Bell", "Bells", "waits_for_slot"]

_FIRST_S, _FACTOR, _LONGEST_S = 0.02, 1.5, 0.1  # between two looks for slots that other processes have freed

_arrival = attrgetter("arrival")


def waits_for_slot(refusal: Decision) -> bool:
    """Whether it may be allowed at any moment, as soon as another call ends."""
    if refusal.reason == "blocked":
        return False
    return any(part.policy.limit.holds and not part.allowed for part in refusal.parts)


class Bell:
    """Wakes one caller, on the event loop on which it was made. `arrival`: the lowest is woken first."""

    __slots__ = ("_clock", "_event", "_loop", "_seconds", "arrival", "is_rung")

    def __init__(self, clock: Clock, arrival: int) -> None:
        self._clock, self.arrival = clock, arrival
        self._event, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._seconds = _FIRST_S
        self.is_rung = False

    def ring(self) -> None:
        """Wake the caller. It may be called from any thread."""
        self.is_rung = True
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        self.is_rung = False
        self._event.clear()

    async def wait(self, most: float) -> None:
        """Wait until it rings, or until it is time to look again, `most` seconds from now at the latest."""
        if self.is_rung:
            return
        timer = self._clock.call_later(min(self._seconds, most), self._event.set)
        self._seconds = min(self._seconds * _FACTOR, _LONGEST_S)
        try:
            await self._event.wait()
        finally:
            timer.cancel()


class Bells:
    """The bells of a limiter, by the bucket of which their callers want a slot."""

    def __init__(self) -> None:
        self._hung: dict[tuple[str, BucketKey], list[Bell]] = {}

    def hang(self, bell: Bell, reply: Decision | None) -> None:
        """Have it rung when a slot is freed in a bucket that this reply is about."""
        for part in () if reply is None else reply.parts:
            if part.policy.limit.holds:
                bells = self._hung.setdefault((part.bucket, part.bucket_key), [])
                if bell not in bells:
                    bells.append(bell)

    def take_down(self, bell: Bell) -> None:
        for place, bells in list(self._hung.items()):
            if bell in bells:
                bells.remove(bell)
                if not bells:
                    del self._hung[place]

    def ring(self, decision: Decision) -> None:
        """The slots of this decision are free: for each, wake the first caller that is not awake."""
        for part in decision.parts if self._hung else ():
            bells = self._hung.get((part.bucket, part.bucket_key), ()) if part.policy.limit.holds else ()
            asleep = [bell for bell in list(bells) if not bell.is_rung]
            if asleep:
                min(asleep, key=_arrival).ring()
