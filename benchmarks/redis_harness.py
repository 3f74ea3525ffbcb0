"""The cost of a check over Redis: many at once, one alone, 5 000 in one moment, a flood of refusals, and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import median
from typing import NamedTuple

from benchmarks.candidates import Allowance, keys_of
from benchmarks.harness import Score, Turn, compete, enter
from benchmarks.redis_server import PrivateServer, Traffic
from benchmarks.shared import ALONE, BURST, FLOOD, MEMORY, TOGETHER, Build, Degraded, Entrant

__all__ = ["AT_ONCE", "IN_A_BURST", "Burst", "Load", "Loads", "alone", "burst", "flood", "memory", "together"]

AT_ONCE = 250
IN_A_BURST = 5_000
KEYS = keys_of(10_000)
ROOMY = Allowance(1_000, 60)  # no check is ever refused
SCANTY = Allowance(5, 86_400)


@dataclass
class Load:
    """The measurements of one candidate by round, beside its score in ns per check."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of this process, per check
    traffic: list[Traffic] = field(default_factory=list)  # per check

    def note(self, times: list[float], cpu_ns: int, traffic: Traffic) -> None:
        times.sort()
        self.p50_ms.append(times[len(times) // 2] * 1e3)
        self.p99_ms.append(times[len(times) * 99 // 100] * 1e3)
        self.cpu_us.append(cpu_ns / len(times) / 1e3)
        self.traffic.append(traffic.per(len(times)))


Loads = Mapping[str, tuple[Score, Load]]


async def _run_rounds(
    builds: Mapping[str, Callable[[], Awaitable[Entrant]]],
    play: Callable[[Entrant, Load], Awaitable[float]],
    rounds: int,
) -> Loads:
    loads, entrants = {name: Load() for name in builds}, list[Entrant]()

    async def seated(name: str) -> Turn:
        entrant = await builds[name]()
        entrants.append(entrant)
        return partial(play, entrant, loads[name])

    try:
        scores = await compete(await enter({name: partial(seated, name) for name in builds}), rounds)
    finally:
        for entrant in entrants:
            await entrant.close()
    return {name: (score, loads[name]) for name, score in scores.items()}


# Many at once, and a flood of refusals


async def together(server: PrivateServer, rounds: int, seconds: float) -> Loads:
    """250 tasks that check one key after the other, of 10 000 keys; with a connection each, where wanted."""
    server.forget()
    builds = {name: partial(build, server.url, ROOMY, AT_ONCE) for name, build in TOGETHER.items()}
    return await _run_rounds(builds, partial(_crowd, server, KEYS, seconds, True), rounds)


async def flood(server: PrivateServer, rounds: int, seconds: float) -> Loads:
    """250 tasks that check one key that is used up."""
    server.forget()
    builds = {name: partial(_used_up, build, server.url) for name, build in FLOOD.items()}
    return await _run_rounds(builds, partial(_crowd, server, KEYS[:1], seconds, False), rounds)


async def _used_up(build: Build, url: str) -> Entrant:
    entrant = await build(url, SCANTY, AT_ONCE)
    while await entrant.check(KEYS[0]):
        pass

    async def check(key: str) -> bool:
        await asyncio.sleep(0)  # as between requests: a task that is refused at once must not block the loop
        return await entrant.check(key)

    return entrant._replace(check=check)


async def _crowd(
    server: PrivateServer, keys: Sequence[str], seconds: float, expected: bool, entrant: Entrant, load: Load
) -> float:
    """Run all tasks for `seconds`. Returns wall-clock ns per check."""
    times, check, clock = list[float](), entrant.check, time.perf_counter

    async def check_until_the_end(place: int) -> None:
        while (started := clock()) < until:
            place = (place + 1) % len(keys)
            if await check(keys[place]) is not expected:
                raise RuntimeError(f"a check was {'refused' if expected else 'allowed'}")
            times.append(clock() - started)

    before, cpu_ns, started_at = server.traffic(), time.process_time_ns(), clock()
    until = started_at + seconds
    await asyncio.gather(*(check_until_the_end(number * len(keys) // AT_ONCE) for number in range(AT_ONCE)))
    needed, cpu_ns = clock() - started_at, time.process_time_ns() - cpu_ns
    load.note(times, cpu_ns, server.since(before))
    return needed / len(times) * 1e9


# One alone


async def alone(server: PrivateServer, rounds: int, calls: int) -> Loads:
    """One check after the other; many short turns, so that each ratio is of two moments close to each other."""
    server.forget()
    builds = {name: partial(build, server.url, ROOMY, None) for name, build in ALONE.items()}
    place = count()

    async def play(entrant: Entrant, load: Load) -> float:
        if not load.traffic:  # the round that warms up
            await _check_in_turn(entrant, KEYS[:500])
            before, cpu_ns = server.traffic(), time.process_time_ns()
            times = await _check_in_turn(entrant, KEYS[:1_000])
            load.note(times, time.process_time_ns() - cpu_ns, server.since(before))
        return median(await _check_in_turn(entrant, [KEYS[next(place) % len(KEYS)] for _ in range(calls)])) * 1e9

    return await _run_rounds(builds, play, rounds)


async def _check_in_turn(entrant: Entrant, keys: Sequence[str]) -> list[float]:
    times, check, clock = list[float](), entrant.check, time.perf_counter
    for key in keys:
        started = clock()
        await check(key)
        times.append(clock() - started)
    return times


# 5 000 in one moment


class Burst(NamedTuple):
    raised: int
    degraded: int  # answered without Redis
    connections: int
    ms: float  # until the last was answered


async def burst(server: PrivateServer, repeats: int) -> dict[str, list[Burst] | str]:
    """5 000 checks in one moment: each candidate new, as its defaults have it, on a server that does not know it."""
    results: dict[str, list[Burst] | str] = {}
    for name, build in BURST.items():
        try:
            results[name] = [await _burst(server, build) for _ in range(repeats)]
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    return results


async def _burst(server: PrivateServer, build: Build) -> Burst:
    server.forget()
    before = server.connections()
    entrant = await build(server.url, ROOMY, None)
    started_at = time.perf_counter()
    answers = await asyncio.gather(*map(entrant.check, keys_of(IN_A_BURST)), return_exceptions=True)
    ms = (time.perf_counter() - started_at) * 1e3
    connections = server.connections() - before
    await entrant.close()
    degraded = sum(isinstance(answer, Degraded) for answer in answers)
    return Burst(sum(answer is not True for answer in answers) - degraded, degraded, connections, ms)


# Memory


async def memory(server: PrivateServer, number: int) -> dict[str, float | str]:
    """Bytes of the server's memory per key, of "100/day", after so many checks in all."""
    results: dict[str, float | str] = {}
    for name, (build, times) in MEMORY.items():
        try:
            results[name] = await _bytes_per_key(server, build, number, times)
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    return results


async def _bytes_per_key(server: PrivateServer, build: Build, number: int, times: int) -> float:
    server.forget()
    before = await server.settled_memory()
    number //= times
    entrant = await build(server.url, Allowance(100, 86_400), 50)
    try:
        await _fill(entrant, keys_of(number), times)
    finally:
        await entrant.close()
    return (await server.settled_memory() - before) / number


async def _fill(entrant: Entrant, keys: Sequence[str], times: int) -> None:
    waiting = iter(keys)

    async def fill() -> None:
        for key in waiting:
            for _ in range(times):
                if not await entrant.check(key):
                    raise RuntimeError("a check was refused")

    await asyncio.gather(*(fill() for _ in range(50)))
