"""How far a bucket reaches: whether resources, routes and tokens share it. Its hash does not show that; responses do.

Two first calls that both leave all but one in their buckets have two of them. A first call that leaves less has one
that others use as well. So have several that are refused though each had room left.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, NamedTuple

from asgi_ratelimit.discord.permits.bucket import EARLY, LATE, CallReport
from asgi_ratelimit.discord.permits.memory import Permit

__all__ = ["APART", "TOGETHER", "UNDECIDED", "Scope", "Scopes", "Unit"]

UNDECIDED: Final = 0
APART: Final = 1
TOGETHER: Final = 2

_AT_ONCE: Final = 2  # resources that are tried at a time while it is undecided: their responses decide it;
_TRIAL_US: Final = 300_000  # but no call waits for longer than this, if they are slow
_RECENT_US: Final = 10_000_000  # refusals within so long belong together
_OWNERS: Final = 3  # that are refused so: then it is the address that is limited
_CROWDED_US: Final = 60_000_000  # for so long after the last of these refusals
_TOGETHER_US: Final = 60_000_000  # after which it is open again: some of what decided it may have been done by others
_MOST_SEEN: Final = 64
_MOST_ROUTES: Final = 10_000


class Unit(NamedTuple):
    """What may have a bucket of its own."""

    owner: str
    route: str
    major: str


@dataclass(slots=True)
class _Seen:
    """The last response of a unit: until when it counts for sure, and when the bucket is full for sure."""

    limit: int
    remaining: int
    until_us: int
    full_us: int

    @property
    def is_first(self) -> bool:
        """Whether that call was the only one in its bucket."""
        return self.remaining == self.limit - 1


@dataclass(slots=True, eq=False)
class Scope:
    """How far the bucket of one hash reaches.

    reach             whether resources share it
    single            the only route and resource that was called so far: as long as there is none else, nothing is open
    splits_routes     routes that show this hash have limits of their own
    is_plain          each resource has a bucket, and routes with one hash share it: nearly all limits are like that
    last_of_single    its last response: the token, the permit, the report, and when it came
    crowded_until_us  until then all tokens are paced together
    out               calls in flight: the unit of each permit
    """

    bucket: str = ""
    reach: int = UNDECIDED
    is_plain: bool = False
    single: tuple[str, str] | None = None
    last_of_single: tuple[str, Permit, CallReport, int] | None = None
    splits_routes: bool = False
    crowded_until_us: int = 0
    out: dict[str, Unit] = field(default_factory=dict)
    _seen: OrderedDict[Unit, _Seen] = field(default_factory=OrderedDict)
    _refused: dict[Unit, int] = field(default_factory=dict)
    _is_silent: bool = False
    _tried_us: int = 0
    _decided_us: int = 0

    def may_try(self, major: str, now_us: int) -> bool:
        """Whether another call on this resource may go. While it is undecided, two resources are tried for a moment."""
        self.end_single()
        if self.reach == TOGETHER and now_us - self._decided_us > _TOGETHER_US:
            self.reach = UNDECIDED
            self._seen.clear()
        if not self.out:
            self._tried_us = now_us
        if self.reach != UNDECIDED or now_us - self._tried_us > _TRIAL_US:
            return True
        majors = {unit.major for unit in self.out.values()}
        return major in majors or len(majors) < _AT_ONCE

    def end_single(self) -> None:
        """Another route or resource is called: now the response to the first one matters."""
        self.single = None
        if self.last_of_single is not None:
            (owner, permit, report, now_us), self.last_of_single = self.last_of_single, None
            self.note_response(Unit(owner, permit.route, permit.major), report, permit, now_us)

    def name_of(self, bucket: str, route: str) -> str:
        """The name under which the bucket is stored."""
        return f"{bucket}-{blake2b(route.encode(), digest_size=6).hexdigest()}" if self.splits_routes else bucket

    def note_response(self, unit: Unit, report: CallReport, permit: Permit, now_us: int) -> None:
        if not report.limit:
            if not self._seen and self.reach == UNDECIDED:  # nothing will ever decide it
                self._is_silent = True
                self._decide(APART)
            return
        self._is_silent = False
        until_us, full_us = permit.sent_us + report.reset_us - EARLY, now_us + report.reset_us + LATE
        seen = _Seen(report.limit, report.remaining, until_us, full_us)
        is_lone = self._is_lone(unit, permit)
        self._seen[unit] = seen
        others = self._others(unit, now_us)
        for other, each in others.items():
            self._compare(unit, seen, other, each)
        if others and is_lone and not seen.is_first and self.reach == UNDECIDED:
            self._decide(TOGETHER, now_us)
        self._seen.move_to_end(unit)
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)

    def _decide(self, reach: int, now_us: int = 0) -> None:
        self._decided_us = now_us
        self.reach, self.is_plain = reach, reach == APART and not self.splits_routes

    def _others(self, unit: Unit, now_us: int) -> dict[Unit, _Seen]:
        """Those whose last responses still count."""
        return {other: each for other, each in self._seen.items() if other != unit and each.until_us > now_us}

    def _is_lone(self, unit: Unit, permit: Permit) -> bool:
        """Whether the call was the only one on its resource since its bucket was full, in all processes."""
        seen = ((other, each.full_us > permit.sent_us) for other, each in self._seen.items())
        recent = [other for other, is_recent in seen if is_recent] + list(self.out.values())
        return permit.untouched and not any((other.owner, other.major) == (unit.owner, unit.major) for other in recent)

    def _compare(self, unit: Unit, seen: _Seen, other: Unit, each: _Seen) -> None:
        """Two units whose first calls were the only ones in their buckets have two of them."""
        if unit.route != other.route:
            is_split = seen.limit != each.limit or (unit.major == other.major and seen.is_first and each.is_first)
            self.splits_routes |= is_split and unit.owner == other.owner
            self.is_plain &= not self.splits_routes
        elif seen.is_first and each.is_first and unit.owner == other.owner:
            self._decide(APART)
        elif seen.is_first and each.is_first and unit.major == other.major:
            self.crowded_until_us = 0

    def note_refusal(self, unit: Unit, permit: Permit, now_us: int) -> None:
        """Its calls had room left, by all responses. A limit that no response shows means nothing."""
        if self._is_silent:
            return
        self._refused = {other: at for other, at in self._refused.items() if now_us - at < _RECENT_US}
        self._refused[unit] = now_us
        is_used_up = self.reach == UNDECIDED and self._is_lone(unit, permit) and bool(self._others(unit, now_us))
        if is_used_up or len({other.major for other in self._refused if other.owner == unit.owner}) > 1:
            self._decide(TOGETHER, now_us)
        # On one resource others may use up the bucket. Calls on none, e.g. log-ins, have only the address in common.
        if len({other.owner for other in self._refused if not other.major}) >= _OWNERS:
            self.crowded_until_us = now_us + _CROWDED_US


class Scopes:
    """The scopes of all routes, for all tokens of an address."""

    def __init__(self) -> None:
        self.by_route: OrderedDict[str, Scope] = OrderedDict()
        self._by_bucket: OrderedDict[str, Scope] = OrderedDict()
        self.is_crowded = False  # whether any scope has ever been

    def new(self, route: str, major: str) -> Scope:
        """The scope of a route that was not called yet."""
        scope = self.by_route[route] = Scope(single=(route, major))
        if len(self.by_route) > _MOST_ROUTES:
            self.by_route.popitem(last=False)
        return scope

    def forget(self, route: str, permit: str) -> None:
        """There was no permit."""
        scope = self.by_route.get(route)
        if scope is not None:
            scope.out.pop(permit, None)

    def learn(self, owner: str, permit: Permit, report: CallReport, now_us: int) -> tuple[Scope, CallReport]:
        """Learn from a call's outcome. Returns its scope, and the report for its bucket."""
        former = self.by_route.get(permit.route) or self.new(permit.route, permit.major)
        unit = former.out.pop(permit.name, None) or Unit(owner, permit.route, permit.major)
        if report.verdict not in ("answered", "limited"):
            return former, report
        scope = self._scope_of(former, permit.route, report.bucket)
        if report.verdict == "limited":
            scope.note_refusal(unit, permit, now_us)
            self.is_crowded |= scope.crowded_until_us > now_us
        else:
            scope.note_response(unit, report, permit, now_us)
        if not report.bucket:
            return scope, report
        return scope, replace(report, bucket=scope.name_of(report.bucket, permit.route))

    def _scope_of(self, former: Scope, route: str, bucket: str) -> Scope:
        """The scope of the hash that a response shows."""
        if not bucket or bucket == former.bucket:
            return former
        scope = self._by_bucket.get(bucket)
        if scope is None:
            scope = former if not former.bucket else Scope()
            scope.bucket = bucket
            self._by_bucket[bucket] = scope
            if len(self._by_bucket) > _MOST_ROUTES:
                self._by_bucket.popitem(last=False)
        if scope is not former:
            moved = {name: unit for name, unit in former.out.items() if unit.route == route}
            scope.end_single()
            scope.out.update(moved)
            for name in moved:
                del former.out[name]
        self.by_route[route] = scope
        return scope
