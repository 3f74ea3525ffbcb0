"""Buckets in this process's memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Awaitable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import BucketKey, Decision, Policy, make_decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.events import Observer, Observers
from asgi_ratelimit.limits import Limit, State, TokenBucket
from asgi_ratelimit.record_keys import record_key, stored_key
from asgi_ratelimit.store_events import EventHook, StoreEvent, emit
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["MemoryBuckets", "MemoryStore"]

_SHARD: Final = 4096  # records for which a dict's resize takes well under a millisecond
_FIRST_SWEEP: Final = 64  # records at which a shard is swept for the first time
_SWEEP_PAUSE_US: Final = 10_000  # between two sweeps of a store that is full
_OVERFLOW: Final = b"overflow"  # the key of the bucket that newcomers share once the store is full; no digest is equal


class _Shard:
    """Some of a table's records: key -> state. It is also the receipt of a charge to one of them."""

    __slots__ = ("mark", "place", "records", "table")

    def __init__(self, table: _Table, place: int) -> None:
        self.table, self.place = table, place
        self.records: dict[BucketKey, State] = {}  # not a base class: a plain dict is read in half the time
        self.mark = _FIRST_SWEEP  # the number of records at which it is swept next


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
    observers: told of every decision of the limiters and doors that use this store, and when it is full

    Full buckets are dropped in passing. At `max_keys` no bucket that is not full is ever evicted: newcomers share one
    bucket per shard instead, a warning says so (ARL113), and a new block is refused with StoreUnavailable. Other
    processes do not see these buckets: four workers allow four times the limit.

    Raises ValueError if `max_keys` is not a whole number of at least 1.
    """

    shared: bool = False
    _report_pause_us = 60_000_000  # between two events of a store that is full

    def __init__(
        self,
        *,
        max_keys: int = 1_000_000,
        clock: Clock | None = None,
        on_event: EventHook | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1:
            raise ValueError(f"max_keys must be a whole number of at least 1, e.g. 1_000_000, not {max_keys!r}")
        self.clock: Clock = SystemClock() if clock is None else clock
        self.max_keys = max_keys
        self.mask = (1 << (max_keys // _SHARD).bit_length()) - 1  # of a key's hash: the place of its shard
        self.lock = threading.Lock()  # of everything in the store
        self.locked = _bound(self.lock)
        self._count = 0
        self._tables: WeakValueDictionary[str, _Table] = WeakValueDictionary()
        self._shards: deque[_Shard] = deque()  # of all tables; it keeps alive those that hold a record
        self._next_sweep_us = self._next_report_us = 0
        self.observers, self._warn_once = Observers(observers, self.clock), WarnOnce()
        self._on_event = self.observers.with_hook(on_event)
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
        if stored not in shard.records and self._is_full(now_us):
            if now_us >= self._next_report_us:
                self._next_report_us = now_us + self._report_pause_us
                raise _Full
            stored = _OVERFLOW
        return shard, stored, shard.records.get(stored)

    def write(self, shard: _Shard, key: BucketKey, state: State, now_us: int) -> None:
        """Store a state; None drops the record."""
        records = shard.records
        if state is None:
            self._count -= records.pop(key, None) is not None
            return
        if key not in records:
            if len(records) >= shard.mark:
                self._sweep(shard, now_us)
                shard.mark = max(_FIRST_SWEEP, 2 * len(records))
            self._count += 1
        records[key] = state

    def drop(self, table: _Table, stored: BucketKey, now_us: int) -> None:
        """Drop a record, if there is one."""
        shard = table.shards.get(hash(stored) & self.mask)
        if shard is not None:
            self.write(shard, stored, None, now_us)

    def block(self, table: _Table, key: str, length_us: int, now_us: int) -> None:
        """Store a block. Raises StoreUnavailable if the store is full."""
        shard, stored, _ = self.locate(table, stored_key(key), now_us)
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
            if shard.records:
                self._shards.append(shard)
            else:
                del shard.table.shards[shard.place]

    def shard_of(self, table: _Table, stored: BucketKey) -> _Shard:
        """The shard of a record, made if there is none."""
        place = hash(stored) & self.mask
        shard = table.shards.get(place)
        if shard is None:
            shard = table.shards[place] = _Shard(table, place)
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
        over = [key for key, state in shard.records.items() if shard.table.is_over(state, now_us)]
        for key in over:
            del shard.records[key]
        self._count -= len(over)


def _bound(lock: threading.Lock) -> AbstractContextManager[object]:
    """The lock for `with`, as an object whose methods need not be bound each time: that takes a third less."""
    methods = {"__slots__": (), "__enter__": lock.__enter__, "__exit__": lock.__exit__}
    locked: AbstractContextManager[object] = type("_Locked", (), methods)()
    return locked


class _Full(Exception):
    """A newcomer found no room, for the first time in a while."""


class MemoryBuckets:
    """The buckets of one limiter in a MemoryStore."""

    __slots__ = (
        "_block_shards", "_blocks", "_delay_us", "_depth", "_interval", "_is_by_key", "_is_single", "_locked", "_mask",
        "_now_ns", "_now_us", "_policies", "_policy", "_scope", "_shards", "_store", "_tables", "_take", "_ticks",
    )  # fmt: skip

    def __init__(
        self, store: MemoryStore, policies: Sequence[Policy], tables: Sequence[_Table], blocks: _Table
    ) -> None:
        self._store, self._locked, self._mask = store, store.locked, store.mask
        self._now_us, self._now_ns = store.clock.now_us, store.clock.now_ns
        self._policies, self._tables, self._blocks = tuple(policies), tuple(tables), blocks
        self._policy, self._shards, self._block_shards = policies[0], tables[0].shards, blocks.shards
        limit = policies[0].limit
        self._scope, self._is_by_key, self._is_single = limit.scope, limit.scope == "user", len(policies) == 1
        self._take, self._ticks = limit.take, 0
        if isinstance(limit, TokenBucket) and type(limit).take is TokenBucket.take:
            self._ticks, self._depth, self._interval = limit.ticks, limit.depth, limit.interval
        self._delay_us = None if type(limit).delay_us is Limit.delay_us else limit.delay_us

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision:
        if not self._is_single or (self._block_shards and self._has_block(key)):
            return self._decide(key, cost, per, charge=True)
        # A single limit is by far the most common case. It takes a shorter way to the same decision.
        stored: BucketKey = key if self._is_by_key and not per else record_key(self._scope, key, per)
        now_ns = self._now_ns  # CPython 3.11 calls a variable faster than a slot
        try:
            with self._locked:  # not acquire() and try: a signal's exception may strike between the two
                now_us = now_ns() // 1000
                try:
                    shard = self._shards[hash(stored) & self._mask]
                    state = shard.records[stored]
                except (KeyError, TypeError):
                    stored = record_key(self._scope, key, per)
                    shard, stored, state = self._store.locate(self._tables[0], stored, now_us)
                if ticks := self._ticks:  # TokenBucket.take, without the call
                    now = now_us if ticks == 1 else now_us * ticks
                    charge = self._interval if cost == 1 else cost * self._interval
                    latest = now + self._depth
                    after = (now if state is None or state < now else state) + charge
                    if after > latest:  # refused, unless the record is further ahead than it can be
                        after = None if state is None or state <= latest else self._take(state, now_us, cost)
                else:
                    after = self._take(state, now_us, cost)
                if after is None:
                    return make_decision(self._policy, cost, state, now_us, False, None, stored, 0)
                if state is None:
                    self._store.write(shard, stored, after, now_us)
                else:
                    shard.records[stored] = after
        except _Full:
            return self._decide(key, cost, per, charge=True, reports=True)
        delay_us = self._delay_us(after, now_us, cost) if self._delay_us else 0
        return make_decision(self._policy, cost, after, now_us, True, shard, stored, delay_us)

    def peek(self, key: str, cost: int, per: str) -> Decision:
        return self._decide(key, cost, per, charge=False)

    def refund(self, decision: Decision) -> None:
        with self._locked:
            now_us = self._now_us()
            for part in decision.parts:
                shard = part.take_charge()
                if isinstance(shard, _Shard):
                    key, give_back = part.bucket_key, part.policy.limit.give_back
                    state = give_back(shard.records.get(key), now_us, part.cost, part.state, part.now_us)
                    self._store.write(shard, key, state, now_us)

    def reset(self, key: str, per: str) -> None:
        with self._locked:
            now_us = self._now_us()
            for policy, table in zip(self._policies, self._tables, strict=True):
                self._store.drop(table, record_key(policy.limit.scope, key, per), now_us)
            self._store.drop(self._blocks, stored_key(key), now_us)

    def block(self, key: str, seconds: float) -> None:
        try:
            with self._locked:
                now_us = self._now_us()
                if seconds > 0:
                    self._store.block(self._blocks, key, round(seconds * 1e6), now_us)
                else:
                    self._store.drop(self._blocks, stored_key(key), now_us)
        except _Full:
            self._store.report_full()
            self.block(key, seconds)

    def adopt(self, key: str, per: str, states: Sequence[State], block: tuple[int, int] | None) -> None:
        """Take over the state of these buckets from another store with the same clock; None: leave it.

        They are kept even if the store is full: the shared bucket of newcomers is not theirs.
        """
        places = [record_key(policy.limit.scope, key, per) for policy in self._policies]
        records = [*zip(self._tables, places, states, strict=True), (self._blocks, stored_key(key), block)]
        with self._locked:
            now_us = self._now_us()
            for table, place, state in records:
                if state is not None:
                    self._store.write(self._store.shard_of(table, place), place, state, now_us)

    def _decide(self, key: str, cost: int, per: str, *, charge: bool, reports: bool = False) -> Decision:
        if reports:
            self._store.report_full()
        places = [record_key(policy.limit.scope, key, per) for policy in self._policies]
        try:
            with self._locked:
                now_us = self._now_us()
                pairs = zip(self._tables, places, strict=True)
                located = [self._store.locate(table, place, now_us) for table, place in pairs]
                after = [
                    policy.limit.take(state, now_us, cost)
                    for policy, (_, _, state) in zip(self._policies, located, strict=True)
                ]
                blocked_us = self._blocked_us(key, now_us) if self._block_shards else 0
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

    def _has_block(self, key: str) -> bool:
        stored = stored_key(key)
        shard = self._block_shards.get(hash(stored) & self._mask)
        return shard is not None and stored in shard.records

    def _blocked_us(self, key: str, now_us: int) -> int:
        """Microseconds until the key's block ends. After the clock went back it lasts its own length at most."""
        shard = self._block_shards.get(hash(stored := stored_key(key)) & self._mask)
        block: tuple[int, int] | None = shard.records.get(stored) if shard else None
        if shard is None or block is None:
            return 0
        until_us, length_us = block
        if until_us - now_us > length_us:
            shard.records[stored] = until_us, _ = now_us + length_us, length_us
        return max(0, until_us - now_us)


def _part(
    policy: Policy, place: tuple[_Shard, BucketKey, State], after: State, cost: int, now_us: int, *, charged: bool
) -> Decision:
    """The decision of one limit; `after` is the state with the cost charged, None if the limit refuses."""
    shard, stored, state = place
    if after is None:
        return make_decision(policy, cost, state, now_us, False, None, stored, 0)
    delay_us = policy.limit.delay_us(after, now_us, cost)
    if not charged:
        return make_decision(policy, cost, state, now_us, True, None, stored, delay_us)
    return make_decision(policy, cost, after, now_us, True, shard, stored, delay_us)


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
