"""The interface of a store that runs scripts on its server, besides its buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.limits import Outage
from asgi_ratelimit.store import Store

__all__ = ["ScriptCall", "ScriptKeys", "ScriptStore", "Scripts"]

Result = TypeVar("Result")


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

    @property
    def is_open(self) -> bool:
        """Whether the running event loop has used the script, or another one as patient, and not closed the store."""
        ...

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
