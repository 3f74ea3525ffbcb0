"""The cost of one decision in memory, and its growth with the number of keys."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from benchmarks.candidates import CANDIDATES, FLOOR, OURS, Allowance, BareGCRA, Drive, keys_of
from benchmarks.harness import Score, Turn, compete, enter, ns_per_call

__all__ = ["SIZES", "decisions", "growth", "worst_inserts"]

KEYS = 100_000
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CASES = {  # name: the limit, the checks of every key that come first, whether the last check is then allowed
    "spread": (Allowance(100, 60), 1, True),
    "hot": (Allowance(60_000_000, 60), 1, True),
    "refused": (Allowance(1, 3600), 1, False),
}


async def decisions(rounds: int, calls: int) -> dict[str, dict[str, Score]]:
    """The time per check of every candidate in each case, with 100 000 keys in its store."""
    return {case: await _decisions(case, rounds, calls) for case in CASES}


async def _decisions(case: str, rounds: int, calls: int) -> dict[str, Score]:
    allowance, before, allowed = CASES[case]
    keys, dice = keys_of(KEYS), random.Random(1)

    async def build(make: Callable[[Allowance], Awaitable[Drive]]) -> Turn:
        drive = await make(allowance)
        for _ in range(before):
            await drive(keys)

        async def turn() -> float:
            checked = [keys[0]] * calls if case == "hot" else dice.choices(keys, k=calls)
            needed = await ns_per_call(drive(checked), calls)
            if await drive(checked[-1:]) is not allowed:
                raise RuntimeError(f"the last check was {'refused' if allowed else 'allowed'}")
            return needed

        return turn

    return await compete(await enter({name: partial(build, make) for name, make in CANDIDATES.items()}), rounds)


async def growth(rounds: int, calls: int, sizes: Sequence[int]) -> dict[str, dict[int, Score]]:
    """The time of a check by the number of keys in the store: ours and the bare dict, all sizes in turn."""
    keys, dice = keys_of(max(sizes)), random.Random(2)

    async def build(name: str, size: int) -> Turn:
        drive = await CANDIDATES[name](Allowance(100, 3600))
        present = keys[:size]
        await drive(present)

        async def turn() -> float:
            return await ns_per_call(drive(dice.choices(present, k=calls)), calls)

        return turn

    builders = {f"{name} {size}": partial(build, name, size) for name in (FLOOR, OURS) for size in sizes}
    scores = await compete(await enter(builders), rounds)
    return {name: {size: scores[f"{name} {size}"] for size in sizes} for name in (FLOOR, OURS)}


def worst_inserts(number: int, fills: int) -> dict[tuple[str, bool], float]:
    """The slowest of `number` first checks in a row, in ms, by (candidate, whether the collector is on).

    Time is this thread's own, so that other programs do not count; the best of several fills, for the same reason.
    """
    keys, worst = keys_of(number), dict[tuple[str, bool], float]()
    for _ in range(fills):
        for name, collecting in ((name, on) for name in (FLOOR, OURS) for on in (True, False)):
            gc.collect()
            if not collecting:
                gc.disable()
            slowest_ms = _slowest(_insert(name), keys) / 1e6
            gc.enable()
            worst[name, collecting] = min(slowest_ms, worst.get((name, collecting), slowest_ms))
    return worst


def _insert(name: str) -> Callable[[str], Awaitable[object]]:
    if name == FLOOR:
        return BareGCRA(Allowance(100, 3600)).take
    from asgi_ratelimit import Limiter

    return Limiter("100/hour").try_acquire


def _slowest(insert: Callable[[str], Awaitable[object]], keys: Sequence[str]) -> int:
    clock, slowest = time.thread_time_ns, 0
    for key in keys:
        started = clock()
        try:
            insert(key).__await__().send(None)  # neither ever waits
        except StopIteration:
            slowest = max(slowest, clock() - started)
    return slowest
