"""What a store has to offer, so that limiters can keep their buckets in it."""

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
    """The buckets of one limiter in one store. Each verb answers at once, or promises an answer.

    `key` is who is asking, `per` the resource asked for ("" where there is none).
    """

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision | Awaitable[Decision]:
        """Charge every limit of the limiter, or none. Who is `waiting` wants an answer that is not remembered."""
        ...

    def peek(self, key: str, cost: int, per: str) -> Decision | Awaitable[Decision]:
        """What `decide` would answer, charging nothing."""
        ...

    def refund(self, decision: Decision) -> Awaitable[None] | None:
        """Give back what the decision charged and has not flowed back since; a second time does nothing."""
        ...

    def reset(self, key: str, per: str) -> Awaitable[None] | None:
        """Make every bucket full that `decide` would charge, and lift a block of the key."""
        ...

    def block(self, key: str, seconds: float) -> Awaitable[None] | None:
        """Refuse the key for so long, whatever its buckets hold; 0 lifts a block."""
        ...


class Store(Protocol):
    """Where buckets are kept. The store's clock decides what time it is."""

    clock: Clock
    shared: bool  # whether other processes see the same buckets

    def open(self, name: str, policies: Sequence[Policy]) -> Buckets:
        """The buckets of the limiter called `name`; opened twice, they are the same buckets."""
        ...

    async def start(self) -> None:
        """Get ready, with the app. StoreUnavailable if that is impossible."""
        ...

    async def aclose(self) -> None:
        """Let go of what this event loop holds, with the app."""
        ...


def bucket_key(scope: Scope, key: str, per: str) -> str:
    """Which of a policy's buckets a call is charged to."""
    if scope == "user":
        return f"{len(key)}:{key}{per}" if per else key
    return per if scope == "shared" else ""


class PerStore(Generic[Value]):
    """One value for each store, for as long as that store lives. The value must not refer to the store."""

    def __init__(self, make: Callable[[Store], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._values: dict[int, tuple[weakref.ref[Store], Value]] = {}

    def of(self, store: Store) -> Value:
        """The store's value, made when it is first needed."""
        place = id(store)  # a store need be neither hashable nor comparable
        with self._lock:
            if place not in self._values:
                self._values[place] = weakref.ref(store, lambda _: self._values.pop(place, None)), self._make(store)
            return self._values[place][1]
