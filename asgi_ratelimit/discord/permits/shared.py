"""Permits for calls to somebody else's limits, in Redis: one count for all processes that use the same token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar, Final

from asgi_ratelimit.discord.permits.bucket import Answer
from asgi_ratelimit.discord.permits.memory import LEASE_US, Ask, Lease, MemoryLeases, Permit, Why
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.redis.buckets import Pending, Server
from asgi_ratelimit.redis.wire import Reply, Script, script_in, shape
from asgi_ratelimit.store import PerStore

__all__ = ["RedisLeases", "shared_permits"]

_WHY: Final[tuple[Why, ...]] = ("", "banned", "stopped", "route", "bucket", "answer", "global")  # as leases.lua counts
_UNSENT = Answer("unsent")
LEASES: Final = script_in("asgi_ratelimit.discord.permits", "permits.lua")


class RedisLeases:
    """The permits of one owner, all in one slot of a cluster.

    While the server cannot decide, `local` does: nobody may run into limits unpaced. It is told of each permit and
    of what became of it, so that it knows what this process knows. `closed`: nobody does.
    """

    def __init__(self, server: Server, owner: str, local: MemoryLeases, *, closed: bool) -> None:
        self._server, self._namer, self._closed = server, server.namer, closed
        self.local = local
        self._begun = self._namer.begun("permits", owner, "")
        self._keys = (self._namer.name(self._namer.tag(self._namer.begun("permits"), owner), "permits"),)

    async def lease(self, ask: Ask) -> Lease:
        """StoreUnavailable where the server cannot answer and nobody else is to. Cancelled, it takes no permit."""
        leasing = _Leasing(self._keys, self._asked(ask))
        leasing.leases, leasing.ask = self, ask
        answer: asyncio.Future[Lease] = leasing.put(self._server)
        try:
            return await answer
        except asyncio.CancelledError:  # perhaps after it has come and before it was read
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.give_back(answer.result())
            raise

    def settle(self, permit: Permit, answer: Answer) -> Awaitable[None]:
        """On its way at once, before whatever is asked later. It never fails: what is lost frees itself."""
        if not self._closed:
            self.local.settle(permit, answer)
        return _Settling(self._keys, self._settled(permit, answer)).put(self._server)

    def sweep(self) -> bool:
        """Of what this process keeps; in Redis everything goes by itself."""
        return self.local.sweep()

    def decide_here(self, ask: Ask, cause: BaseException) -> Lease:
        """The answer in place of the server's."""
        if self._closed:
            raise StoreUnavailable(f"Redis cannot answer ({cause}), and no call is to go without it") from cause
        return self.local.lease(ask)

    def granted_there(self, ask: Ask) -> None:
        """The server has given a permit, and somebody has it."""
        if not self._closed:
            self.local.adopt(ask)

    def give_back(self, lease: Lease) -> None:
        """Nobody has read the answer."""
        if lease.permit is not None:
            self.settle(lease.permit, _UNSENT)

    # What leases.lua is asked

    def _asked(self, ask: Ask) -> str:
        route, major = self._digest(ask.route), self._digest(ask.major)
        return shape("lease", 1, ask.name, route, major, ask.per_second, LEASE_US)

    def _settled(self, permit: Permit, answer: Answer) -> str:
        ask = permit.ask
        return shape(
            "settle", 1, ask.name, self._digest(ask.route), self._digest(ask.major), ask.per_second,
            permit.bucket and self._digest(permit.bucket), permit.sent_us,
            answer.verdict, answer.bucket, answer.bucket and self._digest(answer.bucket),
            answer.limit, answer.remaining, answer.reset_us, answer.retry_us,
        )  # fmt: skip

    def _digest(self, text: str) -> str:
        return self._namer.tag(self._begun, text)


def shared_permits(store: Any, owner: str) -> RedisLeases:
    """The permits of `owner` in a RedisStore."""
    local = _locals.of(store).setdefault(owner, MemoryLeases(store.server_clock))
    return RedisLeases(store.patient(), owner, local, closed=store.outage == "closed")


_locals: PerStore[dict[str, MemoryLeases]] = PerStore(lambda store: {})


class _Leasing(Pending):
    """A permit is wanted."""

    __slots__ = ("ask", "leases")
    script: ClassVar[Script] = LEASES
    ask: Ask
    leases: RedisLeases

    def answer(self, reply: Reply, place: int, sent_us: int, heard_us: int) -> int:
        why, wait, bucket, limit, remaining, full, kind, slot, in_flight = reply[place : place + 9]
        known = bucket.decode()
        permit = None if wait else Permit(self.ask, known, reply[0])
        lease = Lease(permit, _WHY[why], wait, known, limit, remaining, full, kind, slot, in_flight)
        if not self.future.done():
            if permit is not None:
                self.leases.granted_there(self.ask)
            self.future.set_result(lease)
        elif not self._is_used():
            self.leases.give_back(lease)
        return place + 9

    def _is_used(self) -> bool:
        """Whether a call goes under this name nevertheless: it was permitted without the server meanwhile."""
        future = self.future
        return not future.cancelled() and future.exception() is None and future.result().permit is not None

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        try:
            lease = self.leases.decide_here(self.ask, error)
        except Exception as unavailable:
            self.future.set_exception(unavailable)
        else:
            self.future.set_result(lease)


class _Settling(Pending):
    """A permit comes back."""

    __slots__ = ()
    script: ClassVar[Script] = LEASES

    def answer(self, reply: Any, place: int, sent_us: int, heard_us: int) -> int:
        if not self.future.done():
            self.future.set_result(None)
        return place + 1

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_result(None)
