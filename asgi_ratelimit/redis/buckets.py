"""The buckets of one limiter in Redis: each verb becomes a check, each answer a Decision."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Protocol

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy, blocked, reported
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import LeakyBucket, State, TokenBucket
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.redis.fallback import Fallback, Known
from asgi_ratelimit.redis.names import SLOTS, Namer
from asgi_ratelimit.redis.wire import CHECKS, Reply, Script, Verb, described, read_state, refundable, shape

__all__ = ["Pending", "RedisBuckets", "Server", "Session"]

_MOST_SHAPES = 256  # of one limiter, each of a cost that was asked for


class Session(Protocol):
    """The way to the server that one event loop has."""

    loop: asyncio.AbstractEventLoop

    def put(self, check: Any) -> None:
        """Have a check answered."""
        ...


class Server(Protocol):
    """What the limiters of a store have in common."""

    clock: Clock
    deny: DenyCache
    is_cluster: bool
    known: Known
    namer: Namer
    timeout: float

    def session(self) -> Session:
        """That of the running event loop."""
        ...


class RedisBuckets:
    """The buckets of a limiter, those of them at least that are in one slot. `face` speaks where there are none."""

    def __init__(
        self,
        server: Server,
        name: str,
        policies: Sequence[Policy],
        fallback: Fallback,
        face: Policy,
        *,
        blocks: bool = True,
    ) -> None:
        self.server, self.policies, self.fallback, self.face = server, tuple(policies), fallback, face
        self.only = policies[0] if len(policies) == 1 and type(policies[0].limit) is TokenBucket else None
        self._namer, self._blocks = server.namer, blocks
        self._begun = self._namer.start("user", name)
        own = all(policy.limit.scope == "user" for policy in self.policies)
        # Where all records have the key's own tag, their names differ in the end alone.
        self._ends = ["block", *[policy.bucket[:16] for policy in self.policies]] if own and blocks else None
        self._shapes: dict[tuple[Verb, int], str] = {}

    # The verbs

    def decide(self, key: str, cost: int, per: str, waiting: bool = False) -> Decision | Awaitable[Decision]:
        names = self._names(key, per)
        if not waiting and self.server.deny.refusals:
            refusal = self.server.deny.find(names, cost, self.server.clock.now_us())
            if refusal is not None:
                return refusal
        answer = self._ask("decide", names, key, cost, per, waiting)
        return self._kept(answer) if waiting else answer

    def peek(self, key: str, cost: int, per: str) -> Awaitable[Decision]:
        return self._ask("peek", self._names(key, per), key, cost, per, False)

    def refund(self, decision: Decision) -> Awaitable[None] | None:
        """Lost if the server does not answer: nobody is to wait or to fail for it."""
        for part in decision.parts:
            if part.reason == "degraded":
                self.fallback.refund(part)
        charged = [part for part in decision.parts if part.allowed and part._kept_in is self]
        if not charged:
            return None
        for part in charged:
            part._kept_in = None
        names = [part._kept_as for part in charged]
        return self._tell(names, shape("refund", len(names), *map(refundable, charged)), lenient=True)

    def reset(self, key: str, per: str) -> Awaitable[None]:
        names = self._names(key, per)
        self.fallback.reset(names, key, per)
        return self._tell(names, shape("reset", len(names)))

    def block(self, key: str, seconds: float) -> Awaitable[None]:
        names = self._names(key, "")[:1]
        self.fallback.block(names[0], key, seconds)
        return self._tell(names, shape("block", 1, round(seconds * 1e6)))

    # What is asked

    def _ask(
        self, verb: Verb, names: list[str], key: str, cost: int, per: str, waiting: bool
    ) -> asyncio.Future[Decision]:
        check = Asking(names, self._shapes.get((verb, cost)) or self._shape(verb, cost))
        check.buckets, check.key, check.cost, check.per = self, key, cost, per
        check.charge, check.waiting = verb == "decide", waiting
        return check.put(self.server)

    async def _kept(self, answer: asyncio.Future[Decision]) -> Decision:
        """The answer; given back if the caller is cancelled after it has come and before he has read it."""
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.refund(answer.result())
            raise

    def _tell(self, names: Sequence[str], said: str, *, lenient: bool = False) -> Awaitable[None]:
        self.server.deny.forget(names)
        check = Telling(names, said)
        check.deny, check.lenient = self.server.deny, lenient
        return check.put(self.server)

    def _shape(self, verb: Verb, cost: int) -> str:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        limits = [described(policy.limit, cost) for policy in self.policies]
        found = self._shapes[verb, cost] = shape(verb, 1 + len(limits), *limits)
        return found

    def _names(self, key: str, per: str) -> list[str]:
        """Of the block's record and of each bucket's."""
        if not isinstance(key, str):
            raise TypeError(f'a key is a string such as "user:1", not {key!r}')
        tag = self._namer.tag(self._begun, key)
        if self._ends is not None and not per:
            return self._namer.names(tag, self._ends)
        buckets = [self._bucket(policy, tag, per) for policy in self.policies]
        # The block is where the key's own buckets are; in another slot there never is one.
        return [self._namer.name(tag if self._blocks else _tag(buckets[0]), "block"), *buckets]

    def _bucket(self, policy: Policy, tag: str, per: str) -> str:
        rest, scope = policy.bucket[:16], policy.limit.scope
        if scope == "user":
            return self._namer.name(tag, self._namer.tag(self._namer.start(rest), per) if per else rest)
        whose = self._namer.start(scope, policy.name)
        return self._namer.name(self._namer.tag(whose, per if scope == "shared" else ""), rest)

    # What is answered

    def read(self, asking: Asking, reply: Reply, place: int) -> tuple[Decision, int]:
        """The decision that stands at a place of a reply, and where the next one stands."""
        code, now_us, place = reply[place], reply[0], place + 1
        parts: list[Decision] = []
        for name, policy in zip(asking.keys[1:], self.policies, strict=True):
            state, place = read_state(policy.limit, reply, place)
            self.server.known.note(name, state)
            parts.append(self._part(policy, name, state, asking.cost, now_us, charged=code == 1))
        known = self.server.known
        if code < 0:
            known.note_block(asking.keys[0], now_us - code)
            decision = blocked(parts or [self._granted(asking, now_us)], -code)
            decision._kept_as, decision._kept_in = asking.keys[0], None
            if not parts:
                del decision._parts  # it speaks for itself now
            return decision, place
        if known.blocks:
            known.blocks.pop(asking.keys[0], None)
        return reported(parts) if parts else self._granted(asking, now_us), place

    def _part(self, policy: Policy, name: str, state: State, cost: int, now_us: int, *, charged: bool) -> Decision:
        limit = policy.limit
        part = Decision()
        part.policy, part.cost, part._now_us, part._state, part._measure = policy, cost, now_us, state, None
        part.allowed = charged or limit.take(state, now_us, cost) is not None
        part._kept_in, part._kept_as = (self if charged else None), name
        if part.allowed and isinstance(limit, LeakyBucket):
            part._delay_us = limit.delay_us(state - cost * limit.interval if charged else state, now_us)
        return part

    def _granted(self, asking: Asking, now_us: int) -> Decision:
        """What is said of a key that is not blocked, where its buckets are elsewhere."""
        decision = Decision()
        decision.allowed, decision.policy, decision.cost = True, self.face, asking.cost
        decision._state = decision._kept_in = decision._kept_as = decision._measure = None
        decision._now_us, decision._parts = now_us, ()
        return decision


class Pending:
    """One question to the server, as a node sends it. What follows from the answer is up to those that inherit."""

    __slots__ = ("asking", "due", "future", "hops", "keys", "shape", "slot")
    script: ClassVar[Script] = CHECKS
    future: asyncio.Future[Any]

    def __init__(self, names: Sequence[str], text: str) -> None:
        self.keys, self.shape = names, text
        self.asking, self.hops, self.slot = False, 0, 0

    def put(self: Any, server: Server) -> asyncio.Future[Any]:
        session = server.session()
        if server.is_cluster:
            self.slot = crc_hqx(_tag(self.keys[0]).encode(), 0) % SLOTS
        self.due = session.loop.time() + server.timeout
        future: asyncio.Future[Any] = session.loop.create_future()
        self.future = future
        session.put(self)
        return future


class Asking(Pending):
    """Decide or peek."""

    __slots__ = ("buckets", "charge", "cost", "key", "per", "waiting")
    buckets: RedisBuckets
    key: str
    cost: int
    per: str
    charge: bool  # whether it is to decide
    waiting: bool

    def answer(self, reply: Reply, place: int, sent_us: int, heard_us: int) -> int:
        buckets = self.buckets
        if buckets.only is not None and reply[place] == 1:
            decision = self._usual(buckets.only, reply, place)
            place += 3
        else:
            decision, place = buckets.read(self, reply, place)
        if not self.future.done():
            self.future.set_result(decision)
        elif self.waiting and decision.allowed:
            buckets.refund(decision)  # cancelled while it stood in line: it did not go
        deny = buckets.server.deny
        if self.charge and not decision.allowed:
            deny.remember(self.keys, decision, sent_us, heard_us)
        elif self.charge and deny.refusals:
            deny.forget(self.keys[1:])  # whoever asked for more has to wait longer now
        return place

    def _usual(self, policy: Policy, reply: Reply, place: int) -> Decision:
        """By far the most common answer, read in a shorter way: one token bucket, charged."""
        limit: Any = policy.limit
        name, known = self.keys[1], self.buckets.server.known
        decision = Decision()
        decision.allowed, decision.policy, decision.cost = True, policy, self.cost
        decision._state, decision._now_us = reply[place + 1] * limit.ticks + reply[place + 2], reply[0]
        decision._kept_in, decision._kept_as, decision._measure = self.buckets, name, None
        known.note(name, decision._state)
        if known.blocks:
            known.blocks.pop(self.keys[0], None)
        return decision

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        fallback = self.buckets.fallback
        try:
            answer = fallback.decide(self.keys, self.key, self.cost, self.per, error, charge=self.charge)
        except Exception as unavailable:
            unavailable.__cause__ = error
            self.future.set_exception(unavailable)
        else:
            self.future.set_result(answer)


class Telling(Pending):
    """Refund, reset or block."""

    __slots__ = ("deny", "lenient")
    deny: DenyCache
    lenient: bool  # whether nobody is to hear of it when the server does not

    def answer(self, reply: Reply, place: int, sent_us: int, heard_us: int) -> int:
        self.deny.forget(self.keys)  # again: a refusal that was on its way has been noted since
        if not self.future.done():
            self.future.set_result(None)
        return place + 1

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if self.lenient:
            self.future.set_result(None)
        else:
            unavailable = StoreUnavailable(f"Redis cannot answer ({error}), so only this process knows of it")
            self.future.set_exception(unavailable)


def _tag(name: str) -> str:
    return name[name.index("{") + 1 : name.index("}")]
