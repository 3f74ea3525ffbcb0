"""Decisions while the server is down: each limit counts in memory, fails open or fails closed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import Outage, State
from asgi_ratelimit.memory import MemoryBuckets, MemoryStore

__all__ = ["Fallback", "LastKnown", "ServerClock"]

_GENERATION = 16_384  # buckets; at most twice as many are recorded


class ServerClock(SystemClock):
    """An estimate of the server's clock: this machine's, moved to the server's last reply."""

    def __init__(self) -> None:
        self._ahead_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._ahead_ns

    def set(self, now_us: int) -> None:
        self._ahead_ns = now_us * 1000 - time.monotonic_ns()


class LastKnown:
    """The last reply of the server about each of the buckets used last. An outage starts from it."""

    def __init__(self) -> None:
        self.blocks: dict[str, tuple[int, int]] = {}  # until when, in µs of the server's clock, and how long
        self._young: dict[str, State] = {}
        self._old: dict[str, State] = {}

    def note(self, name: str, state: State) -> None:
        self._young[name] = state
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}

    def note_block(self, name: str, now_us: int, left_us: int) -> None:
        self.blocks[name] = now_us + left_us, left_us
        if len(self.blocks) > _GENERATION:
            self.blocks.clear()

    def take(self, name: str) -> State:
        """The last state, once: its reader goes on from it. None: there is none."""
        older = self._old.pop(name, None)
        return self._young.pop(name, older)


class Fallback:
    """A limiter's limits without the server. `names` are the records of its block and of each of its buckets."""

    def __init__(
        self,
        store: MemoryStore,
        last_states: LastKnown,
        name: str,
        policies: Sequence[Policy],
        reported_policy: Policy,
        outage: Outage,
    ) -> None:
        self._modes = [policy.limit.outage or outage for policy in policies]
        self._policies, self._reported_policy, self._last_states = policies, reported_policy, last_states
        counted = [policy for policy, mode in zip(policies, self._modes, strict=True) if mode == "local"]
        self._local: MemoryBuckets | None = store.open(name, counted) if counted else None

    def decide(
        self, names: Sequence[str], key: str, cost: int, per: str, cause: object, *, charge: bool = True
    ) -> Decision:
        """The decision in place of the server's. Raises StoreUnavailable if one of the limits fails closed."""
        if "closed" in self._modes:
            raise StoreUnavailable(f"Redis cannot answer ({cause}), and the limit fails closed")
        if self._local is None:
            return self._granted(cost)
        self._warm(self._local, names, key, per)
        decision = (self._local.decide if charge else self._local.peek)(key, cost, per)
        if decision.reason == "blocked":
            return decision
        counted = iter(decision.parts)
        return Decision.combine(
            [
                next(counted).as_degraded() if mode == "local" else _open(policy, cost)
                for policy, mode in zip(self._policies, self._modes, strict=True)
            ]
        )

    def refund(self, decision: Decision) -> None:
        if self._local is not None:
            self._local.refund(decision)

    def reset(self, names: Sequence[str], key: str, per: str) -> None:
        self._last_states.blocks.pop(names[0], None)
        for name in names[1:]:
            self._last_states.take(name)
        if self._local is not None:
            self._local.reset(key, per)

    def block(self, name: str, key: str, seconds: float) -> None:
        self._last_states.blocks.pop(name, None)
        if self._local is not None:
            self._local.block(key, seconds)

    def _granted(self, cost: int) -> Decision:
        if self._policies:
            return Decision.combine([_open(policy, cost) for policy in self._policies])
        return _open(self._reported_policy, cost, parts=())

    def _warm(self, local: MemoryBuckets, names: Sequence[str], key: str, per: str) -> None:
        states = [
            self._last_states.take(name) for name, mode in zip(names[1:], self._modes, strict=True) if mode == "local"
        ]
        local.adopt(key, per, states, self._last_states.blocks.pop(names[0], None))


def _open(policy: Policy, cost: int, parts: tuple[Decision, ...] | None = None) -> Decision:
    """Fail open: the call may go on, and is counted nowhere."""
    return Decision(policy, cost, None, 0, True, reason="degraded", parts=parts)
