"""Refusals without a call to the server, for as long as they are certain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from asgi_ratelimit.decision import Decision, Policy

__all__ = ["DenyCache"]

_MOST_BYTES = 16 * 2**20  # of refusals whose state has a number for each call
_CALL_BYTES = 40  # of such a number, and its place
_LONGEST_US = 1_000_000  # so that a reset made elsewhere is soon seen


class _Refusal(NamedTuple):
    until_us: int
    received_us: int
    part: Decision  # about the bucket that refused, or the block
    whole: Decision  # about the call, with all of its limits
    keys: Sequence[str]  # of all of its limits
    size: int  # bytes of its states


class DenyCache:
    """The last refusals, by the name of the record that caused them: a bucket's, or a block's."""

    def __init__(self, size: int) -> None:
        self._size, self._bytes = size, 0
        self.refusals: OrderedDict[str, _Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self.refusals)

    def remember(self, keys: Sequence[str], whole: Decision, sent_us: int, received_us: int) -> None:
        """Store a refusal. Its check was sent at `sent_us`, so it was not made before."""
        if not self._size:
            return
        size = sum(_CALL_BYTES * len(part.state) for part in whole.parts if type(part.state) is tuple)
        for part in whole.parts:
            if not part.allowed and (not part.policy.limit.holds or part.reason == "blocked"):  # certain for a while
                until_us = sent_us + min(part.retry_us, _LONGEST_US)
                self._drop(str(part.bucket_key))
                self.refusals[str(part.bucket_key)] = _Refusal(until_us, received_us, part, whole, keys, size)
                self._bytes += size
        while len(self.refusals) > self._size or self._bytes > _MOST_BYTES:
            self._drop(next(iter(self.refusals)))

    def find(self, keys: Sequence[str], policies: Sequence[Policy], cost: int, now_us: int) -> Decision | None:
        """The stored refusal of a cost at most as high, as of now. Of several the one with the longest wait.

        `policies` are those of the last keys. The others, one at least, are those of blocks. Refusals by another limit
        of the same bucket do not count.
        """
        if not self.refusals:
            return None
        pairs = zip(keys, (*[None] * (len(keys) - len(policies)), *policies), strict=True)
        refusals = [refusal for key, policy in pairs if (refusal := self._at(key, policy, cost, now_us)) is not None]
        if not refusals:
            return None
        longest = max(refusals, key=lambda refusal: refusal.received_us + refusal.part.retry_us)
        passed_us = now_us - longest.received_us
        parts = longest.whole.parts
        if (
            longest.keys != keys
            or len(parts) == 1
            or not self._is_current(longest.whole)
            or not all(map(_is_about, parts, policies))
        ):
            return _later(longest.part, cost, passed_us)
        return Decision.combine([_later(part, cost, passed_us) for part in parts])

    def _is_current(self, whole: Decision) -> bool:
        """Whether none of the buckets that refused has been given anything back since."""
        refused = [self.refusals.get(str(part.bucket_key)) for part in whole.parts if not part.allowed]
        return all(refusal is not None and refusal.whole is whole for refusal in refused)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop the refusals about these records, after a refund, a reset or a block."""
        for key in keys:
            self._drop(key)
            if key.endswith(":block"):  # a bucket's refusal may report too short a wait for this key now
                self.refusals.clear()
                self._bytes = 0

    def _drop(self, key: str) -> None:
        refusal = self.refusals.pop(key, None)
        if refusal is not None:
            self._bytes -= refusal.size

    def _at(self, key: str, policy: Policy | None, cost: int, now_us: int) -> _Refusal | None:
        refusal = self.refusals.get(key)
        if refusal is None or cost < refusal.part.cost or not (policy is None or _is_about(refusal.part, policy)):
            return None
        if now_us >= refusal.until_us:
            self._drop(key)
            return None
        return refusal


def _is_about(part: Decision, policy: Policy) -> bool:
    return part.policy is policy or part.policy.limit == policy.limit


def _later(part: Decision, cost: int, passed_us: int) -> Decision:
    """The same refusal after another `passed_us`."""
    left_us = part.retry_us - passed_us
    return Decision(
        part.policy,
        cost,
        part.state,
        part.now_us + passed_us,
        part.allowed,
        bucket_key=part.bucket_key,
        reason="cached",
        measure=(0, left_us, left_us) if part.reason == "blocked" else None,
        over=part.over,
    )
