"""The records of a store in memory: their shards, and those that may be dropped."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager
from typing import Final
from weakref import WeakValueDictionary

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import BucketKey, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import State
from asgi_ratelimit.memory.holders import Holders
from asgi_ratelimit.memory.record_keys import stored_key

__all__ = ["FIRST_SWEEP", "Full", "Records", "Shard", "Table"]

_SHARD: Final = 4096  # records for which a dict's resize takes well under a millisecond
FIRST_SWEEP: Final = 64  # records at which a shard is swept for the first time
_SWEEP_PAUSE_US: Final = 10_000  # between two sweeps of a store that is full
_OVERFLOW: Final = b"overflow"  # the key of the bucket that newcomers share once the store is full; no digest is equal


class Shard:
    """Some of a table's records: key -> state. It is also the receipt of a charge to one of them."""

    __slots__ = ("mark", "place", "records", "table")

    def __init__(self, table: Table, place: int) -> None:
        self.table, self.place = table, place
        self.records: dict[BucketKey, State] = {}  # not a base class: a plain dict is read in half the time
        self.mark = FIRST_SWEEP  # the number of records at which it is swept next


class Table:
    """The records of one bucket, or of the blocks of one limiter, spread over shards by the key's hash.

    A limit that changes keeps its bucket, but may count in other ticks. `relatives` are the tables of one bucket, by
    their ticks. A record is in one of them, that of the limit that has used it last.
    """

    __slots__ = ("__weakref__", "holders", "limit", "lock", "relatives", "shards", "ticks")

    def __init__(self, policy: Policy | None, lock: threading.Lock, relatives: Relatives | None = None) -> None:
        self.lock = lock  # of its store, which it shows
        self.limit = None if policy is None else policy.limit
        self.ticks = policy.limit.ticks if policy else 1
        self.holders: Holders | None = None
        self.shards: dict[int, Shard] = {}
        self.relatives: Relatives = WeakValueDictionary() if relatives is None else relatives
        self.relatives[self.ticks] = self

    def is_over(self, state: State, now_us: int) -> bool:
        if self.limit is None:
            return not now_us < state[0]  # a block: its end, and its length
        return self.limit.is_full(state, now_us)


Relatives = WeakValueDictionary[int, Table]  # the tables of one bucket, by their ticks


class Full(Exception):
    """There is no room for a newcomer, for the first time in a while."""


class Records:
    """The records of all limiters in a store, at most `max_keys`. All verbs are called with the lock held.

    A newcomer to a full store raises Full, once in `report_pause_us`: that is reported without the lock.
    """

    def __init__(self, max_keys: int, clock: Clock, report_pause_us: int) -> None:
        self.max_keys, self._clock, self._report_pause_us = max_keys, clock, report_pause_us
        self.mask = (1 << (max_keys // _SHARD).bit_length()) - 1  # of a key's hash: the place of its shard
        self.lock = threading.Lock()  # of everything in the store
        self.locked = _bound(self.lock)
        self.count = 0
        self.holders: type[Holders] = Holders  # that tables are made with
        self.tables: WeakValueDictionary[str, Relatives] = WeakValueDictionary()  # by the identity of the bucket
        self.shards: deque[Shard] = deque()  # of all tables; it keeps alive those that hold a record
        self._next_sweep_us = self._next_report_us = 0

    def clear(self) -> None:
        """Drop every record."""
        for shard in self.shards:
            del shard.table.shards[shard.place]
        self.shards.clear()
        self.count = 0

    def locate(self, table: Table, stored: BucketKey, now_us: int) -> tuple[Shard, BucketKey, State]:
        """The shard and the key of a record, whether or not it exists yet, and its state.

        Raises Full, once a minute at most, if a newcomer finds no room: it has to be reported without the lock.
        """
        shard = self.shard_of(table, stored)
        state = shard.records.get(stored)
        if state is None:
            state = self.state(shard, stored)
        if state is None and self._is_full(now_us):
            if now_us >= self._next_report_us:
                self._next_report_us = now_us + self._report_pause_us
                raise Full
            stored = _OVERFLOW
            state = shard.records.get(stored)
        return shard, stored, state

    def state(self, shard: Shard, key: BucketKey) -> State:
        """The state of a record; None: a full bucket. It may be where another limit has left it."""
        state = shard.records.get(key)
        if state is None and (theirs := self._among_relatives(shard, key)) is not None:
            limit = shard.table.limit
            return limit and limit.adopt(theirs.records[key], theirs.table.ticks)
        return state

    def write(self, shard: Shard, key: BucketKey, state: State, now_us: int) -> None:
        """Store a state; None drops the record."""
        records = shard.records
        if key not in records and (theirs := self._among_relatives(shard, key)) is not None:
            del theirs.records[key]
            self.count -= 1
        if state is None:
            self.count -= records.pop(key, None) is not None
            return
        if key not in records:
            if len(records) >= shard.mark:
                self._sweep(shard, now_us)
                shard.mark = max(FIRST_SWEEP, 2 * len(records))
            self.count += 1
        records[key] = state

    def drop(self, table: Table, stored: BucketKey, now_us: int) -> None:
        """Drop a record, if there is one."""
        place = hash(stored) & self.mask
        for shard in [relative.shards.get(place) for relative in list(table.relatives.values())]:
            if shard is not None:
                self.count -= shard.records.pop(stored, None) is not None

    def block(self, table: Table, key: str, length_us: int, now_us: int) -> None:
        """Store a block. Raises StoreUnavailable if the store is full."""
        shard, stored, _ = self.locate(table, stored_key(key), now_us)
        if stored is _OVERFLOW:
            raise StoreUnavailable(f"no room for another block: all {self.max_keys} records are in use")
        self.write(shard, stored, (now_us + length_us, length_us), now_us)

    def table(self, identity: str, policy: Policy | None) -> Table:
        # Limits made up at run time must not pile up: each new one drops up to two old shards, if they are empty.
        self._recycle()
        self._recycle()
        relatives = self.tables.get(identity)
        table = None if relatives is None else relatives.get(policy.limit.ticks if policy else 1)
        if table is None:
            table = Table(policy, self.lock, relatives)
            table.holders = self.holders() if policy and policy.limit.holds else None
            self.tables[identity] = table.relatives
        return table

    def _recycle(self) -> None:
        if self.shards:
            shard = self.shards.popleft()
            self._sweep(shard, self._clock.now_us())
            if shard.records:
                self.shards.append(shard)
            else:
                del shard.table.shards[shard.place]

    def shard_of(self, table: Table, stored: BucketKey) -> Shard:
        """The shard of a record, made if there is none."""
        return self._shard_at(table, hash(stored) & self.mask)

    def home_of(self, charged: Shard) -> Shard | None:
        """The shard that stands where one did at the time of a charge; None: that was another store.

        The shard of then is not read any more if it was empty in between, or the store was cleared.
        """
        return self._shard_at(charged.table, charged.place) if charged.table.lock is self.lock else None

    def _shard_at(self, table: Table, place: int) -> Shard:
        shard = table.shards.get(place)
        if shard is None:
            shard = table.shards[place] = Shard(table, place)
            self.shards.append(shard)
        return shard

    def _among_relatives(self, shard: Shard, key: BucketKey) -> Shard | None:
        """The shard of another limit of the same bucket that has the record; None: none has it."""
        table = shard.table
        if len(table.relatives) == 1 or key is _OVERFLOW:
            return None
        theirs = [relative.shards.get(shard.place) for relative in list(table.relatives.values())]
        return next((other for other in theirs if other and other is not shard and key in other.records), None)

    def _is_full(self, now_us: int) -> bool:
        """Whether there is no room, not even after a sweep of the shard with the oldest last sweep."""
        if self.count >= self.max_keys and now_us >= self._next_sweep_us:
            self._next_sweep_us = now_us + _SWEEP_PAUSE_US
            shard = self.shards[0]
            self.shards.rotate(-1)
            self._sweep(shard, now_us)
        return self.count >= self.max_keys

    def _sweep(self, shard: Shard, now_us: int) -> None:
        over = [key for key, state in shard.records.items() if shard.table.is_over(state, now_us)]
        if (holders := shard.table.holders) is not None:
            over = [key for key in over if not holders.among(key, shard.records[key][::2])]
        for key in over:
            del shard.records[key]
        self.count -= len(over)


def _bound(lock: threading.Lock) -> AbstractContextManager[object]:
    """The lock for `with`, as an object whose methods need not be bound each time: that takes a third less."""
    methods = {"__slots__": (), "__enter__": lock.__enter__, "__exit__": lock.__exit__}
    locked: AbstractContextManager[object] = type("_Locked", (), methods)()
    return locked
