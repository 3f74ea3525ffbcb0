"""One check of the buckets in Redis, as a node sends it: what it asks, and how its reply is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Protocol

from asgi_ratelimit.call_keys import CallKey, distinct
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.redis.doubts import Doubts
from asgi_ratelimit.redis.fallback import Fallback, LastKnown
from asgi_ratelimit.redis.names import Namer, slot_of, tag_of
from asgi_ratelimit.redis.renewals import Renewals
from asgi_ratelimit.redis.wire import CHECKS, Reply, Script, Verb
from asgi_ratelimit.store import Settlement

__all__ = ["ChargeUpdate", "HoldingQuery", "Peek", "Pending", "Query", "QueuedQuery", "Server", "Session", "Update"]


class Session(Protocol):
    """The connection of one event loop to the server."""

    loop: asyncio.AbstractEventLoop

    def put(self, check: Any) -> None:
        """Send a check, or answer it without the server."""
        ...

    def miss(self, check: Any, error: Exception) -> None:
        """Answer a check without the server, and count it."""
        ...


class Server(Protocol):
    """The part of a store that all of its limiters use."""

    clock: Clock
    deny: DenyCache
    doubts: Doubts
    is_cluster: bool
    last_states: LastKnown
    server_clock: Clock  # that of the server, as of its last reply
    namer: Namer
    renewals: Renewals
    timeout: float

    def session(self) -> Session:
        """The session of the running event loop."""
        ...


class Reader(Protocol):
    """The buckets that a query is about. They read its reply."""

    deny: DenyCache
    fallback: Fallback
    ticks: int

    def read(self, query: Query, reply: Reply, place: int) -> tuple[Decision, int]:
        """The decision at a place of a reply, and the place of the next one."""
        ...

    def answer_charged(self, checks: Sequence[Query], number: int, reply: Reply, place: int) -> tuple[int, int]:
        """Answer a run of equal checks of a single token bucket, all charged."""
        ...

    def refund(self, decision: Decision) -> Awaitable[object] | None:
        """Give a charge back."""
        ...

    def release(self, decision: Decision) -> Awaitable[object] | None:
        """Free the slots of a decision."""
        ...

    def hold(self, query: Query, parts: Sequence[Decision]) -> None:
        """Renew the slots that a query has taken."""
        ...


class Pending:
    """One check, as a node sends it. Its subclasses read the reply."""

    __slots__ = ("asking", "due", "future", "hops", "keys", "shape", "slot")
    script: ClassVar[Script] = CHECKS
    keys: Sequence[str]
    shape: str
    future: asyncio.Future[Any]

    def put(self: Any, server: Server, due: float | None = None) -> asyncio.Future[Any]:
        session = server.session()
        if server.is_cluster:
            self.slot, self.asking, self.hops = slot_of(tag_of(self.keys[0])), False, 0
        loop = session.loop
        self.due = loop.time() + server.timeout if due is None else due
        future: asyncio.Future[Any] = loop.create_future()
        self.future = future
        if due is None or loop.time() < due:
            session.put(self)
        else:
            session.miss(self, TimeoutError("no time is left"))
        return future


class Query(Pending):
    """Decide, and charge what is allowed."""

    __slots__ = ("buckets", "cost", "key", "per")
    verb: ClassVar[Verb] = "decide"

    def __init__(self, names: Sequence[str], text: str, buckets: Reader, key: CallKey, cost: int, per: str) -> None:
        self.keys = names
        self.shape = text
        self.buckets = buckets
        self.key = key
        self.cost = cost
        self.per = per

    def answer(
        self, checks: Sequence[Any], number: int, reply: Reply, place: int, sent_us: int, received_us: int
    ) -> tuple[int, int]:
        buckets = self.buckets
        if buckets.ticks and reply[place] == 1:
            return buckets.answer_charged(checks, number, reply, place)
        decision, place = buckets.read(self, reply, place)
        if self.future.done():
            self.arrive_late(decision)
        else:
            self.future.set_result(decision)
        self.note(decision, sent_us, received_us)
        return number + 1, place

    def arrive_late(self, decision: Decision) -> None:
        """Nobody waits for the answer any more."""

    def note(self, decision: Decision, sent_us: int, received_us: int) -> None:
        """Remember a refusal, or forget those that it has changed."""
        deny = self.buckets.deny
        if not decision.allowed:
            deny.remember(self.keys, decision, sent_us, received_us)
        elif deny.refusals:
            deny.forget(self.keys[len(distinct(self.key)) :])  # a higher cost has to wait longer now

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        fallback, charge = self.buckets.fallback, self.verb == "decide"
        try:
            answer = fallback.decide(self.keys, self.key, self.cost, self.per, error, charge=charge)
            if charge:
                self.buckets.hold(self, answer.parts)
        except Exception as unavailable:
            unavailable.__cause__ = error
            self.future.set_exception(unavailable)
        else:
            self.future.set_result(answer)


class HoldingQuery(Query):
    """It takes a slot, which is freed if the caller does not learn of it. Its other charges stay."""

    __slots__ = ()

    def arrive_late(self, decision: Decision) -> None:
        self.buckets.release(decision)


class QueuedQuery(Query):
    """As a caller asks that waits in line: a charge that it does not learn of is given back."""

    __slots__ = ()

    def arrive_late(self, decision: Decision) -> None:
        if decision.allowed:
            self.buckets.refund(decision)  # cancelled while it waited


class Peek(Query):
    """Decide without a charge."""

    __slots__ = ()
    verb: ClassVar[Verb] = "peek"

    def note(self, decision: Decision, sent_us: int, received_us: int) -> None:
        """Nothing has changed."""


class Update(Pending):
    """Refund, reset or block. `lenient`: a failure is no error."""

    __slots__ = ("deny", "lenient")

    def __init__(self, names: Sequence[str], text: str, deny: DenyCache, lenient: bool) -> None:
        self.keys, self.shape, self.deny, self.lenient = names, text, deny, lenient

    def answer(
        self, checks: Sequence[Any], number: int, reply: Reply, place: int, sent_us: int, received_us: int
    ) -> tuple[int, int]:
        self.deny.forget(self.keys)  # again: a refusal in flight has been noted since
        if not self.future.done():
            self.future.set_result(self.result_of(reply[place]))
        return number + 1, place + 1

    def result_of(self, code: object) -> object:
        """The result of a verb that was done."""
        return None

    def lost(self) -> object:
        """The result of a lenient one if the server did not answer."""
        return None

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if self.lenient:
            self.future.set_result(self.lost())
        else:
            unavailable = StoreUnavailable(
                f"Redis cannot answer ({error}), so only this process has been changed, if it has room"
            )
            self.future.set_exception(unavailable)


class ChargeUpdate(Update):
    """Refund, or let a bucket owe."""

    __slots__ = ()

    def __init__(self, names: Sequence[str], text: str, deny: DenyCache) -> None:
        super().__init__(names, text, deny, lenient=True)

    def result_of(self, code: object) -> Settlement | None:
        return "cut" if code == 2 else None

    def lost(self) -> Settlement:
        return "lost"
