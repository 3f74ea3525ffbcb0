"""The slots of calls that go on, in a store in memory. The functions but `hold` are called with its lock held."""

from __future__ import annotations

from asgi_ratelimit.decision import BucketKey, Decision
from asgi_ratelimit.limits import Concurrency, Limit, State
from asgi_ratelimit.memory.records import Records, Shard
from asgi_ratelimit.slot import Slot, SlotCounts

__all__ = ["drop", "free", "hold", "renewed"]


def hold(decision: Decision, counts: SlotCounts | None, limiter: str) -> None:
    """Make the slots that a decision has taken the receipts of their charges. A call is counted once."""
    for part in decision.parts:
        shard = part.take_charge()
        if isinstance(shard, Shard) and shard.table.holders is not None:
            slot = Slot(shard, part.state[-2])
            shard.table.holders.add(part.bucket_key, slot)
            part.hold(slot)
            if counts is not None and counts.is_heard:
                slot.count_in(counts, limiter)
                counts = None
        else:
            part.hold(shard)


def renewed(limit: Limit, shard: Shard, key: BucketKey, state: State, now_us: int) -> State:
    """The state after the expired leases of all that are still held have begun anew."""
    holders = shard.table.holders
    if state is None or holders is None or not isinstance(limit, Concurrency):
        return state
    living = holders.among(key, limit.expired(state, now_us))
    return limit.renew(state, now_us, living) if living else state


def free(records: Records, decision: Decision, now_us: int) -> None:
    """Release the slots of a decision, once."""
    for part in decision.parts:
        slot = part.slot
        home = records.home_of(slot.home) if slot and isinstance(slot.home, Shard) else None
        if slot is not None and home is not None:
            part.take_charge()
            slot.end()
            drop(records, part.policy.limit, home, part.bucket_key, slot.id, now_us)


def drop(records: Records, limit: Limit, shard: Shard, key: BucketKey, slot_id: int, now_us: int) -> None:
    """Drop a slot from its record, if it is still there."""
    state = renewed(limit, shard, key, records.state(shard, key), now_us)
    if isinstance(limit, Concurrency) and state is not None:
        records.write(shard, key, limit.without(state, now_us, slot_id), now_us)
