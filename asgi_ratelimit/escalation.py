"""Escalation: a key that goes on failing or hammering is blocked for longer each time, in all processes alike.

Everything is counted by limits in the store. A key has *rounds*: each block ends one, and the next one counts anew.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, Limit, SlidingWindow
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Store, done

__all__ = [
    "FIRST_ROUND", "Block", "Escalate", "Escalation", "Kept", "Round", "Strikes", "block_of", "check_blocks",
    "check_escalate", "check_seconds", "forgive", "memory_of_blocks",
]  # fmt: skip

DAY_S: Final = 86_400.0
_MOST_STRIKES: Final = 10_000  # that are remembered of a key
_MOST_REFUSALS: Final = 10_000  # so that the record of a key stays small
_GRACE_S: Final = 2.0  # after a key is forgiven, in which no refusal is counted
_CLAIM = FixedWindow("1/10s", name="claim")  # of those that see the end of a round, one begins the block

Block = Callable[[str, float], Awaitable[None]]  # as Limiter.block


@dataclass(frozen=True, init=False)
class Escalate:
    """After so many refusals within so many seconds a key is blocked, each time for longer.

    `escalate=Escalate(after=20, within=60, block=(60, 600))` is an option of the doors.

    after: the number of refusals
    within: the seconds in which they come
    block: the seconds of the first block, of the second, and so on; the last one repeats
    memory: the seconds for which a block is remembered: by default a day, or the longest of the other times

    Raises ValueError if a value is out of range.
    """

    after: int
    within: float
    block: tuple[float, ...]
    memory: float

    def __init__(self, *, after: int, within: float, block: Sequence[float], memory: float | None = None) -> None:
        if isinstance(after, bool) or not isinstance(after, int) or not 1 <= after <= _MOST_REFUSALS:
            raise ValueError(f"after is a number of refusals from 1 to {_MOST_REFUSALS}, e.g. after=20, not {after!r}")
        blocks = check_blocks(block)
        if not blocks:
            raise ValueError("block has the seconds of at least one block, e.g. block=(60, 600)")
        least = {"the longest block": blocks[-1], "within": check_seconds("within", within, 60)}
        remembered = memory_of_blocks(memory, least)
        values = {"after": after, "within": within, "block": blocks, "memory": remembered}
        for name, value in values.items():
            object.__setattr__(self, name, value)


class Round(NamedTuple):
    """The time of a key since its last block."""

    level: int  # how many blocks are remembered
    id: str  # the same until the next block begins; "" if none is remembered


FIRST_ROUND: Final = Round(0, "")


class Kept(SlidingWindow):
    """A count that keeps its records when its numbers change, so that they can be dropped without knowing these."""

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        return ("kept",)


class _Count:
    """A limit in a store under a name of its own. It is none of the limiters that an operator sees."""

    def __init__(self, limit: Limit, store: Store, name: str) -> None:
        self._buckets = store.open(name, (Policy(name, limit),))

    async def charge(self, key: str, cost: int = 1, per: str = "") -> Decision:
        pending = self._buckets.decide(key, cost, per, True)  # a remembered refusal may be older than a reset
        return pending if isinstance(pending, Decision) else await pending

    async def peek(self, key: str) -> Decision:
        pending = self._buckets.peek(key, 1, "")
        return pending if isinstance(pending, Decision) else await pending

    async def reset(self, key: str) -> None:
        await done(self._buckets.reset(key, ""))

    async def block(self, key: str, seconds: float) -> None:
        await done(self._buckets.block(key, seconds))


class Strikes:
    """The blocks of the keys of one limiter that are remembered, and how the next one begins."""

    def __init__(self, blocks: Sequence[float], memory: float, *, store: Store, name: str) -> None:
        self._blocks, self._is_shared = tuple(blocks), store.shared
        # A block starts when the one before has ended, so there are no more than this in the time of the memory.
        most = min(_MOST_STRIKES, len(blocks) + 1 + math.ceil(memory / blocks[-1]))
        self._strikes = _Count(Kept(Rate(most, round(memory * 1e6))), store, f"{name}:blocks")
        self._claims = _Count(_CLAIM, store, f"{name}:claims")

    async def round_of(self, key: str) -> Round:
        """The round in which the key is."""
        blocks = await self._strikes.peek(key)
        level = blocks.limit - blocks.remaining
        # The moment at which the last block is forgotten is exact, and the same in every process.
        return Round(level, str(blocks.now_us + blocks.reset_us)) if level else FIRST_ROUND

    async def strike(self, key: str, ended: Round, block: Block) -> float:
        """End the round: block the key, and count the block. Returns its seconds.

        Any number of callers may say that a round has ended. It ends once: the others get 0.0.
        """
        claim = await self._claims.charge(key, 1, ended.id)
        if not claim.allowed or await self.round_of(key) != ended:
            return 0.0
        seconds = self._blocks[min(ended.level, len(self._blocks) - 1)]
        try:
            await block(key, seconds)  # first, so that no call finds the next round without its block
        except StoreUnavailable:
            if not self._is_shared:  # it has no room for a block
                return 0.0
            # In an outage it is in force in this process.
        await self._strikes.charge(key)
        return seconds

    async def forget(self, key: str) -> None:
        """Begin at the first block again."""
        await self._claims.reset(key)
        await self._strikes.reset(key)


class Escalation:
    """Counts the refusals of the keys of one limiter, and blocks a key that gets too many.

    All processes that use the store count together.
    """

    def __init__(self, escalate: Escalate, *, store: Store, name: str) -> None:
        self._most, self._memory, self._is_shared = escalate.after, escalate.memory, store.shared
        limit = Kept(Rate(escalate.after, round(escalate.within * 1e6)))
        # Most keys were never blocked. They take one step: the first count refuses to count any other key.
        self._first = _Count(limit, store, f"{name}:refusals")
        self._later = _Count(limit, store, f"{name}:more-refusals")  # by round
        self._strikes = Strikes(escalate.block, escalate.memory, store=store, name=name)

    async def refused(self, key: str, block: Block, number: int = 1) -> float:
        """Count refusals of a key. Returns the seconds of the block that begins with them, 0.0 if none does.

        `block` is as that of the limiter which has refused. Refusals during a block are not counted.
        """
        present, counted = await self._counted(key, min(number, self._most))
        if counted.reason == "blocked" or (counted.allowed and counted.remaining):
            return 0.0
        return await self._strikes.strike(key, present, self._block_all(block))

    async def forget(self, key: str) -> None:
        """Forget the refusals and blocks of a key. A block that goes on is lifted by the limiter itself."""
        await self._strikes.forget(key)
        for count in (self._first, self._later):
            await count.reset(key)
            if self._is_shared:  # other processes go on refusing for a second, by what they remember
                await count.block(key, _GRACE_S)

    async def _counted(self, key: str, number: int) -> tuple[Round, Decision]:
        """The round in which the key is, and its count."""
        counted = await self._first.charge(key, number)
        if counted.reason != "blocked":
            return FIRST_ROUND, counted
        present = await self._strikes.round_of(key)
        return present, await self._later.charge(key, number, present.id)

    def _block_all(self, block: Block) -> Block:
        async def block_all(key: str, seconds: float) -> None:
            # A refusal that is remembered elsewhere does not say that the key is blocked, but these counts know.
            for count, length in ((self._later, seconds), (self._first, self._memory)):
                with suppress(StoreUnavailable):
                    await count.block(key, length)
            await block(key, seconds)

        return block_all


def block_of(limiter: Limiter) -> Block:
    """The block of a limiter, unless it has a longer one: an operator's, for example."""

    async def block(key: str, seconds: float) -> None:
        present = await limiter.peek(key)
        if present.reason != "blocked" or present.retry_after < seconds:
            await limiter.block(key, seconds)

    return block


async def forgive(key: str, *, store: Store, name: str) -> None:
    """Forget the refusals and blocks of a key of the limiter called `name`, if it escalates, whatever its numbers."""
    await Escalation(Escalate(after=1, within=1, block=(1,)), store=store, name=name).forget(key)


def check_escalate(escalate: object) -> None:
    """Raises ValueError if it is neither an Escalate nor None."""
    if escalate is not None and not isinstance(escalate, Escalate):
        example = "escalate=Escalate(after=20, within=60, block=(60, 600))"
        raise ValueError(f"escalate is an Escalate or None, e.g. {example}, not {escalate!r:.80}")


def check_blocks(block: object) -> tuple[float, ...]:
    """The seconds of the blocks. Raises ValueError if they cannot be used."""
    example = "e.g. block=(60, 300, 1800)"
    if isinstance(block, (str, bytes)) or not isinstance(block, Sequence):
        raise ValueError(f"block is a list of seconds, {example}, not {block!r:.80}")
    blocks = tuple([check_seconds("each part of block", seconds, 60) for seconds in block])
    if list(blocks) != sorted(blocks):
        raise ValueError(f"each block is at least as long as the one before, {example}, not {blocks!r:.80}")
    return blocks


def memory_of_blocks(memory: float | None, least: Mapping[str, float]) -> float:
    """The seconds for which blocks are remembered; of None a day, or longer where that is needed.

    Raises ValueError if it is shorter than one of `least`, which have names.
    """
    longest = max(least, key=least.__getitem__)
    if memory is None:
        return max(DAY_S, least[longest])
    if check_seconds("memory", memory, "86_400") < least[longest]:
        right = f"e.g. memory={math.ceil(least[longest])}"
        raise ValueError(f"memory must be at least as long as {longest}, {right}, not {memory!r}")
    return memory


def check_seconds(option: str, seconds: object, example: object) -> float:
    """Seconds from a millisecond to ten years. Raises ValueError if they are not."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.001 <= seconds <= 3650 * DAY_S:
        raise ValueError(f"{option} is a number of seconds up to ten years, e.g. {example}, not {seconds!r:.80}")
    return seconds
