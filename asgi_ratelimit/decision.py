"""The answer of a store about one call, and the policy that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, final

from asgi_ratelimit.limits import Limit, Measure, Scope, State
from asgi_ratelimit.slot import Slot

__all__ = ["BucketKey", "Charge", "Decision", "Policy", "Reason", "make_decision"]

Reason = Literal["ok", "limited", "blocked", "cached", "degraded"]
Charge = object  # the receipt of the store that decided; opaque to every other reader
BucketKey = str | bytes | tuple[str, str]  # a pair with a resource; bytes where the store had to shorten a key


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A limit under the name of its limiter: the part that the buckets of all keys share."""

    name: str
    limit: Limit
    bucket: str = field(init=False)
    raw_headers: tuple[tuple[bytes, bytes], ...] = field(init=False)  # those of its limit, its bucket and its scope

    def __post_init__(self) -> None:
        identity = repr((self.name, *self.limit.identity)).encode("utf-8", "surrogatepass")
        bucket = blake2b(identity, digest_size=16).hexdigest()
        values = {"limit": str(self.limit.capacity), "bucket": bucket, "scope": self.limit.scope}
        headers = tuple((f"x-ratelimit-{name}".encode(), value.encode()) for name, value in values.items())
        object.__setattr__(self, "bucket", bucket)
        object.__setattr__(self, "raw_headers", headers)


@final
class Decision:
    """Whether a call may go on, and the state of its bucket. Its numbers are computed when they are read.

    policy: the limit that is reported, under the name of its limiter
    cost: the cost of the call
    state: the bucket's state after this decision, as `policy.limit` reads it; None: a full bucket
    now_us: the moment of the decision on the store's clock, in microseconds
    allowed: whether the call may go on
    charge: the store's receipt, by which it finds the charge for a refund; None: nothing was charged
    delay_us: microseconds to wait before going on (shaping)
    reason: "ok" or "limited" by default
    measure: (remaining, µs until full, µs until allowed) where these do not follow from the state
    bucket_key: the bucket among all of its policy
    parts: one decision per limit, if the limiter has several
    over: the soft limits (`enforce=False`) that this call has exceeded; it is not charged to them

    `special` is the reason where something else than the buckets has decided, else None. `several` are the parts where
    there are several limits, else None. `origin` is a note of the door
    that returns the decision to its user, by which it finds the charge again.
    """

    __slots__ = (
        "_charge", "_measure", "allowed", "bucket_key", "cost", "delay_us", "now_us", "origin", "over",
        "policy", "several", "special", "state",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        cost: int,
        state: State,
        now_us: int,
        allowed: bool,
        charge: Charge | None = None,
        bucket_key: BucketKey = "",
        *,
        delay_us: int = 0,
        reason: Reason | None = None,
        measure: Measure | None = None,
        parts: tuple[Decision, ...] | None = None,
        over: tuple[Limit, ...] = (),
    ) -> None:
        self.policy = policy
        self.cost = cost
        self.state = state
        self.now_us = now_us
        self.allowed = allowed
        self.delay_us = delay_us
        self.bucket_key = bucket_key
        self._charge = charge
        self.special = reason
        self._measure = measure
        self.several = parts
        self.over = over
        self.origin: object = None

    @property
    def limit(self) -> int:
        """How many the full bucket holds."""
        return self.policy.limit.capacity

    @property
    def remaining(self) -> int:
        """How many are left."""
        return self.measured()[0]

    @property
    def reset_after(self) -> float:
        """Seconds until the bucket is full again."""
        return self.reset_us / 1e6

    @property
    def retry_after(self) -> float:
        """Seconds until this cost would be allowed, or until the block of the key ends; 0.0 when it is allowed."""
        return 0.0 if self.allowed else self.retry_us / 1e6

    @property
    def delay(self) -> float:
        """Seconds to wait before going on (a LeakyBucket's slot); 0.0 from every other limit."""
        return self.delay_us / 1e6

    @property
    def reason(self) -> Reason:
        """ "ok" or "limited"; "blocked", "cached" or "degraded" where something else than the buckets decided."""
        return self.special or ("ok" if self.allowed else "limited")

    @property
    def is_block(self) -> bool:
        """Whether the key is blocked. A block that is remembered in this process has "cached" as its reason."""
        return self.special == "blocked" or (self.special == "cached" and str(self.bucket_key).endswith(":block"))

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
        return (self,) if self.several is None else self.several

    def is_near(self) -> bool:
        """Whether at least 80 % of a limit are used."""
        if self.several is None:
            return self.policy.limit.is_near(self.state, self.now_us)
        return any(part.is_near() for part in self.several)

    @property
    def reset_us(self) -> int:
        """Microseconds until the bucket is full again, rounded up."""
        return self.measured()[1]

    @property
    def retry_us(self) -> int:
        """Microseconds until as much again would be allowed, rounded up."""
        return self.measured()[2]

    def measured(self) -> Measure:
        """What remains, and the microseconds until the bucket is full and until this cost is allowed."""
        measure = self._measure
        if measure is None:
            measure = self._measure = self.policy.limit.measure(self.state, self.now_us, self.cost)
        return measure

    @property
    def measure(self) -> Measure:
        """The same: a method is called faster than a property is read."""
        return self.measured()

    def wait_us(self, cost: int) -> int:
        """Microseconds from this decision until another `cost` would be allowed, if no other call comes.

        The cost of several calls may be above the capacity.
        """
        hard = [part for part in self.parts if part.policy.limit.enforce]
        return max((part.policy.limit.wait_us(part.state, part.now_us, cost) for part in hard), default=0)

    def sure_wait_us(self, cost: int) -> int:
        """The same, but for limits that may allow a call at any moment, because another one ends."""
        waits = [
            part.policy.limit.wait_us(part.state, part.now_us, cost)
            for part in self.parts
            if part.policy.limit.enforce and not part.policy.limit.holds
        ]
        return max(waits, default=0)

    # For stores

    def take_charge(self) -> Charge | None:
        """The store's receipt, once: a charge is given back only once."""
        charge, self._charge = self._charge, None
        return charge

    def charged_by(self, charge: Charge) -> bool:
        """Whether this is the receipt that the decision still holds."""
        return self._charge is charge

    @property
    def slot(self) -> Slot | None:
        """The receipt of the slot that the decision still holds, if it has taken one."""
        return self._charge if isinstance(self._charge, Slot) else None

    def hold(self, charge: Charge | None) -> None:
        """Make this the receipt of the charge."""
        self._charge = charge

    @property
    def is_charged(self) -> bool:
        """Whether it still holds a receipt: a charge that is neither given back nor settled, or a slot."""
        return any(part._charge is not None for part in self.parts)

    def as_degraded(self) -> Decision:
        """The same decision, marked as one that was made without the server."""
        return Decision(
            self.policy, self.cost, self.state, self.now_us, self.allowed, self.take_charge(), self.bucket_key,
            delay_us=self.delay_us, reason="degraded", measure=self._measure, over=self.over,
        )  # fmt: skip

    def without_charge(self) -> Decision:
        """The same decision, without anything to give back."""
        return Decision(
            self.policy, self.cost, self.state, self.now_us, self.allowed, None, self.bucket_key,
            delay_us=self.delay_us, reason=self.special, measure=self._measure, over=self.over,
        )  # fmt: skip

    def as_settled(self, cost: int) -> Decision:
        """The same decision, with its buckets as they are if the call has cost so much, for the headers."""
        if self.several:
            return Decision.combine([part.as_settled(cost) for part in self.several])
        return Decision(
            self.policy, self.cost, self._settled_state(cost), self.now_us, self.allowed, None, self.bucket_key,
            reason=self.special, over=self.over,
        )  # fmt: skip

    def _settled_state(self, cost: int) -> State:
        limit = self.policy.limit
        if self.over or not self.allowed or (limit.holds and cost):  # it was not charged, or keeps its slot
            return self.state
        if cost < self.cost:
            return limit.give_back(self.state, self.now_us, self.cost - cost, self.state, self.now_us)
        return limit.owe(self.state, self.now_us, cost - self.cost)[0] if cost > self.cost else self.state

    def later(self, wait_us: int) -> Decision:
        """The same refusal, for `wait_us` microseconds."""
        remaining, reset_us, retry_us = self.measured()
        if wait_us == retry_us:
            return self
        return Decision(
            self.policy, self.cost, self.state, self.now_us, False, None, self.bucket_key,
            reason=self.special, measure=(remaining, reset_us, wait_us), parts=self.several, over=self.over,
        )  # fmt: skip

    def as_refusal(self, cost: int, wait_us: int = 0, *, passed_us: int = 0) -> Decision:
        """The refusal of another `cost`, `passed_us` after this decision, for `wait_us` microseconds at least."""
        remaining, reset_us, retry_us = self.measured()
        blocked_us = retry_us if self.reason == "blocked" else 0
        due_us = max(self.wait_us(cost), blocked_us) - passed_us
        measure = remaining, max(0, reset_us - passed_us), max(due_us, wait_us)
        return Decision(
            self.policy, cost, self.state, self.now_us,
            allowed=False, reason=None if self.reason == "ok" else self.reason, measure=measure,
            bucket_key=self.bucket_key, parts=self.several and tuple(part.without_charge() for part in self.several),
            over=self.over,
        )  # fmt: skip

    @classmethod
    def combine(cls, parts: Sequence[Decision]) -> Decision:
        """The decision of a list of limits: the longest wait of those that refused, else the fewest remaining."""
        if len(parts) == 1:
            return parts[0]
        refused = [part for part in parts if not part.allowed]
        part = max(refused, key=lambda p: p.retry_us) if refused else min(parts, key=lambda p: p.remaining)
        # Slots come and go with other calls: no client can plan by them.
        if part.policy.limit.holds and not refused:
            part = min([p for p in parts if not p.policy.limit.holds] or [part], key=lambda p: p.remaining)
        return cls(
            part.policy, part.cost, part.state, part.now_us,
            allowed=part.allowed, reason=part.reason, measure=part.measured(), bucket_key=part.bucket_key,
            delay_us=0 if refused else max(part.delay_us for part in parts), parts=tuple(parts),
            over=tuple([limit for part in parts if part.over for limit in part.over]),
        )  # fmt: skip

    @classmethod
    def blocked(cls, parts: Sequence[Decision], for_us: int, bucket_key: BucketKey = "") -> Decision:
        """The decision about a key that is blocked for `for_us` microseconds. It speaks of a limit of the key's own."""
        part = next((part for part in parts if part.scope != "global"), parts[0])
        return cls(
            part.policy, part.cost, part.state, part.now_us,
            allowed=False, reason="blocked", measure=(0, for_us, for_us), bucket_key=bucket_key or part.bucket_key,
        )  # fmt: skip

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        """A copy or pickle names no key, and has no charge: it is given back once, and its receipt may hold others."""
        self.measured()  # by the clock of this process
        left_out = {"_charge": None, "bucket_key": "", "origin": None}
        return None, {name: getattr(self, name) for name in self.__slots__} | left_out

    def __eq__(self, other: object) -> bool:
        return _public(self) == _public(other) if isinstance(other, Decision) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Decision({', '.join(f'{n}={v!r}' for n, v in zip(_NAMES, _public(self), strict=True))})"


def make_decision(
    policy: Policy,
    cost: int,
    state: State,
    now_us: int,
    allowed: bool,
    charge: Charge | None,
    bucket_key: BucketKey,
    delay_us: int,
) -> Decision:
    """What the constructor makes of these, in two thirds of its time. For stores, which make one for every check."""
    decision = _new(Decision)
    decision.policy = policy
    decision.cost = cost
    decision.state = state
    decision.now_us = now_us
    decision.allowed = allowed
    decision.delay_us = delay_us
    decision.bucket_key = bucket_key
    decision._charge = charge
    decision.special = decision._measure = decision.several = decision.origin = None
    decision.over = ()
    return decision


_new = object.__new__  # CPython 3.11 and 3.12 call a constructor that is written in Python slowly
_NAMES = ("allowed", "limit", "remaining", "reset_after", "retry_after", "delay", "bucket", "scope", "reason", "over")


def _public(decision: Decision) -> tuple[object, ...]:
    return tuple(getattr(decision, name) for name in _NAMES)
