"""The buckets of one limiter in Redis: each verb becomes a check, each answer a Decision."""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Protocol

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import State, TokenBucket
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.redis.fallback import Fallback, LastKnown
from asgi_ratelimit.redis.names import Namer
from asgi_ratelimit.redis.wire import CHECKS, Reply, Script, Verb, shape

__all__ = ["SLOTS", "Pending", "RedisBuckets", "Server", "Session"]

SLOTS = 16384  # of every cluster
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
    last_known: LastKnown
    namer: Namer
    timeout: float

    def session(self) -> Session:
        """That of the running event loop."""
        ...


class RedisBuckets:
    """The buckets of a limiter, those of them at least that are in one slot. `reported_policy` is reported where there
    are none."""

    def __init__(
        self,
        server: Server,
        name: str,
        policies: Sequence[Policy],
        fallback: Fallback,
        reported_policy: Policy,
        *,
        blocks: bool = True,
    ) -> None:
        self.server, self.policies, self.fallback = server, tuple(policies), fallback
        self.reported_policy = reported_policy
        limit = policies[0].limit if len(policies) == 1 else None
        self.only = limit if type(limit) is TokenBucket else None
        self._namer, self._blocks = server.namer, blocks
        self._begun = self._namer.begun("user", name)
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
        charged = [part for part in decision.parts if part.charged_by(self)]
        if not charged:
            return None
        for part in charged:
            part.take_charge()
        names = [str(part.bucket_key) for part in charged]
        return self._tell(names, shape("refund", len(names), *map(_refundable, charged)), lenient=True)

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
        limits = [policy.limit.encode(cost) for policy in self.policies]
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
            return self._namer.name(tag, self._namer.tag(self._namer.begun(rest), per) if per else rest)
        whose = self._namer.begun(scope, policy.name)
        return self._namer.name(self._namer.tag(whose, per if scope == "shared" else ""), rest)

    # Replies

    def read(self, asking: Asking, reply: Reply, place: int) -> tuple[Decision, int]:
        """The decision at a place of a reply, and the place of the next one."""
        code, now_us, place = reply[place], reply[0], place + 1
        last_known, block = self.server.last_known, asking.keys[0]
        parts: list[Decision] = []
        for name, policy in zip(asking.keys[1:], self.policies, strict=True):
            state, place = policy.limit.decode(reply, place)
            last_known.note(name, state)
            parts.append(self._part(policy, name, state, asking.cost, now_us, is_charged=code == 1))
        if code < 0:
            last_known.note_block(block, now_us - code)
            return Decision.blocked(parts or [self._granted(asking.cost, now_us)], -code, block), place
        if last_known.blocks:
            last_known.blocks.pop(block, None)
        return Decision.combine(parts) if parts else self._granted(asking.cost, now_us), place

    def _part(self, policy: Policy, name: str, state: State, cost: int, now_us: int, *, is_charged: bool) -> Decision:
        limit = policy.limit
        after = state if is_charged else limit.take(state, now_us, cost)
        delay_us = 0 if after is None else limit.delay_us(after, now_us, cost)
        charge = self if is_charged else None
        return Decision(policy, cost, state, now_us, after is not None, charge, name, delay_us=delay_us)

    def _granted(self, cost: int, now_us: int) -> Decision:
        """The decision about a key that is not blocked, where its buckets are elsewhere."""
        return Decision(self.reported_policy, cost, None, now_us, True, parts=())


def _refundable(part: Decision) -> list[str | int]:
    """A limit, and the charge that is to be given back."""
    limit = part.policy.limit
    return [*limit.encode(part.cost), *limit.encode_charge(part.state, part.now_us)]


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
            decision = self._usual(buckets.policies[0], buckets.only, reply, place)
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

    def _usual(self, policy: Policy, limit: TokenBucket, reply: Reply, place: int) -> Decision:
        """The most common reply by far, read in a shorter way: one token bucket, charged."""
        block, name = self.keys
        last_known = self.buckets.server.last_known
        state = reply[place + 1] * limit.ticks + reply[place + 2]
        last_known.note(name, state)
        if last_known.blocks:
            last_known.blocks.pop(block, None)
        return Decision(policy, self.cost, state, reply[0], True, self.buckets, name)

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
