"""Permits for routes whose responses come from several buckets, e.g. the 404s and the 204s of a DELETE.

Nobody knows before a call which bucket will count it. So it takes a permit of each, and its response gives all but one
of them back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.permits.bucket import LATE, CallReport
from asgi_ratelimit.discord.permits.memory import Granted, Permit, Permits, Wait

__all__ = ["SplitPermits"]

_MOST_PLACES: Final = 1_000
_MOST_BUCKETS: Final = 4
_RECENT_US: Final = 60_000_000  # a bucket that has not answered for so long is another one's former name
_UNSENT: Final = CallReport("unsent")
_GLOBAL: Final = CallReport("sublimited", retry_us=-LATE)  # until now: under the global limit it counts, in no bucket

Place = tuple[str, str]  # route and resource


@dataclass(slots=True)
class _Names:
    """The buckets of a place: one after the other, until a former one answers again."""

    answered: dict[str, int]  # bucket -> when it has answered; the last one is at the end
    is_split: bool = False


class SplitPermits:
    """Permits of one owner that know such routes. All others are as `inner` has them."""

    def __init__(self, inner: Permits, clock: Clock) -> None:
        self._inner, self.clock, self._clock = inner, inner.clock, clock
        self._names: OrderedDict[Place, _Names] = OrderedDict()
        self._splits: dict[Place, _Names] = {}
        self._held: dict[str, dict[str, Permit]] = {}  # permit -> bucket -> the permit of that bucket

    def take(
        self, name: str, route: str, major: str, per_second: int, spare: int = 0, together: bool = False
    ) -> Granted | Wait | Awaitable[Granted | Wait]:
        names = self._splits.get((route, "" if together else major))
        if names is None:
            return self._inner.take(name, route, major, per_second, spare, together)
        whole = Permit(name, route, major, per_second, "", self.clock.now_us(), together)
        return self._take_each(names, whole, spare)

    def settle(self, permit: Permit, report: CallReport) -> Awaitable[None] | None:
        held, place = self._held.pop(permit.name, None), (permit.route, permit.resource)
        if report.verdict == "answered" and report.bucket:
            self._note(place, report.bucket)
        if held is None and place in self._splits:
            held = {"": permit}  # of before: the buckets of the whole route get no other names any more
        return self._inner.settle(permit, report) if held is None else self._settle_each(held, permit, report)

    def sweep(self) -> float | None:
        oldest_us = self._clock.now_us() - _RECENT_US
        for place, names in list(self._names.items()):
            if max(names.answered.values()) <= oldest_us:
                del self._names[place]
                self._splits.pop(place, None)
        if not self._names:
            self._names = OrderedDict()  # a dict keeps the room that it once needed
        return self._inner.sweep()

    # Buckets

    def _note(self, place: Place, bucket: str) -> None:
        names = self._names.get(place)
        if names is None:
            names = self._names[place] = _Names({})
            if len(self._names) > _MOST_PLACES:
                self._splits.pop(self._names.popitem(last=False)[0], None)
        if bucket in names.answered and bucket != next(reversed(names.answered)) and not names.is_split:
            names.is_split = True
            self._splits[place] = names
        names.answered.pop(bucket, None)
        names.answered[bucket] = self._clock.now_us()
        if len(names.answered) > _MOST_BUCKETS:
            del names.answered[next(iter(names.answered))]

    def _buckets(self, place: Place, names: _Names) -> list[str]:
        """Those that answer. One alone is an ordinary bucket again."""
        oldest_us = self._clock.now_us() - _RECENT_US
        recent = sorted(bucket for bucket, at_us in names.answered.items() if at_us > oldest_us)
        if len(recent) < 2:
            self._splits.pop(place, None)
            self._names.pop(place, None)
        return recent

    # Permits

    async def _take_each(self, names: _Names, whole: Permit, spare: int) -> Granted | Wait:
        buckets = self._buckets((whole.route, whole.resource), names)
        if len(buckets) < 2:
            return await self._take_one(whole, spare)
        held: dict[str, Permit] = {}
        granted: Granted | None = None
        try:
            for bucket in buckets:
                reply = await self._take_part(whole, bucket, len(held), spare)
                if isinstance(reply, Wait):
                    return reply
                held[bucket], last = reply.permit, reply
            granted, self._held[whole.name] = replace(last, permit=whole), held
            return granted
        finally:
            if granted is None:
                await _all([self._inner.settle(permit, _UNSENT) for permit in held.values()])

    async def _take_part(self, whole: Permit, bucket: str, number: int, spare: int) -> Granted | Wait:
        """The first one is under the global limit as well."""
        name = f"{whole.name}.{number}" if number else whole.name
        per_second = 0 if number else whole.per_second
        part = replace(whole, name=name, route=_part(whole.route, bucket), per_second=per_second)
        return await self._take_one(part, spare)

    async def _take_one(self, permit: Permit, spare: int) -> Granted | Wait:
        reply = self._inner.take(
            permit.name, permit.route, permit.major, permit.per_second, spare, together=permit.together
        )
        return reply if isinstance(reply, (Granted, Wait)) else await reply

    def _settle_each(self, held: dict[str, Permit], whole: Permit, report: CallReport) -> Awaitable[None] | None:
        first = held[next(iter(held))]
        if report.verdict == "answered" and report.bucket and report.bucket not in held:
            name, route = f"{whole.name}.{len(held)}", _part(whole.route, report.bucket)
            held[report.bucket] = replace(first, name=name, route=route, per_second=0, bucket="")
        counted = held.get(report.bucket, first)
        rest = report if report.verdict == "lost" else _UNSENT  # which of them counted a lost one, nobody knows
        settling = [
            self._inner.settle(
                permit, report if permit is counted else _GLOBAL if permit is first and rest is _UNSENT else rest
            )
            for permit in held.values()
        ]
        return _all(settling) if any(settling) else None


def _part(route: str, bucket: str) -> str:
    return f"{route} of {bucket}"


async def _all(pending: list[Awaitable[None] | None]) -> None:
    for one in pending:
        if one is not None:
            await one
