"""Buckets in this process's memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Decision, Policy, blocked, reported
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import LeakyBucket, State, TokenBucket
from asgi_ratelimit.store import bucket_key

__all__ = ["MemoryBuckets", "MemoryStore"]

_LONG = 256  # characters; a longer key is kept as a digest, so that nobody fills the memory with a few keys
_SHARD = 4096  # records for which a dict's resize takes well under a millisecond
_FIRST_SWEEP = 64  # records at which a shard is swept for the first time
_SWEEP_PAUSE_US = 10_000  # between two sweeps of a store that is full
_OVERFLOW = object()  # the key of the bucket that newcomers share once the store is full


class _Shard(dict[Any, State]):
    """Some of a table's records: key -> state."""

    __slots__ = ("mark", "place", "table")
    mark: int  # the size at which it is swept next
    place: int
    table: _Table


class _Table:
    """The records of one policy, or of the blocks of one limiter, spread over shards by the key's hash."""

    __slots__ = ("__weakref__", "policy", "shards")

    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy
        self.shards: dict[int, _Shard] = {}

    def is_over(self, state: State, now_us: int) -> bool:
        return state <= now_us if self.policy is None else self.policy.limit.is_full(state, now_us)


_stores: WeakSet[MemoryStore] = WeakSet()


def _renew_locks() -> None:
    """After a fork, in the child: whoever held a lock is not there to release it."""
    for store in _stores:
        store._lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class MemoryStore:
    """Buckets in this process's memory: thread-safe, bounded, without a timer, thread or task.

    Full buckets are dropped in passing. At `max_keys` nothing that is not full ever makes way: newcomers share
    one bucket per shard instead, and a new block is refused with StoreUnavailable. Another process does not
    see these buckets: four workers allow four times the limit.
    """

    shared: bool = False

    def __init__(self, *, max_keys: int = 1_000_000, clock: Clock | None = None) -> None:
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1:
            raise ValueError(f"max_keys must be a whole number of at least 1, e.g. 1_000_000, not {max_keys!r}")
        self.clock: Clock = SystemClock() if clock is None else clock
        self.max_keys = max_keys
        self._count = 0
        self._mask = (1 << (max_keys // _SHARD).bit_length()) - 1
        self._lock = threading.Lock()
        self._tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()
        self._shards: deque[_Shard] = deque()  # of all tables; it keeps alive those that hold a record
        self._next_sweep_us = 0
        _stores.add(self)

    def __len__(self) -> int:
        """How many records are kept, full ones not yet dropped included."""
        return self._count

    def open(self, name: str, policies: Sequence[Policy]) -> MemoryBuckets:
        with self._lock:
            tables = tuple(self._table(policy.bucket, policy) for policy in policies)
            return MemoryBuckets(self, tables, self._table(f"block:{name}", None))

    async def start(self) -> None:
        """There is nothing to start."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    # What follows is called with the lock held.

    def _table(self, identity: str, policy: Policy | None) -> _Table:
        # Limits made up at run time must not pile up: each new one lets go of two old shards, if they are empty.
        self._recycle()
        self._recycle()
        return self._tables.setdefault(identity, _Table(policy))

    def _recycle(self) -> None:
        if self._shards:
            shard = self._shards.popleft()
            self._sweep(shard, self.clock.now_us())
            if shard:
                self._shards.append(shard)
            else:
                del shard.table.shards[shard.place]

    def locate(self, table: _Table, key: Any, now_us: int) -> tuple[_Shard, Any, State]:
        """The shard and the key under which a record is kept or would be, and its state."""
        key = _checked(key)
        place = hash(key) & self._mask
        shard = table.shards.get(place)
        if shard is None:
            shard = self._new_shard(table, place)
        if key not in shard and self._is_full(now_us):
            key = _OVERFLOW
        return shard, key, shard.get(key)

    def write(self, shard: _Shard, key: Any, state: State, now_us: int) -> None:
        """Keep a state; None drops the record."""
        if state is None:
            self._count -= shard.pop(key, None) is not None
            return
        if key not in shard:
            if len(shard) >= shard.mark:
                self._sweep(shard, now_us)
                shard.mark = max(_FIRST_SWEEP, 2 * len(shard))
            self._count += 1
        shard[key] = state

    def _new_shard(self, table: _Table, place: int) -> _Shard:
        shard = table.shards[place] = _Shard()
        shard.mark, shard.place, shard.table = _FIRST_SWEEP, place, table
        self._shards.append(shard)
        return shard

    def _is_full(self, now_us: int) -> bool:
        """Whether there is no room, not even after a sweep of the shard that was not swept for longest."""
        if self._count >= self.max_keys and now_us >= self._next_sweep_us:
            self._next_sweep_us = now_us + _SWEEP_PAUSE_US
            shard = self._shards[0]
            self._shards.rotate(-1)
            self._sweep(shard, now_us)
        return self._count >= self.max_keys

    def _sweep(self, shard: _Shard, now_us: int) -> None:
        over = [key for key, state in shard.items() if shard.table.is_over(state, now_us)]
        for key in over:
            del shard[key]
        self._count -= len(over)


def _checked(key: Any) -> Any:
    if not isinstance(key, str):
        raise TypeError(f'a key is a string such as "user:1", not {key!r}')
    if len(key) <= _LONG:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class MemoryBuckets:
    """The buckets of one limiter in a MemoryStore."""

    __slots__ = (
        "_blocks",
        "_lock",
        "_mask",
        "_now_ns",
        "_now_us",
        "_single",
        "_store",
        "_tables",
    )

    def __init__(self, store: MemoryStore, tables: tuple[_Table, ...], blocks: _Table) -> None:
        self._store = store
        self._lock = store._lock
        self._mask, self._now_us, self._now_ns = store._mask, store.clock.now_us, store.clock.now_ns
        self._tables, self._blocks = tables, blocks
        policy = tables[0].policy
        plain = policy is not None and type(policy.limit) is TokenBucket and policy.limit.scope == "user"
        self._single = tables[0] if plain and len(tables) == 1 else None

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        table = self._single
        if table is None or per or self._blocks.shards:
            return self._decide(key, cost, per, charge=True)
        # One token bucket per user: by far the most common case, so it takes a shorter way to the same answer.
        policy: Any = table.policy
        limit: TokenBucket = policy.limit
        with self._lock:  # not acquire() and try: a signal's exception may strike between the two
            now_us = self._now_ns() // 1000
            try:
                shard = table.shards[hash(key) & self._mask]
                state = shard[key]
            except (KeyError, TypeError):
                shard, key, state = self._store.locate(table, key, now_us)
            # TokenBucket.take, without the call.
            now = now_us * limit.ticks
            latest = now + limit.depth
            after = (now if state is None or state < now or state > latest else state) + cost * limit.interval
            if after <= latest:
                if state is None:
                    self._store.write(shard, key, after, now_us)
                else:
                    shard[key] = after
        decision = Decision()
        decision.policy = policy
        decision.cost = cost
        decision._now_us = now_us
        decision._measure = None
        decision._kept_in = shard
        decision._kept_as = key
        if after <= latest:
            decision.allowed = True
            decision._state = after
        else:
            decision.allowed = False
            decision._state = state
        return decision

    def peek(self, key: str, cost: int, per: str) -> Decision:
        return self._decide(key, cost, per, charge=False)

    def refund(self, decision: Decision) -> None:
        with self._lock:
            now_us = self._now_us()
            for part in decision.parts:
                shard, part._kept_in = part._kept_in, None
                if part.allowed and shard is not None:
                    state = part.policy.limit.give_back(
                        shard.get(part._kept_as), now_us, part.cost, part._state, part._now_us
                    )
                    self._store.write(shard, part._kept_as, state, now_us)

    def reset(self, key: str, per: str) -> None:
        with self._lock:
            now_us = self._now_us()
            for table in self._tables:
                scope = table.policy.limit.scope if table.policy else "user"
                self._drop(table, bucket_key(scope, key, per), now_us)
            self._drop(self._blocks, key, now_us)

    def block(self, key: str, seconds: float) -> None:
        with self._lock:
            now_us = self._now_us()
            if seconds <= 0:
                self._drop(self._blocks, key, now_us)
                return
            shard, kept_as, _ = self._store.locate(self._blocks, key, now_us)
            if kept_as is _OVERFLOW:
                raise StoreUnavailable(f"no room for another block: all {self._store.max_keys} records are in use")
            self._store.write(shard, kept_as, now_us + round(seconds * 1e6), now_us)

    def adopt(self, key: str, per: str, states: Sequence[State], blocked_until_us: int | None) -> None:
        """Take over what another store of the same clock knows of these buckets; None: nothing."""
        with self._lock:
            now_us = self._now_us()
            for table, state in zip(self._tables, states, strict=True):
                policy: Any = table.policy
                if state is not None:
                    shard, kept_as, _ = self._store.locate(table, bucket_key(policy.limit.scope, key, per), now_us)
                    self._store.write(shard, kept_as, state, now_us)
            if blocked_until_us is not None:
                shard, kept_as, _ = self._store.locate(self._blocks, key, now_us)
                self._store.write(shard, kept_as, blocked_until_us, now_us)

    def _drop(self, table: _Table, key: str, now_us: int) -> None:
        shard = table.shards.get(hash(kept_as := _checked(key)) & self._mask)
        if shard is not None:
            self._store.write(shard, kept_as, None, now_us)

    def _decide(self, key: str, cost: int, per: str, *, charge: bool) -> Decision:
        with self._lock:
            now_us = self._now_us()
            blocked_us = self._blocked_us(key, now_us)
            parts = [self._ask(table, key, cost, per, now_us) for table in self._tables]
            charge = charge and not blocked_us and all(part.allowed for part in parts)
            for part in parts:
                if charge:
                    self._charge(part, now_us)
                else:
                    part._kept_in = None
        return blocked(parts, blocked_us) if blocked_us else reported(parts)

    def _ask(self, table: _Table, key: str, cost: int, per: str, now_us: int) -> Decision:
        """What one limit says, with nothing charged yet."""
        policy: Any = table.policy
        part = Decision()
        part._measure = None
        part.policy, part.cost, part._now_us = policy, cost, now_us
        part._kept_in, part._kept_as, part._state = self._store.locate(
            table, bucket_key(policy.limit.scope, key, per), now_us
        )
        part.allowed = policy.limit.take(part._state, now_us, cost) is not None
        if part.allowed and isinstance(policy.limit, LeakyBucket):
            part._delay_us = policy.limit.delay_us(part._state, now_us)
        return part

    def _charge(self, part: Decision, now_us: int) -> None:
        part._state = part.policy.limit.take(part._state, now_us, part.cost)
        self._store.write(part._kept_in, part._kept_as, part._state, now_us)

    def _blocked_us(self, key: str, now_us: int) -> int:
        shard = self._blocks.shards.get(hash(kept_as := _checked(key)) & self._mask)
        return max(0, shard.get(kept_as, 0) - now_us) if shard else 0
