"""Buckets in this process's memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Awaitable, Generator, Sequence
from hashlib import blake2b
from typing import Final
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import BucketKey, Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import Scope, State, TokenBucket
from asgi_ratelimit.store_events import EventHook, StoreEvent, emit
from asgi_ratelimit.warnings import WarnOnce

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
    on_event: called with a StoreEvent when the store is full

    Full buckets are dropped in passing. At `max_keys` no bucket that is not full is ever evicted: newcomers share one
    bucket per shard instead, a warning says so (ARL113), and a new block is refused with StoreUnavailable. Other
    processes do not see these buckets: four workers allow four times the limit.

    Raises ValueError if `max_keys` is not a whole number of at least 1.
    """

    shared: bool = False
    _report_pause_us = 60_000_000  # between two events of a store that is full

    def __init__(
        self, *, max_keys: int = 1_000_000, clock: Clock | None = None, on_event: EventHook | None = None
    ) -> None:
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1:
            raise ValueError(f"max_keys must be a whole number of at least 1, e.g. 1_000_000, not {max_keys!r}")
        self.clock: Clock = SystemClock() if clock is None else clock
        self.max_keys = max_keys
        self.mask = (1 << (max_keys // _SHARD).bit_length()) - 1  # of a key's hash: the place of its shard
        self.lock = threading.Lock()  # of everything in the store
        self._count = 0
        self._tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()
        self._shards: deque[_Shard] = deque()  # of all tables; it keeps alive those that hold a record
        self._next_sweep_us = self._next_report_us = 0
        self._on_event, self._warn_once = on_event, WarnOnce()
        _stores.add(self)

    def __bool__(self) -> bool:
        """True, also of an empty one: `store or MemoryStore()` keeps it."""
        return True

    def __len__(self) -> int:
        """The number of records, full ones not yet dropped included."""
        return self._count

    def open(self, name: str, policies: Sequence[Policy]) -> MemoryBuckets:
        """The buckets of the limiter called `name`."""
        with self.lock:
            tables = [self._table(policy.bucket, policy) for policy in policies]
            return MemoryBuckets(self, policies, tables, self._table(f"block:{name}", None))

    def clear(self) -> Awaitable[None]:
        """Drop every bucket and block. For tests. It is done when this returns; it may be awaited, as other stores'."""
        with self.lock:
            for shard in self._shards:
                del shard.table.shards[shard.place]
            self._shards.clear()
            self._count = 0
        return _DONE

    async def start(self) -> None:
        """Nothing has to be started."""

    async def aclose(self) -> None:
        """Nothing has to be closed."""

    def report_full(self) -> None:
        """Warn that newcomers find no room, and emit the event. Called by the buckets, without the lock."""
        cause = f"all {self.max_keys} records are in use"
        self._warn_once.warn("ARL113", f"{cause}, so new keys share a bucket and refuse each other; raise max_keys=")
        emit(self._on_event, StoreEvent("full", "memory", cause, 0.0))

    # The rest is called with the lock held, by the buckets

    def locate(self, table: _Table, stored: BucketKey, now_us: int) -> tuple[_Shard, BucketKey, State]:
        """The shard and the key of a record, whether or not it exists yet, and its state.

        Raises _Full, once a minute at most, if a newcomer finds no room: it has to be reported without the lock.
        """
        shard = self.shard_of(table, stored)
        if stored not in shard and self._is_full(now_us):
            if now_us >= self._next_report_us:
                self._next_report_us = now_us + self._report_pause_us
                raise _Full
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

    def drop(self, table: _Table, stored: BucketKey, now_us: int) -> None:
        """Drop a record, if there is one."""
        shard = table.shards.get(hash(stored) & self.mask)
        if shard is not None:
            self.write(shard, stored, None, now_us)

    def block(self, table: _Table, key: str, length_us: int, now_us: int) -> None:
        """Store a block. Raises StoreUnavailable if the store is full."""
        shard, stored, _ = self.locate(table, _stored_key(key), now_us)
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

    def shard_of(self, table: _Table, stored: BucketKey) -> _Shard:
        """The shard of a record, made if there is none."""
        place = hash(stored) & self.mask
        shard = table.shards.get(place)
        if shard is None:
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


def _place_of(scope: Scope, key: str, per: str) -> BucketKey:
    """The record of a call among those of a policy. A key with a resource never meets one without."""
    if scope != "user":
        return _stored_key(per if scope == "shared" else "")
    if not per:
        return _stored_key(key)
    if len(key) + len(per) <= _LONG:
        return key, per
    return blake2b(f"{len(key)}:{key}{per}".encode("utf-8", "surrogatepass"), digest_size=31).digest()


class _Full(Exception):
    """A newcomer found no room, for the first time in a while."""


class MemoryBuckets:
    """The buckets of one limiter in a MemoryStore."""

    __slots__ = (
        "_block_shards", "_blocks", "_depth", "_interval", "_is_plain", "_lock", "_mask", "_now_ns", "_now_us",
        "_policies", "_policy", "_shards", "_store", "_tables", "_ticks",
    )  # fmt: skip

    def __init__(
        self, store: MemoryStore, policies: Sequence[Policy], tables: Sequence[_Table], blocks: _Table
    ) -> None:
        self._store, self._lock, self._mask = store, store.lock, store.mask
        self._now_us, self._now_ns = store.clock.now_us, store.clock.now_ns
        self._policies, self._tables, self._blocks = tuple(policies), tuple(tables), blocks
        self._block_shards = blocks.shards
        limit = policies[0].limit
        self._is_plain = type(limit) is TokenBucket and len(policies) == 1 and limit.scope == "user"
        if isinstance(limit, TokenBucket):
            self._ticks, self._depth, self._interval = limit.ticks, limit.depth, limit.interval
        self._policy, self._shards = policies[0], tables[0].shards

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        if not self._is_plain or per or self._block_shards:
            return self._decide(key, cost, per, charge=True)
        # One token bucket per user is by far the most common case. It takes a shorter way to the same decision.
        stored: BucketKey = key
        try:
            with self._lock:  # not acquire() and try: a signal's exception may strike between the two
                now_us = self._now_ns() // 1000
                try:
                    shard = self._shards[hash(key) & self._mask]
                    state = shard[key]
                except (KeyError, TypeError):
                    shard, stored, state = self._store.locate(self._tables[0], _stored_key(key), now_us)
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
        except _Full:
            return self._decide(key, cost, per, charge=True, reports=True)
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
                self._store.drop(table, _place_of(policy.limit.scope, key, per), now_us)
            self._store.drop(self._blocks, _stored_key(key), now_us)

    def block(self, key: str, seconds: float) -> None:
        try:
            with self._lock:
                now_us = self._now_us()
                if seconds > 0:
                    self._store.block(self._blocks, key, round(seconds * 1e6), now_us)
                else:
                    self._store.drop(self._blocks, _stored_key(key), now_us)
        except _Full:
            self._store.report_full()
            self.block(key, seconds)

    def adopt(self, key: str, per: str, states: Sequence[State], block: tuple[int, int] | None) -> None:
        """Take over the state of these buckets from another store with the same clock; None: leave it.

        They are kept even if the store is full: the shared bucket of newcomers is not theirs.
        """
        places = [_place_of(policy.limit.scope, key, per) for policy in self._policies]
        records = [*zip(self._tables, places, states, strict=True), (self._blocks, _stored_key(key), block)]
        with self._lock:
            now_us = self._now_us()
            for table, place, state in records:
                if state is not None:
                    self._store.write(self._store.shard_of(table, place), place, state, now_us)

    def _decide(self, key: str, cost: int, per: str, *, charge: bool, reports: bool = False) -> Decision:
        if reports:
            self._store.report_full()
        places = [_place_of(policy.limit.scope, key, per) for policy in self._policies]
        try:
            with self._lock:
                now_us = self._now_us()
                located = [
                    self._store.locate(table, place, now_us) for table, place in zip(self._tables, places, strict=True)
                ]
                after = [
                    policy.limit.take(state, now_us, cost)
                    for policy, (_, _, state) in zip(self._policies, located, strict=True)
                ]
                blocked_us = self._blocked_us(key, now_us)
                charge_now = charge and not blocked_us and None not in after
                if charge_now:
                    for (shard, stored, _), state in zip(located, after, strict=True):
                        self._store.write(shard, stored, state, now_us)
        except _Full:
            return self._decide(key, cost, per, charge=charge, reports=True)
        parts = [
            _part(policy, place, state, cost, now_us, charged=charge_now)
            for policy, place, state in zip(self._policies, located, after, strict=True)
        ]
        return Decision.blocked(parts, blocked_us) if blocked_us else Decision.combine(parts)

    def _blocked_us(self, key: str, now_us: int) -> int:
        """Microseconds until the key's block ends. After the clock went back it lasts its own length at most."""
        shard = self._block_shards.get(hash(stored := _stored_key(key)) & self._mask)
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


class _Done:
    """An awaitable of something that is done. Unlike a coroutine, it need not be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE: Final = _Done()

_stores: WeakSet[MemoryStore] = WeakSet()


def _renew_locks() -> None:
    """After a fork, in the child: a thread of the parent that held a lock cannot release it here."""
    for store in _stores:
        store.lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
