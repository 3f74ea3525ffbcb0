"""The buckets of one limiter in several slots of a cluster: checked in turn, and refunded on a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.redis.buckets import RedisBuckets
from asgi_ratelimit.store import Settlement

__all__ = ["CrossSlotBuckets"]


class CrossSlotBuckets:
    """The most specific first: the key's own buckets and its block, the resource's, the whole app's.

    Not atomic: a call that a later one refuses has for a moment been charged to an earlier one.
    """

    def __init__(self, groups: Sequence[RedisBuckets], policies: Sequence[Policy]) -> None:
        self._groups = groups
        self._order = {policy.bucket: place for place, policy in enumerate(policies)}  # of the parts of a decision

    async def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        """All groups together have the time of one check."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._groups[0].server.timeout
        passed: list[Decision] = []
        try:
            for group in self._groups:
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

    def decide_without_server(self, key: str, cost: int, per: str) -> Decision:
        """The decision about a caller that has waited for a server before, in vain."""
        passed: list[Decision] = []
        for group in self._groups:
            decision = group.decide_without_server(key, cost, per)
            if not decision.allowed:
                self._refund(passed)
                return self._refusal(passed, decision)
            passed.append(decision)
        return self._combined(_parts(passed))

    async def peek(self, key: str, cost: int, per: str) -> Decision:
        decisions = await asyncio.gather(*(group.peek(key, cost, per) for group in self._groups))
        for decision in decisions:
            if decision.reason == "blocked":
                return decision
        return self._combined(_parts(decisions))

    async def refund(self, decision: Decision) -> Settlement | None:
        return await self.settle(decision, 0)

    async def settle(self, decision: Decision, cost: int) -> Settlement | None:
        settling = [group.settle(decision, cost) for group in self._groups]
        results = [each if isinstance(each, str) or each is None else await each for each in settling]
        return "lost" if "lost" in results else "cut" if "cut" in results else None

    def release(self, decision: Decision) -> Awaitable[object] | None:
        """Sent at once, whether or not it is awaited."""
        releases = [each for group in self._groups if (each := group.release(decision)) is not None]
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
        refunds = [group.refund(decision) for decision in decisions for group in self._groups]
        return [refund for refund in refunds if refund is not None]

    async def reset(self, key: str, per: str) -> None:
        await asyncio.gather(*(group.reset(key, per) for group in self._groups))

    async def block(self, key: str, seconds: float) -> None:
        await self._groups[0].block(key, seconds)


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
