"""The buckets of one limiter in several slots of a cluster: checked in turn, and refunded on a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import ClassVar

from asgi_ratelimit.call_keys import StoreKey, distinct
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.redis.buckets import RedisBuckets
from asgi_ratelimit.store import Settlement

__all__ = ["CrossSlotBuckets"]


_MOST_GROUPS = 64  # of limits that have had a key in common; beyond that each limit is checked for itself

_Targets = Sequence[tuple[RedisBuckets, str]]  # groups, each with its key


class CrossSlotBuckets:
    """The most specific first: the keys' own buckets and their blocks, the resource's, the whole app's.

    Not atomic: a call that a later one refuses has for a moment been charged to an earlier one.

    policies: of all limits, in the order of the parts of a decision
    own: the limits that have a bucket for each key
    others: the buckets of those that do not
    positions: the place of each of the own limits in the limiter's list
    make: makes the buckets of some of the own limits, with the block of their key
    """

    takes_several_keys: ClassVar[bool] = True

    def __init__(
        self,
        policies: Sequence[Policy],
        own: Sequence[Policy],
        others: Sequence[RedisBuckets],
        positions: Sequence[int],
        make: Callable[[Sequence[Policy]], RedisBuckets],
    ) -> None:
        self._own, self._others, self._positions, self._make = tuple(own), tuple(others), tuple(positions), make
        self._order = {policy.bucket: place for place, policy in enumerate(policies)}
        self._all = make(self._own)  # for calls with one key
        self._several = bool(others)
        self._parts: dict[tuple[int, ...], RedisBuckets] = {tuple(range(len(own))): self._all}

    def decide(self, key: StoreKey, cost: int, per: str, waiting: bool = False) -> Decision | Awaitable[Decision]:
        if self._several or isinstance(key, tuple):
            return self._decide(self._targets(key), cost, per, waiting)
        return self._all.decide(key, cost, per, waiting)

    async def _decide(self, targets: _Targets, cost: int, per: str, waiting: bool) -> Decision:
        """All groups together have the time of one check."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._all.server.timeout
        passed: list[Decision] = []
        try:
            for group, key in targets:
                pending = group.decide(key, cost, per, waiting, due)
                decision = pending if isinstance(pending, Decision) else await pending
                if not decision.allowed:
                    break
                passed.append(decision)
            else:
                return self._combined(_parts(passed))
        except BaseException:
            self._refund(passed)
            raise
        refunds = [asyncio.ensure_future(refund) for refund in self._refund(passed)]
        if refunds:
            await asyncio.wait(refunds, timeout=max(0.0, due - loop.time()))
        return self._refusal(passed, decision)

    def decide_without_server(self, key: StoreKey, cost: int, per: str) -> Decision:
        """The decision about a caller that has waited for a server before, in vain."""
        passed: list[Decision] = []
        for group, one in self._targets(key):
            decision = group.decide_without_server(one, cost, per)
            if not decision.allowed:
                self._refund(passed)
                return self._refusal(passed, decision)
            passed.append(decision)
        return self._combined(_parts(passed))

    async def peek(self, key: StoreKey, cost: int, per: str) -> Decision:
        decisions = await asyncio.gather(*(group.peek(one, cost, per) for group, one in self._targets(key)))
        blocked = [decision for decision in decisions if decision.reason == "blocked"]
        if blocked:
            return max(blocked, key=attrgetter("retry_us"))
        return self._combined(_parts(decisions))

    async def refund(self, decision: Decision) -> Settlement | None:
        return await self.settle(decision, 0)

    async def settle(self, decision: Decision, cost: int) -> Settlement | None:
        settling = [group.settle(decision, cost) for group in self._groups()]
        results = [each if isinstance(each, str) or each is None else await each for each in settling]
        return "lost" if "lost" in results else "cut" if "cut" in results else None

    def release(self, decision: Decision) -> Awaitable[object] | None:
        """Sent at once, whether or not it is awaited."""
        releases = [each for group in self._groups() if (each := group.release(decision)) is not None]
        return asyncio.gather(*releases) if releases else None

    def _combined(self, parts: list[Decision]) -> Decision:
        """One decision, with its parts in the order of the limiter's list."""
        return Decision.combine(sorted(parts, key=lambda part: self._order[part.bucket]))

    def _refusal(self, passed: Sequence[Decision], decision: Decision) -> Decision:
        """The refusal of a group after others have passed the call."""
        if decision.reason != "limited":
            return decision
        return self._combined([*map(_uncharged, _parts(passed)), *decision.parts])

    def _refund(self, decisions: Sequence[Decision]) -> list[Awaitable[object]]:
        """Send the refunds. They arrive whether or not they are awaited."""
        refunds = [group.refund(decision) for decision in decisions for group in self._groups()]
        return [refund for refund in refunds if refund is not None]

    async def reset(self, key: StoreKey, per: str) -> None:
        await asyncio.gather(*(group.reset(one, per) for group, one in self._targets(key)))

    def block(self, key: str, seconds: float) -> Awaitable[None]:
        return self._all.block(key, seconds)

    def _groups(self) -> list[RedisBuckets]:
        return [*self._parts.values(), *self._others]

    def _targets(self, key: StoreKey) -> _Targets:
        """The groups that a call is about, in their order."""
        if not isinstance(key, tuple):
            return [(group, key) for group in (self._all, *self._others)]
        return [*self._by_key(key), *[(group, key[0]) for group in self._others]]

    def _by_key(self, keys: tuple[str, ...]) -> list[tuple[RedisBuckets, str]]:
        """The own limits by their key. A key without any has a group for its block."""
        pairs: list[tuple[RedisBuckets, str]] = []
        for key in distinct(keys):
            places = tuple([i for i, position in enumerate(self._positions) if keys[position] == key])
            is_whole = len(places) < 2 or places in self._parts or len(self._parts) < _MOST_GROUPS
            pairs += [(self._part(some), key) for some in ([places] if is_whole else [(i,) for i in places])]
        return pairs

    def _part(self, places: tuple[int, ...]) -> RedisBuckets:
        part = self._parts.get(places)
        if part is None:
            part = self._parts[places] = self._make([self._own[i] for i in places])
        return part


def _parts(decisions: Sequence[Decision]) -> list[Decision]:
    return [part for decision in decisions for part in decision.parts]


def _uncharged(part: Decision) -> Decision:
    """A decision whose charge was given back at once, as if it had not been charged."""
    if part.over:
        return part
    state = part.policy.limit.give_back(part.state, part.now_us, part.cost, part.state, part.now_us)
    return Decision(
        part.policy, part.cost, state, part.now_us, part.allowed, None, part.bucket_key, delay_us=part.delay_us
    )
