"""MemoryStore: buckets in this process's memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Generator, Iterable, Sequence
from typing import Final
from weakref import WeakSet

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.events import Observer, Observers
from asgi_ratelimit.log_observer import with_log
from asgi_ratelimit.memory.buckets import MemoryBuckets
from asgi_ratelimit.memory.records import Records
from asgi_ratelimit.slot import SlotCounts
from asgi_ratelimit.store_events import EventHook, StoreEvent, emit
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["MemoryStore"]


class MemoryStore:
    """Buckets in this process's memory: thread-safe, bounded, without a timer, thread or task.

    max_keys: the largest number of records
    clock: for tests, instead of the system's clock
    on_event: called with a StoreEvent when the store is full
    observers: functions of an Event: every decision of the limiters and doors that use this store is reported to them

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
        self.records = Records(max_keys, self.clock, self._report_pause_us)
        self.observers, self._warn_once = Observers(with_log(observers), self.clock), WarnOnce()
        self._on_event = self.observers.with_hook(on_event)
        self.slot_counts: SlotCounts | None = self.observers.slots
        _stores.add(self)

    def __bool__(self) -> bool:
        """True, also of an empty one: `store or MemoryStore()` keeps it."""
        return True

    def __len__(self) -> int:
        """The number of records, full ones not yet dropped included."""
        return self.records.count

    def open(self, name: str, policies: Sequence[Policy]) -> MemoryBuckets:
        """The buckets of the limiter called `name`."""
        policies = [Policy(policy.name, policy.limit.on(self.clock)) for policy in policies]
        with self.records.lock:
            tables = [self.records.table(policy.bucket, policy) for policy in policies]
            blocks = self.records.table(f"block:{name}", None)
        return MemoryBuckets(
            self.records, self.clock, policies, tables, blocks, self.report_full, name, self.slot_counts
        )

    def clear(self) -> Awaitable[None]:
        """Drop every bucket and block. For tests. It is done when this returns; it may be awaited, as other stores'."""
        with self.records.lock:
            self.records.clear()
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


class _Done:
    """An awaitable of something that is done. Unlike a coroutine, it need not be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE: Final = _Done()

_stores: WeakSet[MemoryStore] = WeakSet()


def _renew_locks() -> None:
    """After a fork, in the child: a thread of the parent that held a lock cannot release it here."""
    for store in _stores:
        store.records.lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
