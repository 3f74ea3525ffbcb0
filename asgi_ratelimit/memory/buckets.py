"""The buckets of one limiter in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import ClassVar

from asgi_ratelimit.call_keys import CallKey, StoreKey, distinct, of_key
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import BucketKey, Decision, Policy, make_decision
from asgi_ratelimit.limits import Limit, State, TokenBucket
from asgi_ratelimit.memory import slots
from asgi_ratelimit.memory.record_keys import record_key, stored_key
from asgi_ratelimit.memory.records import Full, Records, Shard, Table
from asgi_ratelimit.slot import Slot, SlotCounts
from asgi_ratelimit.store import Settlement

__all__ = ["MemoryBuckets"]


class MemoryBuckets:
    """The buckets of one limiter in a MemoryStore.

    A tuple of keys may be longer than the list of limits. The rest of it is looked at for blocks only.
    """

    takes_several_keys: ClassVar[bool] = True

    __slots__ = (
        "_block_shards",
        "_blocks",
        "_counts",
        "_delay_us",
        "_depth",
        "_enforce",
        "_holds",
        "_interval",
        "_is_by_key",
        "_is_single",
        "_locked",
        "_mask",
        "_name",
        "_now_ns",
        "_now_us",
        "_policies",
        "_policy",
        "_records",
        "_report_full",
        "_scope",
        "_shards",
        "_tables",
        "_take",
        "_ticks",
    )  # fmt: skip

    def __init__(
        self,
        records: Records,
        clock: Clock,
        policies: Sequence[Policy],
        tables: Sequence[Table],
        blocks: Table,
        report_full: Callable[[], None],
        name: str,
        counts: SlotCounts | None,
    ) -> None:
        self._name, self._counts = name, counts  # of the slots; None: they are counted elsewhere
        self._records, self._locked, self._mask, self._report_full = records, records.locked, records.mask, report_full
        self._now_us, self._now_ns = clock.now_us, clock.now_ns
        self._policies, self._tables, self._blocks = tuple(policies), tuple(tables), blocks
        self._policy, self._shards, self._block_shards = policies[0], tables[0].shards, blocks.shards
        limit = policies[0].limit
        self._scope, self._is_by_key = limit.scope, limit.scope == "user"
        self._holds = any(policy.limit.holds for policy in policies)
        self._is_single = len(policies) == 1 and not self._holds
        self._take, self._ticks, self._enforce = limit.take, 0, limit.enforce
        if isinstance(limit, TokenBucket) and type(limit).take is TokenBucket.take:
            self._ticks, self._depth, self._interval = limit.ticks, limit.depth, limit.interval
        self._delay_us = None if type(limit).delay_us is Limit.delay_us else limit.delay_us

    def decide(self, key: StoreKey, cost: int, per: str, waiting: bool = False) -> Decision:
        if not self._is_single or (self._block_shards and self._has_block(key)):
            return self._decide(key, cost, per, charge=True)
        # A single limit is by far the most common case. It takes a shorter way to the same decision.
        stored: BucketKey = key if self._is_by_key and not per else record_key(self._scope, key, per)
        now_ns = self._now_ns  # CPython 3.11 calls a variable faster than a slot
        try:
            with self._locked:  # not acquire() and try: a signal's exception may strike between the two
                now_us = now_ns() // 1000
                try:
                    shard = self._shards[hash(stored) & self._mask]
                    records = shard.records
                    state = records[stored]
                except (KeyError, TypeError):
                    records = None
                    stored = record_key(self._scope, key, per)
                    shard, stored, state = self._records.locate(self._tables[0], stored, now_us)
                if ticks := self._ticks:  # TokenBucket.take, without the call
                    now = now_us if ticks == 1 else now_us * ticks
                    charge = self._interval if cost == 1 else cost * self._interval
                    latest = now + self._depth
                    after = (now if state is None or state < now else state) + charge
                    if after > latest:
                        after = None
                        if state is not None and state > latest + self._depth:
                            state = self._cut(shard, stored, self._policy.limit, state, now_us)
                else:
                    after = self._take(state, now_us, cost)
                    if after is None and state is not None:
                        state = self._cut(shard, stored, self._policy.limit, state, now_us)
                if after is None:
                    if not self._enforce:
                        return _part(self._policy, (shard, stored, state), None, cost, now_us, charged=False)
                    return make_decision(self._policy, cost, state, now_us, False, None, stored, 0)
                if records is None:
                    self._records.write(shard, stored, after, now_us)
                else:
                    records[stored] = after
        except Full:
            return self._decide(key, cost, per, charge=True, reports=True)
        delay_us = self._delay_us(after, now_us, cost) if self._delay_us else 0
        return make_decision(self._policy, cost, after, now_us, True, shard, stored, delay_us)

    def decide_each(self, keys: tuple[str, ...], cost: int, per: str) -> Decision:
        """The decision about a call with several keys, also where there is one limit alone."""
        return self._decide(keys, cost, per, charge=True)

    def peek(self, key: StoreKey, cost: int, per: str) -> Decision:
        return self._decide(key, cost, per, charge=False)

    def refund(self, decision: Decision) -> None:
        self.settle(decision, 0)

    def settle(self, decision: Decision, cost: int) -> Settlement | None:
        is_cut = False
        with self._locked:
            now_us = self._now_us()
            for part in decision.parts:
                if part.policy.limit.holds:
                    continue  # a slot is kept until the call ends, whatever it costs
                charged = part.take_charge()
                if isinstance(charged, Shard) and charged.table.lock is self._records.lock:
                    is_cut |= self._settle(part, charged, cost, now_us)
                elif charged is not None:  # in another store
                    part.hold(charged)
            if self._holds and not cost:
                slots.free(self._records, decision, now_us)
        return "cut" if is_cut else None

    def release(self, decision: Decision) -> None:
        with self._locked:
            slots.free(self._records, decision, self._now_us())

    def keep(self, key: str, per: str, policy: Policy, held: Sequence[Slot]) -> None:
        """Renew these slots, which are in a state that was adopted, as long as they are held."""
        with self._locked:
            for shard, place in self._places(key, per, policy):
                for slot in held:
                    if shard.table.holders is not None:
                        shard.table.holders.add(place, slot)

    def free(self, key: str, per: str, policy: Policy, slot_id: int) -> None:
        """Free a slot that was adopted, if it is still there."""
        with self._locked:
            for shard, place in self._places(key, per, policy):
                slots.drop(self._records, policy.limit, shard, place, slot_id, self._now_us())

    def _places(self, key: str, per: str, policy: Policy) -> Iterator[tuple[Shard, BucketKey]]:
        """The shard and the key of a policy's record, if it is one of these."""
        for own, table in zip(self._policies, self._tables, strict=True):
            if own.bucket == policy.bucket:
                place = record_key(own.limit.scope, key, per)
                yield self._records.shard_of(table, place), place

    def _settle(self, part: Decision, charged: Shard, cost: int, now_us: int) -> bool:
        """Whether the bucket cannot owe all of it."""
        key, limit, is_cut = part.bucket_key, part.policy.limit, False
        if cost == part.cost:
            return False
        is_there = charged.table.shards.get(charged.place) is charged
        shard = charged if is_there else self._records.home_of(charged) or charged
        state = self._records.state(shard, key)
        if cost < part.cost:
            state = limit.give_back(state, now_us, part.cost - cost, part.state, part.now_us)
        else:
            state, is_cut = limit.owe(state, now_us, cost - part.cost)
        self._records.write(shard, key, state, now_us)
        return is_cut

    def _cut(self, shard: Shard, stored: BucketKey, limit: Limit, state: State, now_us: int) -> State:
        """The state of a call that is refused. A refusal writes only a record that was too far ahead."""
        cut = limit.cut(state, now_us)
        if cut is not state:
            self._records.write(shard, stored, cut, now_us)
        return cut

    def reset(self, key: StoreKey, per: str) -> None:
        with self._locked:
            now_us = self._now_us()
            for table, place in zip(self._tables, self._places_of(key, per), strict=True):
                self._records.drop(table, place, now_us)
            for one in distinct(key):
                self._records.drop(self._blocks, stored_key(one), now_us)

    def block(self, key: str, seconds: float) -> None:
        try:
            with self._locked:
                now_us = self._now_us()
                if seconds > 0:
                    self._records.block(self._blocks, key, round(seconds * 1e6), now_us)
                else:
                    self._records.drop(self._blocks, stored_key(key), now_us)
        except Full:
            self._report_full()
            self.block(key, seconds)

    def adopt(
        self, key: CallKey, per: str, states: Sequence[State], blocks: Iterable[tuple[str, tuple[int, int] | None]]
    ) -> None:
        """Take over the state of these buckets from another store with the same clock; None: leave it.

        The states count in microseconds, as those of a limit with one tick for each. `blocks` has each key with its
        block. They stay even if the store is full: the shared bucket of newcomers is not theirs.
        """
        records = [*zip(self._tables, self._places_of(key, per), states, strict=True)]
        records += [(self._blocks, stored_key(one), block) for one, block in blocks]
        with self._locked:
            now_us = self._now_us()
            for table, place, state in records:
                if state is not None:
                    shard = self._records.shard_of(table, place)
                    adopted = table.limit.adopt(state, 1) if table.limit else state
                    self._records.write(shard, place, adopted, now_us)

    def _places_of(self, key: CallKey, per: str) -> list[BucketKey]:
        """The record of each limit."""
        if not isinstance(key, tuple):
            return [record_key(policy.limit.scope, key, per) for policy in self._policies]
        for one in key[len(self._policies) :]:
            stored_key(one)  # raises TypeError for what is no string
        return [record_key(policy.limit.scope, one, per) for policy, one in zip(self._policies, key, strict=False)]

    def _decide(self, key: CallKey, cost: int, per: str, *, charge: bool, reports: bool = False) -> Decision:
        if reports:
            self._report_full()
        places = self._places_of(key, per)
        try:
            with self._locked:
                now_us = self._now_us()
                pairs = zip(self._tables, places, strict=True)
                located = [self._records.locate(table, place, now_us) for table, place in pairs]
                if self._holds:
                    located = [
                        (shard, stored, slots.renewed(policy.limit, shard, stored, state, now_us))
                        for policy, (shard, stored, state) in zip(self._policies, located, strict=True)
                    ]
                after = [
                    policy.limit.take(state, now_us, cost)
                    for policy, (_, _, state) in zip(self._policies, located, strict=True)
                ]
                blocked_us, blocked = self._longest_block(key, now_us) if self._block_shards else (0, "")
                charge_now = charge and not blocked_us and (None not in after or self._only_soft_refuse(after))
                if charge:
                    for (shard, stored, before), state, policy in zip(located, after, self._policies, strict=True):
                        if charge_now and state is not None:
                            self._records.write(shard, stored, state, now_us)
                        elif before is not None:
                            self._cut(shard, stored, policy.limit, before, now_us)
        except Full:
            return self._decide(key, cost, per, charge=charge, reports=True)
        parts = [
            _part(policy, place, state, cost, now_us, charged=charge_now)
            for policy, place, state in zip(self._policies, located, after, strict=True)
        ]
        if blocked_us:
            return Decision.blocked(of_key(parts, key, blocked), blocked_us)
        decision = Decision.combine(parts)
        if self._holds and charge_now:
            slots.hold(decision, self._counts, self._name)
        return decision

    def _only_soft_refuse(self, after: Sequence[State]) -> bool:
        pairs = zip(self._policies, after, strict=True)
        return all(state is not None or not policy.limit.enforce for policy, state in pairs)

    def _has_block(self, key: str) -> bool:
        stored = stored_key(key)
        shard = self._block_shards.get(hash(stored) & self._mask)
        return shard is not None and stored in shard.records

    def _longest_block(self, key: CallKey, now_us: int) -> tuple[int, str]:
        """The microseconds until the last block of one of the keys ends, and that key."""
        if not isinstance(key, tuple):
            return self._blocked_us(key, now_us), key
        return max([(self._blocked_us(one, now_us), one) for one in distinct(key)], key=itemgetter(0))

    def _blocked_us(self, key: str, now_us: int) -> int:
        """Microseconds until the key's block ends. After the clock went back it lasts its own length at most."""
        shard = self._block_shards.get(hash(stored := stored_key(key)) & self._mask)
        block: tuple[int, int] | None = shard.records.get(stored) if shard else None
        if shard is None or block is None:
            return 0
        until_us, length_us = block
        if until_us - now_us > length_us:
            shard.records[stored] = until_us, _ = now_us + length_us, length_us
        return max(0, until_us - now_us)


def _part(
    policy: Policy, place: tuple[Shard, BucketKey, State], after: State, cost: int, now_us: int, *, charged: bool
) -> Decision:
    """The decision of one limit; `after` is the state with the cost charged, None if the limit refuses."""
    shard, stored, state = place
    limit = policy.limit
    if after is None and not limit.enforce:
        return Decision(policy, cost, state, now_us, True, None, stored, over=(limit,))
    if after is None:
        return make_decision(policy, cost, state, now_us, False, None, stored, 0)
    delay_us = limit.delay_us(after, now_us, cost)
    if not charged:
        return make_decision(policy, cost, state, now_us, True, None, stored, delay_us)
    return make_decision(policy, cost, after, now_us, True, shard, stored, delay_us)
