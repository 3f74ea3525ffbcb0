"""Decisions while the server is down: each limit counts in memory, fails open or fails closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from asgi_ratelimit.call_keys import CallKey, distinct, per_limit
from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import Outage, State
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.memory.buckets import MemoryBuckets
from asgi_ratelimit.redis.renewals import Renewals, SlotPlace
from asgi_ratelimit.store import Settlement
from asgi_ratelimit.store_events import EventHook, StoreEvent, emit

__all__ = ["Fallback", "LastKnown", "OutageStore", "ServerClock"]

logger = logging.getLogger("asgi_ratelimit")

_LOCAL_KEYS = 100_000  # counted one by one in an outage
_GENERATION = 16_384  # buckets; at most twice as many are recorded
_CALL_BYTES = 40  # of one call in a state that grows with each: a number, and its place in a tuple
_GENERATION_CALLS = 16 * 2**20 // _CALL_BYTES  # in such states: 16 MiB; at most twice as much is recorded


class ServerClock(SystemClock):
    """An estimate of the server's clock: this machine's, moved to the server's last reply."""

    def __init__(self) -> None:
        self._ahead_ns = time.time_ns() - SystemClock.now_ns()

    def now_ns(self) -> int:
        return SystemClock.now_ns() + self._ahead_ns

    def set(self, now_us: int) -> None:
        self._ahead_ns = now_us * 1000 - SystemClock.now_ns()


class OutageStore(MemoryStore):
    """Counts for this process while the server is down. Once it is full, newcomers share the overflow."""

    _report_pause_us = 3_600_000_000

    def __init__(self, node: str, clock: Clock, on_event: EventHook | None) -> None:
        super().__init__(max_keys=_LOCAL_KEYS, clock=clock)
        self._node, self._hook = node, on_event
        self.slot_counts = None  # those of the store that this one stands in for

    def report_full(self) -> None:
        cause = f"{self.max_keys} buckets and blocks are in this process for outages, so new keys share a few in one"
        logger.warning("%s: %s", self._node, cause)
        emit(self._hook, StoreEvent("full", self._node, cause, 0.0))


class LastKnown:
    """The last reply of the server about each of the buckets used last. An outage starts from it.

    Its states count in microseconds: the limit of an outage may have other ticks.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, tuple[int, int]] = {}  # until when, in µs of the server's clock, and how long
        self.young: dict[str, State] = {}  # a state that is a number may be written into it directly
        self._old: dict[str, State] = {}
        self._calls = 0  # in the tuples among the young

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def note(self, name: str, state: State) -> None:
        if type(state) is tuple:
            self._calls += len(state) - _calls_in(self.young.get(name))
        self.young[name] = state
        self.trim()

    def settle(self, part: Decision, cost: int, now_us: int) -> None:
        """A charge is being settled: an outage goes on from that."""
        name, limit = str(part.bucket_key), part.policy.limit
        state = limit.adopt(self.take(name), 1)
        if state is None:
            return
        if cost < part.cost:
            state = limit.give_back(state, max(now_us, part.now_us), part.cost - cost, part.state, part.now_us)
        elif cost > part.cost:
            state = limit.owe(state, now_us, cost - part.cost)[0]
        if state is not None:
            self.note(name, limit.in_microseconds(state))

    def trim(self) -> None:
        """Drop the older ones once there are many of the young. Called after each reply, which may add to these."""
        if len(self.young) >= _GENERATION or self._calls >= _GENERATION_CALLS:
            self._old, self.young, self._calls = self.young, {}, 0

    def note_block(self, name: str, now_us: int, left_us: int) -> None:
        self.blocks[name] = now_us + left_us, left_us
        if len(self.blocks) > _GENERATION:
            self.blocks.clear()

    def clear(self) -> None:
        self.blocks, self.young, self._old, self._calls = {}, {}, {}, 0

    def take(self, name: str) -> State:
        """The last state, once: its reader goes on from it. None: there is none."""
        older = self._old.pop(name, None)
        state = self.young.pop(name, older)
        if state is not older:
            self._calls -= _calls_in(state)
        return state


def _calls_in(state: State) -> int:
    return len(state) if type(state) is tuple else 0


class Fallback:
    """A limiter's limits without the server. `names` are the records of each key's block and of each bucket."""

    def __init__(
        self,
        store: MemoryStore,
        last_states: LastKnown,
        name: str,
        policies: Sequence[Policy],
        reported_policy: Policy,
        outage: Outage,
        renewals: Renewals,
    ) -> None:
        self._modes = [policy.limit.outage or outage for policy in policies]
        self._policies, self._reported_policy, self._last_states = policies, reported_policy, last_states
        self._store, self._renewals = store, renewals
        counted = [policy for policy, mode in zip(policies, self._modes, strict=True) if mode == "local"]
        self._local: MemoryBuckets | None = store.open(name, counted) if counted else None

    def decide(
        self, names: Sequence[str], key: CallKey, cost: int, per: str, cause: object, *, charge: bool = True
    ) -> Decision:
        """The decision in place of the server's. Raises StoreUnavailable if one of the limits fails closed."""
        if "closed" in self._modes:
            raise StoreUnavailable(f"Redis cannot answer ({cause}), and the limit fails closed")
        if self._local is None:
            return self._granted(cost)
        self._warm(self._local, names, key, per)
        keys = self._counted_first(key)
        if charge and isinstance(keys, tuple):
            decision = self._local.decide_each(keys, cost, per)
        else:
            decision = (self._local.decide if charge else self._local.peek)(keys, cost, per)
        if decision.reason == "blocked":
            return decision
        counted = iter(decision.parts)
        return Decision.combine(
            [
                next(counted).as_degraded() if mode == "local" else _open(policy, cost)
                for policy, mode in zip(self._policies, self._modes, strict=True)
            ]
        )

    def settle(self, decision: Decision, cost: int) -> Settlement | None:
        return None if self._local is None else self._local.settle(decision, cost)

    def release(self, decision: Decision) -> None:
        if self._local is not None:
            self._local.release(decision)

    def free(self, place: SlotPlace, slot_id: int) -> None:
        """Free a slot of the server here as well, if an outage has gone on from there."""
        if self._local is not None and len(self._store):
            self._local.free(place.key, place.per, place.policy, slot_id)

    def reset(self, names: Sequence[str], key: CallKey, per: str) -> None:
        for name in names:
            self._last_states.blocks.pop(name, None)
            self._last_states.take(name)
        if self._local is not None:
            self._local.reset(self._counted_first(key), per)

    def block(self, name: str, key: str, seconds: float) -> None:
        self._last_states.blocks.pop(name, None)
        if self._local is not None:
            with suppress(StoreUnavailable):  # no room here; the server has it
                self._local.block(key, seconds)

    def _granted(self, cost: int) -> Decision:
        if self._policies:
            return Decision.combine([_open(policy, cost) for policy in self._policies])
        return _open(self._reported_policy, cost, parts=())

    def _counted_first(self, key: CallKey) -> CallKey:
        """The keys of the limits that count in memory, then those of the others: their blocks count as well."""
        if not isinstance(key, tuple):
            return key
        pairs = sorted(zip(self._modes, key, strict=True), key=lambda pair: pair[0] != "local")
        return tuple([one for _, one in pairs])

    def _warm(self, local: MemoryBuckets, names: Sequence[str], key: CallKey, per: str) -> None:
        keys, blocks = per_limit(key, len(self._modes)), names[: len(names) - len(self._modes)]
        modes = zip(names[len(blocks) :], self._modes, strict=True)
        every = [self._last_states.take(name) if mode == "local" else None for name, mode in modes]
        states = [state for state, mode in zip(every, self._modes, strict=True) if mode == "local"]
        known = [self._last_states.blocks.pop(name, None) for name in blocks]
        local.adopt(self._counted_first(key), per, states, zip(distinct(key), known, strict=True))
        for name, policy, state, one in zip(names[len(blocks) :], self._policies, every, keys, strict=True):
            if state is not None and policy.limit.holds:
                local.keep(one, per, policy, self._renewals.held(name, state[::2]))


def _open(policy: Policy, cost: int, parts: tuple[Decision, ...] | None = None) -> Decision:
    """Fail open: the call may go on, and is counted nowhere. A limit of zero stays one."""
    allowed = policy.limit.capacity > 0 or parts is not None
    return Decision(policy, cost, None, 0, allowed, reason="degraded", parts=parts)
