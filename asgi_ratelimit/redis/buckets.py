"""The buckets of one limiter in Redis: each verb becomes a check, each reply a Decision."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import ClassVar

from asgi_ratelimit.call_keys import CallKey, StoreKey, distinct, of_key, per_limit
from asgi_ratelimit.decision import Decision, Policy, make_decision
from asgi_ratelimit.limits import LATEST_US, SlidingWindow, State, TokenBucket
from asgi_ratelimit.redis.fallback import Fallback
from asgi_ratelimit.redis.names import tag_of
from asgi_ratelimit.redis.queries import ChargeUpdate, HoldingQuery, Peek, Query, QueuedQuery, Server, Update
from asgi_ratelimit.redis.renewals import SlotPlace
from asgi_ratelimit.redis.wire import Reply, Verb, shape
from asgi_ratelimit.slot import Slot, SlotCounts
from asgi_ratelimit.store import Settlement

__all__ = ["RedisBuckets"]

_MOST_SHAPES = 256  # of one limiter, each for one cost
_LONGEST_RECENT = 64  # characters of a key with remembered names
_ShapePlace = int | tuple[int, int]  # the cost; with the number of records where there are several keys
_PAUSE_US = 1_000_000  # until a refusal of the script is checked again if its states do not explain it


class RedisBuckets:
    """The buckets of a limiter that are in one slot. Without any, decisions are about `reported_policy`.

    The receipt of a charge is the store, so that all of its limiters can settle it.

    Several keys are in several slots: in a cluster these buckets get one key alone.
    """

    takes_several_keys: ClassVar[bool] = True

    def __init__(
        self,
        server: Server,
        name: str,
        policies: Sequence[Policy],
        fallback: Fallback,
        reported_policy: Policy,
        *,
        blocks: bool = True,
        counts: SlotCounts | None = None,
    ) -> None:
        self.server, self.policies, self.fallback = server, tuple(policies), fallback
        self.reported_policy = reported_policy
        self._name, self._counts = name, counts  # of the slots; None: those of a call are counted elsewhere
        for policy in policies:
            policy.limit.encode(1, 0)  # raises ValueError here, not in a request, if Redis cannot keep such a limit
        self.last_states, self.deny = server.last_states, server.deny
        self.holds = any(policy.limit.holds for policy in self.policies)
        limit = policies[0].limit if len(policies) == 1 else None
        # Of a single token bucket: its replies are read in a shorter way; else 0.
        self.ticks = limit.ticks if type(limit) is TokenBucket and limit.enforce else 0
        self._namer, self._recent_names, self._blocks = server.namer, server.namer.recent_names, blocks
        self._prefix = self._namer.start("user", name)
        own = all(policy.limit.scope == "user" for policy in self.policies)
        # Where all records have the key's own tag, their names differ in the end alone.
        self._ends = ("block", *[policy.bucket[:16] for policy in self.policies]) if own and blocks else None
        self._shapes: dict[Verb, dict[_ShapePlace, str]] = {"decide": {}, "peek": {}}
        self._has_calendar = any(policy.limit.encoded_for(0) for policy in self.policies)
        self._encoded_for = (0, 0)  # from when until when, in µs of the server's clock

    # The verbs

    def decide(
        self, key: StoreKey, cost: int, per: str, waiting: bool = False, due: float | None = None
    ) -> Decision | Awaitable[Decision]:
        """`due`: the moment by the event loop's clock at which it is answered without the server.

        With it, it is a part of a decision. A caller that leaves is charged nothing, as the other parts do not know.
        """
        names = self._names(key, per)
        if waiting:
            return self._read_or_undo(self._query(QueuedQuery, names, key, cost, per, due), self.refund)
        if self.deny.refusals:
            refusal = self.deny.find(names, self.policies, cost, self.server.clock.now_us())
            if refusal is not None:
                return refusal
        if due is not None:
            return self._read_or_undo(self._query(QueuedQuery, names, key, cost, per, due), self.refund)
        if self.holds:
            return self._read_or_undo(self._query(HoldingQuery, names, key, cost, per, due), self.release)
        return self._query(Query, names, key, cost, per, due)

    def decide_without_server(self, key: StoreKey, cost: int, per: str) -> Decision:
        """The decision about a caller that has waited for the server before, in vain."""
        return self._query(Query, self._names(key, per), key, cost, per, due=0.0).result()

    def peek(self, key: StoreKey, cost: int, per: str) -> Awaitable[Decision]:
        return self._query(Peek, self._names(key, per), key, cost, per)

    def refund(self, decision: Decision) -> Awaitable[object] | None:
        """Lost without an error if the server does not answer: no caller waits for it or fails. Then it is "lost"."""
        pending = self.settle(decision, 0)
        return None if isinstance(pending, str) else pending

    def settle(self, decision: Decision, cost: int) -> Settlement | Awaitable[Settlement | None] | None:
        """As `refund`. It returns "lost" if the server does not answer."""
        degraded = [
            self.fallback.settle(part, cost)
            for part in decision.parts
            if part.reason == "degraded" and not part.policy.limit.holds
        ]
        charged = [part for part in decision.parts if part.charged_by(self.server) and part.take_charge() is not None]
        now_us = self.server.server_clock.now_us()
        for part in charged:
            self.last_states.settle(part, cost, now_us)
        names, (verb, limits) = [str(part.bucket_key) for part in charged], _settlement(charged, cost, now_us)
        if self.holds and not cost:
            return self._release(decision, names, limits)
        if limits:
            return self._settle(verb, names, limits)
        return "cut" if "cut" in degraded else None

    def release(self, decision: Decision) -> Awaitable[object] | None:
        """Lost without an error if the server does not answer: then the slots are free at the end of their lease."""
        return self._release(decision, [], []) if self.holds else None

    def hold(self, query: Query, parts: Sequence[Decision]) -> None:
        """Renew the slots that a call has taken, those of an outage as well, which the server does not know."""
        if not self.holds:
            return
        names, keys = query.keys[-len(self.policies) :], per_limit(query.key, len(self.policies))
        counts = self._counts
        for part, policy, name, key in zip(parts, self.policies, names, keys, strict=False):
            if policy.limit.holds and (part.charged_by(self.server) or part.slot):
                slot = part.slot or Slot(self, part.state[-2])
                part.hold(slot)
                if counts is not None and counts.is_heard:
                    slot.count_in(counts, self._name)
                    counts = None
                self.server.renewals.add(slot, SlotPlace(name, policy, self, key, query.per, os.getpid()))

    def renew(self, place: SlotPlace, slots: list[int]) -> Awaitable[None]:
        """Begin the leases of these slots anew. If the server does not answer, the next renewal makes up for it."""
        text = shape("renew", 1, place.policy.limit.encode(1, 0), slots)
        return self._update([place.name], text, lenient=True)

    def _release(
        self, decision: Decision, names: list[str], limits: list[list[str | int | float]]
    ) -> Awaitable[Settlement | None] | None:
        """Free the slots of a decision, and give back what else it was charged, in one step."""
        for part in decision.parts:
            slot = part.slot
            if slot is None or not isinstance(slot.place, SlotPlace) or slot.place.buckets.server is not self.server:
                continue
            place = slot.place
            slot.end()
            if part.reason == "degraded":
                self.fallback.release(part)
            else:
                self.last_states.settle(part, 0, self.server.server_clock.now_us())
                part.take_charge()
                self.fallback.free(place, slot.id)
            if place.process == os.getpid():
                names.append(place.name)
                limits.append([*place.policy.limit.encode(1, 0), slot.id])
        return self._settle("refund", names, limits) if limits else None

    def _settle(
        self, verb: Verb, names: Sequence[str], limits: list[list[str | int | float]]
    ) -> Awaitable[Settlement | None]:
        self.deny.forget(names)
        if self.server.is_cluster and len({tag_of(name) for name in names}) > 1:
            slots = [[i for i, name in enumerate(names) if tag_of(name) == tag] for tag in {*map(tag_of, names)}]
            return _worst([self._settle(verb, [names[i] for i in slot], [limits[i] for i in slot]) for slot in slots])
        return ChargeUpdate(names, shape(verb, len(names), *limits), self.deny).put(self.server)

    def reset(self, key: StoreKey, per: str) -> Awaitable[None]:
        names = self._names(key, per)
        self.fallback.reset(names, key, per)
        return self._update(names, shape("reset", len(names)))

    def block(self, key: str, seconds: float) -> Awaitable[None]:
        names = self._names(key, "")[:1]
        self.fallback.block(names[0], key, seconds)
        return self._update(names, shape("block", 1, round(seconds * 1e6)))

    # Checks

    def _query(
        self, kind: type[Query], names: Sequence[str], key: CallKey, cost: int, per: str, due: float | None = None
    ) -> asyncio.Future[Decision]:
        if self._has_calendar:
            self._renew_shapes()
        place = cost if isinstance(key, str) else (cost, len(names))
        text = self._shapes[kind.verb].get(place) or self._shape(kind.verb, cost, place, len(names))
        return kind(names, text, self, key, cost, per).put(self.server, due)

    async def _read_or_undo(self, decision: asyncio.Future[Decision], undo: Callable[[Decision], object]) -> Decision:
        """The decision. It is undone if the caller is cancelled after its arrival and before reading it."""
        try:
            return await decision
        except asyncio.CancelledError:
            if decision.done() and not decision.cancelled() and decision.exception() is None:
                undo(decision.result())
            raise

    def _update(self, names: Sequence[str], text: str, *, lenient: bool = False) -> Awaitable[None]:
        self.deny.forget(names)
        return Update(names, text, self.deny, lenient).put(self.server)

    def _shape(self, verb: Verb, cost: int, place: _ShapePlace, names: int) -> str:
        shapes = self._shapes[verb]
        if len(shapes) >= _MOST_SHAPES:
            shapes.clear()
        now_us = self.server.server_clock.now_us()
        limits = [policy.limit.encode(cost, now_us) for policy in self.policies]
        text = shapes[place] = shape(verb, names, *limits)
        return text

    def _renew_shapes(self) -> None:
        """Drop the shapes of another period of the calendar."""
        now_us = self.server.server_clock.now_us()
        if not self._encoded_for[0] <= now_us < self._encoded_for[1]:
            spans = [policy.limit.encoded_for(now_us) or (now_us, LATEST_US) for policy in self.policies]
            self._encoded_for = max(start for start, _ in spans), min(end for _, end in spans)
            for shapes in self._shapes.values():
                shapes.clear()

    def _names(self, key: CallKey, per: str) -> Sequence[str]:
        """The names of the record of each key's block and of each bucket's."""
        if isinstance(key, tuple):
            each = [self._names(one, per) for one in key]
            return *dict.fromkeys([names[0] for names in each]), *[names[i] for i, names in enumerate(each, start=1)]
        if not isinstance(key, str):
            raise TypeError(f'a key is a string such as "user:1", not {key!r}')
        if self._ends is not None and not per:
            names = self._recent_names if len(key) <= _LONGEST_RECENT else self._namer.names
            return names(self._prefix, key, self._ends)
        tag = self._namer.tag(self._prefix, key)
        buckets = [self._bucket(policy, tag, per) for policy in self.policies]
        # The block is in the slot of the key's own buckets; in another slot there is none.
        return [self._namer.name(tag if self._blocks else tag_of(buckets[0]), "block"), *buckets]

    def _bucket(self, policy: Policy, tag: str, per: str) -> str:
        rest, scope = policy.bucket[:16], policy.limit.scope
        if scope == "user":
            return self._namer.name(tag, self._namer.tag(self._namer.start(rest), per) if per else rest)
        prefix = self._namer.start(scope, policy.name)
        return self._namer.name(self._namer.tag(prefix, per if scope == "shared" else ""), rest)

    # Replies

    def read(self, query: Query, reply: Reply, place: int) -> tuple[Decision, int]:
        """The decision at a place of a reply, and the place of the next one."""
        code, now_us, place = reply[place], reply[0], place + 1
        last_states, charged = self.server.last_states, code in (1, 3)
        blocks, blocked = len(query.keys) - len(self.policies), 0
        if code < 0 and blocks > 1:
            blocked, place = reply[place], place + 1
        parts: list[Decision] = []
        for name, policy in zip(query.keys[blocks:], self.policies, strict=True):
            state, place = policy.limit.decode(reply, place)
            last_states.note(name, policy.limit.in_microseconds(state))
            if not policy.limit.enforce:
                place += 1
                if reply[place - 1]:
                    parts.append(Decision(policy, query.cost, state, now_us, True, None, name, over=(policy.limit,)))
                    continue
            parts.append(self._part(policy, name, state, query.cost, now_us, is_charged=charged))
        if -code & 1 if code < 0 else code & 2:
            self.server.doubts.report(self.reported_policy.name)
        if code < 0:
            blocked_us, block = -code // 2, query.keys[blocked]
            last_states.note_block(block, now_us, blocked_us)
            about = of_key(parts or [self._granted(query.cost, now_us)], query.key, distinct(query.key)[blocked])
            return Decision.blocked(about, blocked_us, block), place
        if last_states.blocks:
            for block in query.keys[:blocks]:
                last_states.blocks.pop(block, None)
        if not parts:
            return self._granted(query.cost, now_us), place
        if charged:
            self.hold(query, parts)
        decision = Decision.combine(parts)
        if decision.allowed and query.verb == "decide" and not charged:
            return self._refused_by_the_script(decision), place
        return decision, place

    def answer_charged(self, checks: Sequence[Query], number: int, reply: Reply, place: int) -> tuple[int, int]:
        """Read the most common replies by far, in a shorter way: to a run of equal checks, all charged."""
        policy, ticks, now_us, blocks, deny = self.policies[0], self.ticks, reply[0], self.last_states.blocks, self.deny
        text, cost, states, receipt = checks[number].shape, checks[number].cost, self.last_states.young, self.server
        for check in islice(checks, number, None):
            if reply[place] != 1 or check.shape is not text:
                break
            state = reply[place + 1] * ticks + reply[place + 2]
            if type(state) is not int:
                raise TypeError("a reply has a state that is no number")
            name = check.keys[1]
            states[name] = reply[place + 1] + (reply[place + 2] > 0)
            decision = make_decision(policy, cost, state, now_us, True, receipt, name, 0)
            future = check.future
            if future.done():
                check.arrive_late(decision)
            else:
                future.set_result(decision)
            if blocks:
                blocks.pop(check.keys[0], None)
            if deny.refusals:
                deny.forget(check.keys[1:])  # a higher cost has to wait longer now
            number, place = number + 1, place + 3
        return number, place

    def _part(self, policy: Policy, name: str, state: State, cost: int, now_us: int, *, is_charged: bool) -> Decision:
        limit = policy.limit
        after = state if is_charged else limit.take(state, now_us, cost)
        delay_us = 0 if after is None else limit.delay_us(after, now_us, cost)
        charge = self.server if is_charged else None
        part = make_decision(policy, cost, state, now_us, after is not None, charge, name, delay_us)
        if after is None and cost <= limit.capacity and not 0 < part.retry_us <= 2 * limit.window_us:
            return self._doubted(part)
        return part

    def _doubted(self, part: Decision) -> Decision:
        """A refusal with a wait that no call of its limit can have caused. Its record is dropped."""
        self._drop([part])
        remaining, longest_us = part.remaining, part.policy.limit.window_us
        measure = max(0, min(remaining, part.limit)), longest_us, longest_us
        return Decision(part.policy, part.cost, None, part.now_us, False, None, part.bucket_key, measure=measure)

    def _refused_by_the_script(self, decision: Decision) -> Decision:
        """The script has refused what the states would allow, so the order of one of them is not believed."""
        self._drop([part for part in decision.parts if isinstance(part.policy.limit, SlidingWindow)])
        return decision.as_refusal(decision.cost, _PAUSE_US)

    def _drop(self, parts: Sequence[Decision]) -> None:
        self.server.doubts.report(self.reported_policy.name)
        names = [str(part.bucket_key) for part in parts]
        for name in names:
            self.server.last_states.take(name)
        if names:
            self._update(names, shape("reset", len(names)), lenient=True)

    def _granted(self, cost: int, now_us: int) -> Decision:
        """The decision about a key that is not blocked, where its buckets are elsewhere."""
        return Decision(self.reported_policy, cost, None, now_us, True, parts=())


def _worst(settling: Sequence[Awaitable[Settlement | None]]) -> Awaitable[Settlement | None]:
    """The result of settlements in several slots, which are sent at once, whether or not it is awaited."""
    whole = asyncio.gather(*settling)

    async def result() -> Settlement | None:
        results = await whole
        return "lost" if "lost" in results else "cut" if "cut" in results else None

    return asyncio.ensure_future(result())


def _settlement(charged: Sequence[Decision], cost: int, now_us: int) -> tuple[Verb, list[list[str | int | float]]]:
    """The verb, and each limit with what is to be given back or is owed; no limits if nothing is."""
    if not charged:
        return "owe", []
    less, more = charged[0].cost - cost, cost - charged[0].cost
    if less > 0:
        limits = [
            [*part.policy.limit.encode(less, now_us), *part.policy.limit.encode_charge(part.state, part.now_us)]
            for part in charged
        ]
        return "refund", limits
    if more > 0:  # what exceeds this is cut off in any case
        limits = [part.policy.limit.encode(min(more, 3 * part.limit + 1), now_us) for part in charged]
        return "owe", limits
    return "owe", []
