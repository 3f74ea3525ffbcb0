"""The interface of a store: where limiters keep their buckets."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.limits import Scope

__all__ = ["Buckets", "PerStore", "Store", "bucket_key"]

Value = TypeVar("Value")


class Buckets(Protocol):
    """The buckets of one limiter in one store. Each verb returns its result, or an awaitable of it.

    `key` is the caller's, `per` the resource of the call ("" where there is none).
    """

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision | Awaitable[Decision]:
        """Charge every limit of the limiter, or none. A `waiting` call needs a fresh decision, not a cached refusal."""
        ...

    def peek(self, key: str, cost: int, per: str) -> Decision | Awaitable[Decision]:
        """The decision of `decide`, without a charge."""
        ...

    def refund(self, decision: Decision) -> Awaitable[None] | None:
        """Give back the part of a charge that has not flowed back since. A second time does nothing."""
        ...

    def reset(self, key: str, per: str) -> Awaitable[None] | None:
        """Make every bucket full that `decide` would charge, and lift a block of the key."""
        ...

    def block(self, key: str, seconds: float) -> Awaitable[None] | None:
        """Refuse the key for so many seconds, even if its buckets are full. 0 lifts a block."""
        ...


class Store(Protocol):
    """A place for buckets. The time is that of the store's clock."""

    clock: Clock
    shared: bool  # whether other processes see the same buckets

    def open(self, name: str, policies: Sequence[Policy]) -> Buckets:
        """The buckets of the limiter called `name`. Opened twice, they are the same buckets."""
        ...

    def clear(self) -> Awaitable[None]:
        """Drop every bucket and block, so that all buckets are full. For tests: it is no tool for production."""
        ...

    async def start(self) -> None:
        """Connect, when the app starts. Raises StoreUnavailable if that is impossible for good."""
        ...

    async def aclose(self) -> None:
        """Close the connections of this event loop, when the app ends."""
        ...


def bucket_key(scope: Scope, key: str, per: str) -> str:
    """The bucket that a call is charged to, among all buckets of a policy. No two keys and resources share one."""
    if scope == "user":  # a key that begins like one with a resource is written like one
        return f"{len(key)}:{key}{per}" if per or key[:1].isdigit() else key
    return per if scope == "shared" else ""


class PerStore(Generic[Value]):
    """One value for each store, for as long as that store lives. The value must not refer to the store."""

    def __init__(self, make: Callable[[Store], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._values: dict[int, tuple[object, Value]] = {}  # by id: a store need be neither hashable nor comparable

    def of(self, store: Store) -> Value:
        """The store's value, made when it is first needed."""
        with self._lock:
            if id(store) not in self._values:
                self._values[id(store)] = self._reference(store), self._make(store)
            return self._values[id(store)][1]

    def _reference(self, store: Store) -> object:
        place = id(store)
        try:
            return weakref.ref(store, lambda _: self._values.pop(place, None))
        except TypeError:  # it has slots, and none for weak references: then it stays
            return store
