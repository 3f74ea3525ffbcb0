"""Buckets in this process's memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import BucketKey, Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import State, TokenBucket
from asgi_ratelimit.store import bucket_key

__all__ = ["MemoryBuckets", "MemoryStore"]

_LONG: Final = 256  # characters; a longer key is stored as a digest, so that a few keys cannot fill the memory
_SHARD: Final = 4096  # records for which a dict's resize takes well under a millisecond
_FIRST_SWEEP: Final = 64  # records at which a shard is swept for the first time
_SWEEP_PAUSE_US: Final = 10_000  # between two sweeps of a store that is full
_OVERFLOW: Final = b"overflow"  # the key of the bucket that newcomers share once the store is full; no digest is equal


class _Shard(dict[BucketKey, State]):
    """Some of a table's records: key -> state. It is also the receipt of a charge to one of them."""

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
        if self.policy is None:
            return not now_us < state[0]  # a block: its end, and its length
        return self.policy.limit.is_full(state, now_us)


class MemoryStore:
    """Buckets in this process's memory: thread-safe, bounded, without a timer, thread or task.

    max_keys: the largest number of records
    clock: for tests, instead of the system's clock

    Full buckets are dropped in passing. At `max_keys` no bucket that is not full is ever evicted: newcomers share one
    bucket per shard instead, and a new block is refused with StoreUnavailable. Other processes do not see these
    buckets: four workers allow four times the limit.

    Raises ValueError if `max_keys` is not a whole number of at least 1.
    """

    shared: bool = False

    def __init__(self, *, max_keys: int = 1_000_000, clock: Clock | None = None) -> None:
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1:
            raise ValueError(f"max_keys must be a whole number of at least 1, e.g. 1_000_000, not {max_keys!r}")
        self.clock: Clock = SystemClock() if clock is None else clock
        self.max_keys = max_keys
        self.mask = (1 << (max_keys // _SHARD).bit_length()) - 1  # of a key's hash: the place of its shard
        self.lock = threading.Lock()  # of everything in the store
        self._count = 0
        self._tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()
        self._shards: deque[_Shard] = deque()  # of all tables; it keeps alive those that hold a record
        self._next_sweep_us = 0
        _stores.add(self)

    def __len__(self) -> int:
        """The number of records, full ones not yet dropped included."""
        return self._count

    def open(self, name: str, policies: Sequence[Policy]) -> MemoryBuckets:
        """The buckets of the limiter called `name`."""
        with self.lock:
            tables = [self._table(policy.bucket, policy) for policy in policies]
            return MemoryBuckets(self, policies, tables, self._table(f"block:{name}", None))

    async def start(self) -> None:
        """Nothing has to be started."""

    async def aclose(self) -> None:
        """Nothing has to be closed."""

    # The rest is called with the lock held, by the buckets

    def locate(self, table: _Table, key: str, now_us: int) -> tuple[_Shard, BucketKey, State]:
        """The shard and the key of a record, whether or not it exists yet, and its state."""
        stored = _stored_key(key)
        place = hash(stored) & self.mask
        shard = table.shards.get(place)
        if shard is None:
            shard = self._new_shard(table, place)
        if stored not in shard and self._is_full(now_us):
            stored = _OVERFLOW
        return shard, stored, shard.get(stored)

    def write(self, shard: _Shard, key: BucketKey, state: State, now_us: int) -> None:
        """Store a state; None drops the record."""
        if state is None:
            self._count -= shard.pop(key, None) is not None
            return
        if key not in shard:
            if len(shard) >= shard.mark:
                self._sweep(shard, now_us)
                shard.mark = max(_FIRST_SWEEP, 2 * len(shard))
            self._count += 1
        shard[key] = state

    def drop(self, table: _Table, key: str, now_us: int) -> None:
        """Drop a record, if there is one."""
        shard = table.shards.get(hash(stored := _stored_key(key)) & self.mask)
        if shard is not None:
            self.write(shard, stored, None, now_us)

    def block(self, table: _Table, key: str, length_us: int, now_us: int) -> None:
        """Store a block. Raises StoreUnavailable if the store is full."""
        shard, stored, _ = self.locate(table, key, now_us)
        if stored is _OVERFLOW:
            raise StoreUnavailable(f"no room for another block: all {self.max_keys} records are in use")
        self.write(shard, stored, (now_us + length_us, length_us), now_us)

    def _table(self, identity: str, policy: Policy | None) -> _Table:
        # Limits made up at run time must not pile up: each new one drops up to two old shards, if they are empty.
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

    def _new_shard(self, table: _Table, place: int) -> _Shard:
        shard = table.shards[place] = _Shard()
        shard.mark, shard.place, shard.table = _FIRST_SWEEP, place, table
        self._shards.append(shard)
        return shard

    def _is_full(self, now_us: int) -> bool:
        """Whether there is no room, not even after a sweep of the shard whose last sweep is the longest ago."""
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


def _stored_key(key: str) -> BucketKey:
    if not isinstance(key, str):
        raise TypeError(f'a key is a string such as "user:1", not {key!r}')
    if len(key) <= _LONG:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class MemoryBuckets:
    """The buckets of one limiter in a MemoryStore."""

    __slots__ = (
        "_blocks", "_depth", "_interval", "_is_plain", "_lock", "_mask", "_now_ns", "_now_us", "_policies", "_policy",
        "_shards", "_store", "_tables", "_ticks",
    )  # fmt: skip

    def __init__(
        self, store: MemoryStore, policies: Sequence[Policy], tables: Sequence[_Table], blocks: _Table
    ) -> None:
        self._store, self._lock, self._mask = store, store.lock, store.mask
        self._now_us, self._now_ns = store.clock.now_us, store.clock.now_ns
        self._policies, self._tables, self._blocks = tuple(policies), tuple(tables), blocks
        limit = policies[0].limit
        self._is_plain = type(limit) is TokenBucket and len(policies) == 1 and limit.scope == "user"
        if isinstance(limit, TokenBucket):
            self._ticks, self._depth, self._interval = limit.ticks, limit.depth, limit.interval
        self._policy, self._shards = policies[0], tables[0].shards

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        if not self._is_plain or per or self._blocks.shards:
            return self._decide(key, cost, per, charge=True)
        # One token bucket per user is by far the most common case. It takes a shorter way to the same decision.
        stored: BucketKey = key
        with self._lock:  # not acquire() and try: a signal's exception may strike between the two
            now_us = self._now_ns() // 1000
            try:
                shard = self._shards[hash(key) & self._mask]
                state = shard[key]
            except (KeyError, TypeError):
                shard, stored, state = self._store.locate(self._tables[0], key, now_us)
            # TokenBucket.take, without the call.
            now = now_us * self._ticks
            latest = now + self._depth
            after = (now if state is None or state < now or state > latest else state) + cost * self._interval
            if after > latest:
                return Decision(self._policy, cost, state, now_us, False, None, stored)
            if state is None:
                self._store.write(shard, stored, after, now_us)
            else:
                shard[stored] = after
        return Decision(self._policy, cost, after, now_us, True, shard, stored)

    def peek(self, key: str, cost: int, per: str) -> Decision:
        return self._decide(key, cost, per, charge=False)

    def refund(self, decision: Decision) -> None:
        with self._lock:
            now_us = self._now_us()
            for part in decision.parts:
                shard = part.take_charge()
                if isinstance(shard, _Shard):
                    key = part.bucket_key
                    state = part.policy.limit.give_back(shard.get(key), now_us, part.cost, part.state, part.now_us)
                    self._store.write(shard, key, state, now_us)

    def reset(self, key: str, per: str) -> None:
        with self._lock:
            now_us = self._now_us()
            for policy, table in zip(self._policies, self._tables, strict=True):
                self._store.drop(table, bucket_key(policy.limit.scope, key, per), now_us)
            self._store.drop(self._blocks, key, now_us)

    def block(self, key: str, seconds: float) -> None:
        with self._lock:
            now_us = self._now_us()
            if seconds > 0:
                self._store.block(self._blocks, key, round(seconds * 1e6), now_us)
            else:
                self._store.drop(self._blocks, key, now_us)

    def adopt(self, key: str, per: str, states: Sequence[State], block: tuple[int, int] | None) -> None:
        """Take over the state of these buckets from another store with the same clock; None: leave it."""
        with self._lock:
            now_us = self._now_us()
            for policy, table, state in zip(self._policies, self._tables, states, strict=True):
                if state is not None:
                    shard, stored, _ = self._store.locate(table, bucket_key(policy.limit.scope, key, per), now_us)
                    self._store.write(shard, stored, state, now_us)
            if block is not None:
                shard, stored, _ = self._store.locate(self._blocks, key, now_us)
                self._store.write(shard, stored, block, now_us)

    def _decide(self, key: str, cost: int, per: str, *, charge: bool) -> Decision:
        with self._lock:
            now_us = self._now_us()
            located = [
                self._store.locate(table, bucket_key(policy.limit.scope, key, per), now_us)
                for policy, table in zip(self._policies, self._tables, strict=True)
            ]
            after = [
                policy.limit.take(state, now_us, cost)
                for policy, (_, _, state) in zip(self._policies, located, strict=True)
            ]
            blocked_us = self._blocked_us(key, now_us)
            charge = charge and not blocked_us and None not in after
            if charge:
                for (shard, stored, _), state in zip(located, after, strict=True):
                    self._store.write(shard, stored, state, now_us)
        parts = [
            _part(policy, place, state, cost, now_us, charged=charge)
            for policy, place, state in zip(self._policies, located, after, strict=True)
        ]
        return Decision.blocked(parts, blocked_us) if blocked_us else Decision.combine(parts)

    def _blocked_us(self, key: str, now_us: int) -> int:
        """Microseconds until the key's block ends. After the clock went back it lasts its own length at most."""
        shard = self._blocks.shards.get(hash(stored := _stored_key(key)) & self._mask)
        block: tuple[int, int] | None = shard.get(stored) if shard else None
        if shard is None or block is None:
            return 0
        until_us, length_us = block
        if until_us - now_us > length_us:
            shard[stored] = until_us, _ = now_us + length_us, length_us
        return max(0, until_us - now_us)


def _part(
    policy: Policy, place: tuple[_Shard, BucketKey, State], after: State, cost: int, now_us: int, *, charged: bool
) -> Decision:
    """The decision of one limit; `after` is the state with the cost charged, None if the limit refuses."""
    shard, stored, state = place
    return Decision(
        policy,
        cost,
        after if charged else state,
        now_us,
        allowed=after is not None,
        charge=shard if charged else None,
        delay_us=0 if after is None else policy.limit.delay_us(after, now_us, cost),
        bucket_key=stored,
    )


_stores: WeakSet[MemoryStore] = WeakSet()


def _renew_locks() -> None:
    """After a fork, in the child: a thread of the parent that held a lock cannot release it here."""
    for store in _stores:
        store.lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
