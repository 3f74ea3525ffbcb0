"""The interface of a store: where limiters keep their buckets."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Generic, Literal, Protocol, TypeVar

from asgi_ratelimit.call_keys import StoreKey
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.limits import Scope

__all__ = ["Buckets", "PerStore", "Settlement", "Store", "bucket_key", "check_store", "done", "resource_text"]

Value = TypeVar("Value")
# "cut": a bucket cannot owe all of it, "lost": the server did not answer. None: nothing to report.
Settlement = Literal["cut", "lost"]

_REDIS_CLIENTS = ("aioredis", "coredis", "fakeredis", "glide", "redis", "valkey")  # packages


class Buckets(Protocol):
    """The buckets of one limiter in one store. Each verb returns its result, or an awaitable of it.

    `key` is the caller's, `per` the resource of the call ("" where there is none). If the class has the attribute
    `takes_several_keys`, and it is true, the key of `decide`, `peek` and `reset` may also be a tuple with one key for
    each limit.
    """

    def decide(self, key: StoreKey, cost: int, per: str, waiting: bool = False) -> Decision | Awaitable[Decision]:
        """Charge every limit of the limiter, or none. A `waiting` call needs a fresh decision, not a cached refusal."""
        ...

    def peek(self, key: StoreKey, cost: int, per: str) -> Decision | Awaitable[Decision]:
        """The decision of `decide`, without a charge."""
        ...

    def refund(self, decision: Decision) -> Awaitable[object] | None:
        """Give back the part of a charge that has not flowed back since. A second time does nothing.

        Neither does the decision of another store. "lost", as the awaited result, is reported.
        """
        ...

    def settle(self, decision: Decision, cost: int) -> Settlement | Awaitable[Settlement | None] | None:
        """Make the charge the cost of the call: give back, or let the bucket owe. A second time does nothing.

        Any limiter of the store may do it.
        """
        ...

    def reset(self, key: StoreKey, per: str) -> Awaitable[None] | None:
        """Make every bucket full that `decide` would charge, and lift the block of each key."""
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


def resource_text(values: Sequence[str]) -> str:
    """One text for the values of a resource. No two lists of as many values share one."""
    return values[0] if len(values) == 1 and values[0] else "".join(f"{len(value)}:{value}" for value in values)


async def done(pending: Awaitable[object] | None) -> None:
    """Wait for a verb of buckets, if there is something to wait for."""
    if isawaitable(pending):
        await pending


def check_store(store: object) -> None:
    """Raise ValueError for a value that is no store, with what to write instead. None is no store to check."""
    if store is None or (not isinstance(store, type) and hasattr(store, "open") and hasattr(store, "clock")):
        return
    if isinstance(store, str):  # its text may contain a password
        scheme = store.partition("://")[0] if "://" in store else "redis"
        raise ValueError(f'store is no URL: write store=RedisStore("{scheme[:20]}://..."), from asgi_ratelimit.redis')
    if isinstance(store, type):
        raise ValueError(f"store is a store, not its class: write store={store.__name__}(...), with parentheses")
    if type(store).__module__.partition(".")[0] in _REDIS_CLIENTS:
        raise ValueError("store is no Redis client: write store=RedisStore(client), from asgi_ratelimit.redis")
    raise ValueError(f"store must be a store such as MemoryStore(), not a {type(store).__name__}")


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
