"""Escalation: a key that goes on failing or hammering is blocked for longer each time, in all processes alike.

Everything is counted by limits in the store. A key has *rounds*: each block ends one, and the next one counts anew.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, SlidingWindow
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Store

__all__ = ["Escalate", "Escalation", "Round", "Strikes", "check_blocks", "check_seconds"]

DAY_S: Final = 86_400.0
_MOST_STRIKES: Final = 10_000  # that are remembered of a key
_MOST_REFUSALS: Final = 10_000  # so that the record of a key stays small
_CLAIM = FixedWindow("1/10s", name="claim")  # of those that see the end of a round, one begins the block

Block = Callable[[str, float], Awaitable[None]]  # as Limiter.block


@dataclass(frozen=True, init=False)
class Escalate:
    """After so many refusals within so many seconds a key is blocked, each time for longer.

    after: the number of refusals
    within: the seconds in which they come
    block: the seconds of the first block, of the second, and so on; the last one repeats
    memory: the seconds for which a block is remembered, a day unless given

    Raises ValueError if a value is out of range.
    """

    after: int
    within: float
    block: tuple[float, ...]
    memory: float

    def __init__(self, *, after: int, within: float, block: Sequence[float], memory: float = DAY_S) -> None:
        if isinstance(after, bool) or not isinstance(after, int) or not 1 <= after <= _MOST_REFUSALS:
            raise ValueError(f"after is a number of refusals from 1 to {_MOST_REFUSALS}, e.g. after=20, not {after!r}")
        blocks = check_blocks(block, memory)
        if not blocks:
            raise ValueError("block has the seconds of at least one block, e.g. block=(60, 600)")
        values = {"after": after, "within": check_seconds("within", within, 60), "block": blocks, "memory": memory}
        for name, value in values.items():
            object.__setattr__(self, name, value)


class Round(NamedTuple):
    """The time of a key since its last block."""

    level: int  # how many blocks are remembered
    id: str  # the same until the next block begins; "" if none is remembered


class Strikes:
    """The blocks of the keys of one limiter that are remembered, and how the next one begins."""

    def __init__(self, blocks: Sequence[float], memory: float, *, store: Store, name: str) -> None:
        self._blocks = tuple(blocks)
        # A block starts when the one before has ended, so there are no more than this in the time of the memory.
        most = min(_MOST_STRIKES, len(blocks) + 1 + math.ceil(memory / blocks[-1]))
        self._strikes = Limiter(SlidingWindow(Rate(most, round(memory * 1e6))), store=store, name=f"{name}:blocks")
        self._claims = Limiter(_CLAIM, store=store, name=f"{name}:claims")

    async def round_of(self, key: str) -> Round:
        """The round in which the key is."""
        blocks = await self._strikes.peek(key)
        level = blocks.limit - blocks.remaining
        # The moment at which the last block is forgotten is exact, and the same in every process.
        return Round(level, str(blocks.now_us + blocks.reset_us) if level else "")

    async def strike(self, key: str, ended: Round, block: Block) -> float:
        """End the round: block the key, and count the block. Returns its seconds.

        Any number of callers may say that a round has ended. It ends once: the others get 0.0.
        """
        claim = await self._claims.check(key, 1, ended.id)
        if not claim.allowed or await self.round_of(key) != ended:
            return 0.0
        seconds = self._blocks[min(ended.level, len(self._blocks) - 1)]
        with suppress(StoreUnavailable):  # in an outage it is in force in this process
            await block(key, seconds)  # first, so that no call finds the next round without its block
        await self._strikes.check(key)
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
        rate = Rate(escalate.after, round(escalate.within * 1e6))
        self._refusals = Limiter(SlidingWindow(rate), store=store, name=f"{name}:refusals")
        self._strikes = Strikes(escalate.block, escalate.memory, store=store, name=name)

    async def refused(self, key: str, refusal: Decision, block: Block) -> float:
        """Count a refusal of a key. Returns the seconds of the block that begins with it, 0.0 if none does.

        `block` is that of the limiter which has refused. Calls during a block are not counted.
        """
        if refusal.reason == "blocked":
            return 0.0
        present = await self._strikes.round_of(key)
        counted = await self._refusals.check(key, 1, present.id)
        if counted.reason in ("blocked", "cached") or (counted.allowed and counted.remaining):
            return 0.0
        return await self._strikes.strike(key, present, self._block_both(block))

    async def forget(self, key: str) -> None:
        """Forget the refusals and blocks of a key. A block that goes on is lifted by the limiter itself."""
        await self._strikes.forget(key)
        await self._refusals.reset(key)

    def _block_both(self, block: Block) -> Block:
        async def block_both(key: str, seconds: float) -> None:
            # A refusal that is remembered elsewhere does not say that the key is blocked, but this count knows.
            with suppress(StoreUnavailable):
                await self._refusals.block(key, seconds)
            await block(key, seconds)

        return block_both


def check_blocks(block: object, memory: object) -> tuple[float, ...]:
    """The seconds of the blocks. Raises ValueError if they cannot be used."""
    example = "e.g. block=(60, 300, 1800)"
    if isinstance(block, (str, bytes)) or not isinstance(block, Sequence):
        raise ValueError(f"block is a list of seconds, {example}, not {block!r:.80}")
    blocks = tuple([check_seconds("each part of block", seconds, 60) for seconds in block])
    if list(blocks) != sorted(blocks):
        raise ValueError(f"each block is at least as long as the one before, {example}, not {blocks!r:.80}")
    if check_seconds("memory", memory, "86_400") < max(blocks, default=0):
        raise ValueError(f"memory must be at least as long as the longest block, {blocks[-1]} s, not {memory!r}")
    return blocks


def check_seconds(option: str, seconds: object, example: object) -> float:
    """Seconds from a millisecond to ten years. Raises ValueError if they are not."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.001 <= seconds <= 3650 * DAY_S:
        raise ValueError(f"{option} is a number of seconds up to ten years, e.g. {example}, not {seconds!r:.80}")
    return seconds
