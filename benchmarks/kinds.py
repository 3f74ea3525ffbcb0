"""The latency of one decision for each kind of limit, while thousands of callers take turns on one event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.candidates import KINDS, Allowance, Take, keys_of

__all__ = ["CALLERS", "Latency", "latencies"]

CALLERS = 5_000
ALLOWANCE = Allowance(100, 60)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one call, in ns of wall time."""

    p50: float
    p99: float


async def latencies(rounds: int, turns: int) -> dict[str, Latency]:
    """Medians over the rounds. In each of them all callers make so many calls with every kind, by turns."""
    results: dict[str, list[Latency]] = {name: [] for name in KINDS}
    for number in range(-1, rounds):  # the first round only warms up
        for name, make in KINDS.items():
            latency = await _latency(make(ALLOWANCE), turns)
            results[name] += [latency] if number >= 0 else []
    return {
        name: Latency(median(one.p50 for one in found), median(one.p99 for one in found))
        for name, found in results.items()
    }


async def _latency(take: Take, turns: int) -> Latency:
    times: list[int] = []
    keys = keys_of(CALLERS)
    for key in keys:
        await take(key)
    gc.collect()
    gc.freeze()
    await asyncio.gather(*(_call(take, key, turns, times) for key in keys))
    gc.unfreeze()
    cuts = quantiles(times, n=100)
    return Latency(cuts[49], cuts[98])


async def _call(take: Take, key: str, turns: int, times: list[int]) -> None:
    now = time.perf_counter_ns
    for _ in range(turns):
        await asyncio.sleep(0)
        started = now()
        await take(key)
        times.append(now() - started)
