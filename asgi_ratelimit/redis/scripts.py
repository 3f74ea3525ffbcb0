"""Scripts of others on the servers of a store: permits for calls to Discord, for example."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.limits import Outage
from asgi_ratelimit.redis.connections import Connections
from asgi_ratelimit.redis.names import Namer, slot_of, tag_of
from asgi_ratelimit.redis.wire import Reply, Script, framed, shape
from asgi_ratelimit.scripts import ScriptCall

__all__ = ["RedisScripts"]

Result = TypeVar("Result")


class RedisScripts:
    """One script, in the frame that all scripts of a server share."""

    def __init__(self, connections: Connections, namer: Namer, source: bytes, clock: Clock, outage: Outage) -> None:
        self._connections, self._namer, self._script = connections, namer, framed(source)
        self.clock, self.outage = clock, outage

    @property
    def is_open(self) -> bool:
        return self._connections.is_open

    def keys_of(self, kind: str, owner: str) -> _Keys:
        return _Keys(self._namer, kind, owner)

    def call(self, call: ScriptCall[Result]) -> asyncio.Future[Result]:
        session = self._connections.session()
        check = _Check(call, self._script, session.loop)
        check.due = session.loop.time() + self._connections.timeout
        if self._connections.is_cluster:
            check.slot = slot_of(tag_of(check.keys[0]))
        session.put(check)
        return check.future


class _Keys:
    """The names of one owner's records."""

    def __init__(self, namer: Namer, kind: str, owner: str) -> None:
        self._namer, self._start = namer, namer.start(kind, owner, "")
        self.base = namer.name(namer.tag(namer.start(kind), owner), kind)

    def digest(self, text: str) -> str:
        return self._namer.tag(self._start, text)


class _Check(Generic[Result]):
    """A call as a node sends it."""

    __slots__ = ("asking", "call", "due", "future", "hops", "keys", "script", "shape", "slot")

    def __init__(self, call: ScriptCall[Result], script: Script, loop: asyncio.AbstractEventLoop) -> None:
        verb, *rest = call.arguments
        self.call, self.script, self.keys = call, script, call.keys
        self.shape = shape(str(verb), len(call.keys), *rest)
        self.future: asyncio.Future[Result] = loop.create_future()
        self.asking, self.due, self.hops, self.slot = False, 0.0, 0, 0

    def answer(
        self, checks: Sequence[Any], number: int, reply: Reply, place: int, sent_us: int, received_us: int
    ) -> tuple[int, int]:
        result, end = self.call.read(reply, place)
        if not self.future.done():
            self.call.on_delivered(result)
            self.future.set_result(result)
        else:
            self.call.on_undelivered(result, self._delivered())
        return number + 1, end

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        try:
            result = self.call.decide_without_server(error)
        except Exception as unavailable:
            self.future.set_exception(unavailable)
        else:
            self.future.set_result(result)

    def _delivered(self) -> Result | None:
        future = self.future
        return None if future.cancelled() or future.exception() is not None else future.result()
