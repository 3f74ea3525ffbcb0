"""The interface of a store: where limiters keep their buckets."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.limits import Outage, Scope

__all__ = [
    "Buckets",
    "PerStore",
    "ScriptCall",
    "ScriptKeys",
    "ScriptStore",
    "Scripts",
    "Store",
    "bucket_key",
]

Value = TypeVar("Value")
Result = TypeVar("Result")


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

    async def start(self) -> None:
        """Connect, when the app starts. Raises StoreUnavailable if that is impossible for good."""
        ...

    async def aclose(self) -> None:
        """Close the connections of this event loop, when the app ends."""
        ...


def bucket_key(scope: Scope, key: str, per: str) -> str:
    """The bucket that a call is charged to, among all buckets of a policy."""
    if scope == "user":
        return f"{len(key)}:{key}{per}" if per else key
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


# Scripts, which a store of several processes may offer besides buckets


class ScriptCall(Protocol[Result]):
    """One call of a script, and how its result is read from the reply that it shares with other calls."""

    @property
    def keys(self) -> Sequence[str]:
        """The records that the script may touch begin with these names. A call has one at least."""
        ...

    @property
    def arguments(self) -> Sequence[str | int]:
        """The script receives them as its `question`, with the number of keys after the first one."""
        ...

    def read(self, reply: Sequence[Any], start: int) -> tuple[Result, int]:
        """The result that begins at `start`, and where that of the next call begins. The server's time is first."""
        ...

    def decide_without_server(self, error: BaseException) -> Result:
        """The result if the server cannot answer. An error that this raises goes to the caller."""
        ...

    def on_delivered(self, result: Result) -> None:
        """The server's result is the one that the caller gets."""
        ...

    def on_undelivered(self, result: Result, instead: Result | None) -> None:
        """The server's result comes too late. The caller has `instead`; None: it was cancelled, or got an error."""
        ...


class ScriptKeys(Protocol):
    """Names for the records of one owner. In a cluster all of them are in one slot."""

    @property
    def base(self) -> str:
        """The beginning of the names of all records."""
        ...

    def digest(self, text: str) -> str:
        """A text as a part of a name, from which it cannot be read."""
        ...


class Scripts(Protocol):
    """One script on the servers of a store. Calls that come together travel together."""

    clock: Clock  # the server's, as of its last reply
    outage: Outage  # of the store, while its server cannot answer

    def keys_of(self, kind: str, owner: str) -> ScriptKeys:
        """The names of an owner's records of one kind, e.g. of a bot's permits."""
        ...

    def call(self, call: ScriptCall[Result]) -> asyncio.Future[Result]:
        """Send a call at once, before all calls that come later. The caller may cancel the future."""
        ...


@runtime_checkable
class ScriptStore(Store, Protocol):
    """A store that also runs scripts on its server."""

    def scripts(self, source: bytes, *, patience: float) -> Scripts:
        """A Lua script in the store's frame. Its calls wait `patience` seconds for the server at least."""
        ...
