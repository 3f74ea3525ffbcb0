"""What was decided, and by which policy."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from asgi_ratelimit.limits import Limit, Measure, Scope

__all__ = ["Decision", "Policy", "Reason", "blocked", "reported"]

Reason = Literal["ok", "limited", "blocked", "cached", "degraded"]


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A limit under the name of its limiter: what all keys' buckets have in common."""

    name: str
    limit: Limit
    bucket: str = field(init=False)

    def __post_init__(self) -> None:
        identity = repr((self.name, *self.limit.identity)).encode("utf-8", "surrogatepass")
        object.__setattr__(self, "bucket", blake2b(identity, digest_size=16).hexdigest())


class Decision:
    """Whether a call may go on, and what its bucket looks like now. To be read, not written.

    Its numbers are computed when they are asked for: most callers want one or two of them.
    """

    # No __init__: a store makes one for every call it decides and fills the slots itself. Those from
    # _delay_us on may stay empty.
    __slots__ = (
        "_delay_us", "_kept_as", "_kept_in", "_measure", "_now_us", "_parts", "_reason", "_state",
        "allowed", "cost", "policy",
    )  # fmt: skip
    allowed: bool
    policy: Policy
    cost: int
    _state: Any  # the bucket's state after this decision
    _now_us: int
    _kept_in: Any  # where the store keeps the bucket; None: there is nothing to refund
    _kept_as: Any
    _delay_us: int
    _measure: Measure | None
    _parts: tuple[Decision, ...]
    _reason: Reason

    @property
    def limit(self) -> int:
        """How many the full bucket holds."""
        return self.policy.limit.capacity

    @property
    def remaining(self) -> int:
        """How many are left."""
        return self.measure[0]

    @property
    def reset_after(self) -> float:
        """Seconds until the bucket is full again."""
        return self.reset_us / 1e6

    @property
    def retry_after(self) -> float:
        """Seconds until this cost would be allowed; 0.0 when it is."""
        return 0.0 if self.allowed else self.retry_us / 1e6

    @property
    def delay(self) -> float:
        """Seconds to wait before going on (a LeakyBucket's slot); 0.0 from every other limit."""
        return getattr(self, "_delay_us", 0) / 1e6

    @property
    def reason(self) -> Reason:
        """ "ok" or "limited"; "blocked", "cached" or "degraded" where it was not the buckets that decided."""
        return getattr(self, "_reason", "ok" if self.allowed else "limited")

    @property
    def bucket(self) -> str:
        """32 hex characters, the same for every key of a limit, as in Discord's X-RateLimit-Bucket."""
        return self.policy.bucket

    @property
    def scope(self) -> Scope:
        """Whose bucket it is: "user", "global" or "shared"."""
        return self.policy.limit.scope

    @property
    def parts(self) -> tuple[Decision, ...]:
        """The decision of every limit in the limiter's list; of a single limit, the decision itself."""
        return getattr(self, "_parts", (self,))

    @property
    def reset_us(self) -> int:
        """Microseconds until the bucket is full again, rounded up."""
        return self.measure[1]

    @property
    def retry_us(self) -> int:
        """Microseconds until as much again would be allowed, rounded up."""
        return self.measure[2]

    @property
    def measure(self) -> Measure:
        """What remains, and the microseconds until it is full and until this cost is allowed."""
        found = self._measure
        if found is None:
            found = self._measure = self.policy.limit.measure(self._state, self._now_us, self.cost)
        return found

    def wait_us(self, cost: int) -> int:
        """Microseconds from this decision until another `cost` would be allowed, if nobody else comes."""
        return max(p.policy.limit.measure(p._state, p._now_us, cost)[2] for p in self.parts)

    def as_refusal(self, cost: int, wait_us: int = 0) -> Decision:
        """The refusal of another `cost` right after this decision, for `wait_us` microseconds at least."""
        refusal = copy(self)
        refusal.cost, refusal.allowed, refusal._delay_us, refusal._kept_in = cost, False, 0, None
        remaining, reset_us, retry_us = self.measure
        blocked_us = retry_us if self.reason == "blocked" else 0
        refusal._measure = remaining, reset_us, max(self.wait_us(cost), blocked_us, wait_us)
        return refusal

    def __eq__(self, other: object) -> bool:
        return self._public() == other._public() if isinstance(other, Decision) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        names = ("allowed", "limit", "remaining", "reset_after", "retry_after", "delay", "bucket", "scope", "reason")
        return f"Decision({', '.join(f'{n}={v!r}' for n, v in zip(names, self._public(), strict=True))})"

    def _public(self) -> tuple[object, ...]:
        return (
            self.allowed, self.limit, self.remaining, self.reset_after, self.retry_after, self.delay,
            self.bucket, self.scope, self.reason,
        )  # fmt: skip


def reported(parts: Sequence[Decision]) -> Decision:
    """The decision of a list of limits: the longest wait of those that refused, else the fewest remaining."""
    if len(parts) == 1:
        return parts[0]
    refused = [part for part in parts if not part.allowed]
    whole = copy(max(refused, key=lambda p: p.retry_us) if refused else min(parts, key=lambda p: p.remaining))
    whole._parts = tuple(parts)
    whole._delay_us = 0 if refused else max(getattr(part, "_delay_us", 0) for part in parts)
    return whole


def blocked(parts: Sequence[Decision], for_us: int) -> Decision:
    """The decision about a key that is blocked for `for_us` microseconds: in the words of a limit of its own."""
    decision = next((part for part in parts if part.scope != "global"), parts[0])
    decision.allowed, decision._reason, decision._delay_us = False, "blocked", 0
    decision._measure = (0, for_us, for_us)
    return decision
