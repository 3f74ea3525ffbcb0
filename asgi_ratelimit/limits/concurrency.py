"""The limit of calls at a time: Concurrency."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from struct import unpack
from typing import Any, ClassVar

from asgi_ratelimit.limits.base import SHIPPED, Limit, Measure, Outage, Scope, at_least
from asgi_ratelimit.rate import Rate

__all__ = ["Concurrency"]

Slots = tuple[int, ...]  # of each slot in use its id and the end of its lease, in order of the ids

_LEAST_US, _MOST_US = 1_000, 7 * 86_400_000_000  # of a lease
_LOOK_AGAIN_US = 1_000_000  # a slot may be freed at any moment; a refusal names this wait at most
_STATUSES = (429, 503)


class Concurrency(Limit):
    """At most `count` calls at a time. A slot is taken with the decision, and ends when it is released.

    lease: seconds after which the slot of a holder that died is free. A living holder renews its lease by itself: the
        process that has taken the slot does so for as long as the decision exists
    status: the status of a refused request, 429 or 503

    A call takes one slot, whatever it costs. The state holds two numbers per slot in use: fine for hundreds of slots,
    not for many thousands. Neither the count nor the lease is part of the bucket's identity.
    """

    counts_to_zero: ClassVar[bool] = True
    holds: ClassVar[bool] = True

    def __init__(
        self,
        count: int,
        lease: float = 60,
        *,
        name: str | None = None,
        scope: Scope = "user",
        outage: Outage | None = None,
        enforce: bool = True,
        unit: str | None = "concurrent-requests",
        status: int = 429,
    ) -> None:
        rate = Rate(at_least("count", count, 0, "10"), _lease_us(lease))
        if isinstance(status, bool) or status not in _STATUSES:
            raise ValueError(f"status is 429, or 503 if the app is what is busy, not {status!r}")
        Limit.__init__(self, rate, name=name, scope=scope, outage=outage, enforce=enforce, unit=unit)
        self._set(_status=status)

    @property
    def status(self) -> int:
        """429, or 503 where the app rather than the client is at fault."""
        status: int = vars(self)["_status"]
        return status

    @property
    def lease(self) -> float:
        """Seconds for which a slot is taken, unless it is renewed."""
        return self.period

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        kind, _lease_us, *rest = super().identity
        return (kind, *rest)

    def _options(self) -> tuple[object, ...]:
        return (*Limit._options(self), self.status)

    def __str__(self) -> str:
        return f"{self.capacity} at a time"

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in ("name", "scope", "outage", "enforce", "unit", "status")}
        changed = [f", {name}={value!r}" for name, value in values.items() if value != _DEFAULTS.get(name)]
        return f"{type(self).__name__}({self.capacity}, lease={self.lease:g}{''.join(changed)})"

    def _live(self, state: Slots | None, now_us: int) -> Slots:
        """The slots with a lease that goes on. None ends later than a lease from now: the clock may have gone back."""
        if not state:
            return ()
        latest, ends = now_us + self.rate.period_us, state[1::2]
        if min(ends) > now_us and max(ends) <= latest:
            return state
        pairs = zip(state[::2], ends, strict=True)
        return tuple([number for slot, end in pairs if end > now_us for number in (slot, min(end, latest))])

    def take(self, state: Slots | None, now_us: int, cost: int) -> Slots | None:
        live = self._live(state, now_us)
        if len(live) >= 2 * self.capacity:
            return None
        return (*live, max(now_us, live[-2] + 1) if live else now_us, now_us + self.rate.period_us)

    def give_back(self, state: Slots | None, now_us: int, cost: int, charged: Slots, charged_at: int) -> Slots | None:
        return self.without(state, now_us, charged[-2])

    def without(self, state: Slots | None, now_us: int, slot: int) -> Slots | None:
        """The state after a slot is released."""
        live = self._live(state, now_us)
        return tuple([n for i in range(0, len(live), 2) if live[i] != slot for n in live[i : i + 2]]) or None

    def renew(self, state: Slots | None, now_us: int, slots: Iterable[int]) -> Slots | None:
        """The state after the leases of these slots begin anew, also of those that were lost."""
        live, end = list(self._live(state, now_us)), now_us + self.rate.period_us
        for slot in slots:
            place = 2 * bisect_left(live[::2], slot)
            live[place : place + 2 * (live[place : place + 1] == [slot])] = slot, end
        return tuple(live) or None

    def expired(self, state: Slots, now_us: int) -> list[int]:
        """The slots with a lease that has ended."""
        return [slot for slot, end in zip(state[::2], state[1::2], strict=True) if end <= now_us]

    def owe(self, state: Slots | None, now_us: int, cost: int) -> tuple[Slots | None, bool]:
        return state, False

    def cut(self, state: Slots | None, now_us: int) -> Slots | None:
        if not state or max(state[1::2]) <= now_us + self.rate.period_us:
            return state
        return self._live(state, now_us)

    def measure(self, state: Slots | None, now_us: int, cost: int) -> Measure:
        if not self.capacity:
            return self._never
        ends = sorted(self._live(state, now_us)[1::2])
        remaining = self.capacity - len(ends)
        reset_us = ends[-1] - now_us if ends else 0
        if remaining > 0:
            return remaining, reset_us, 0
        return 0, reset_us, min(_LOOK_AGAIN_US, ends[-remaining] - now_us)

    def wait_us(self, state: Slots | None, now_us: int, cost: int) -> int:
        return self.measure(state, now_us, 1)[2]

    def is_full(self, state: Slots, now_us: int) -> bool:
        return max(state[1::2]) <= now_us

    def encode(self, cost: int, now_us: int) -> list[str | int | float]:
        return ["C" if self.enforce else "c", self.capacity, 1, self.rate.period_us]

    def encode_charge(self, charged: Slots, charged_at: int) -> Sequence[int]:
        return (charged[-2],)

    def decode(self, reply: Sequence[Any], place: int) -> tuple[Slots | None, int]:
        slots = reply[place]
        return unpack(f"<{len(slots) // 8}q", slots) or None, place + 1


_DEFAULTS = {"scope": "user", "enforce": True, "unit": "concurrent-requests", "status": 429}
SHIPPED.add(Concurrency)


def _lease_us(lease: object) -> int:
    if isinstance(lease, bool) or not isinstance(lease, (int, float)) or not _LEAST_US <= lease * 1e6 <= _MOST_US:
        raise ValueError(f"lease is seconds from 0.001 to a week, e.g. lease=60, not {lease!r}")
    return round(lease * 1e6)
