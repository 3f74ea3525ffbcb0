"""The Redis part of the page: the measurements on one private server, as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks import redis_harness
from benchmarks.redis_harness import AT_ONCE, IN_A_BURST, Burst, Load, Loads
from benchmarks.redis_server import PrivateServer, private_server
from benchmarks.report import spaced, table
from benchmarks.shared import ALONE, FLOOR, GLIDE, OURS, OWN_EVALSHA, PEERS

__all__ = ["sections"]


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    with private_server() as server:
        yield _together(server, quick)
        yield _alone(server, quick)
        yield _burst(server, quick)
        yield _flood(server, quick)
        yield _memory(server, quick)


def _together(server: PrivateServer, quick: bool) -> tuple[str, str, str]:
    loads = asyncio.run(redis_harness.together(server, 3 if quick else 15, 0.4 if quick else 1.0))
    text = (
        f"Redis {server.version} on 127.0.0.1, nothing saved. {AT_ONCE} tasks check without a pause, 10 000 keys, all "
        f"allowed. Time is the wall's, since it is waited for. Peers and redis-py have a BlockingConnectionPool of "
        f"{AT_ONCE} connections: with their default one, of 100, most of these checks raise, and with fewer "
        "connections than tasks some tasks wait for as long as others ask; valkey-glide has one connection for all. "
        "The floors are batchers of 15 lines over redis-py's public API, whose script is a minimal GCRA that answers "
        "yes or no; of two calls each takes half of the tasks. Processor time is what a check takes of both processes; "
        "calls, reads and bytes are Redis's, per check."
    )
    head = ["", "checks/s", "ours is faster by", "p50, ms", "p99, ms", "ours is shorter by"]
    head += ["processor here, µs", "in Redis, µs", "calls", "reads", "bytes in", "bytes out"]
    rows = [[name, *_load_cells(loads, name)] for name in loads]
    return f"Over Redis: {AT_ONCE} checks at once", text, f"{table(head, rows)}\n\n{_summary(loads)}"


def _load_cells(loads: Loads, name: str) -> list[str]:
    score, load = loads[name]
    ours_score, ours_load = loads[OURS]
    if score.failure or ours_score.failure:
        return [f"did not run: {score.failure or ours_score.failure}", *["-"] * 10]
    return [
        spaced(1e9 / score.ns),
        f"{score.times(ours_score):.1f}",
        f"{_middle(load.p50_ms):.1f}",
        f"{_middle(load.p99_ms):.1f}",
        f"{_ratio(load.p99_ms, ours_load.p99_ms):.1f}",
        *_costs(load),
    ]


def _costs(load: Load) -> list[str]:
    def each(name: str) -> float:
        return _middle([getattr(traffic, name) for traffic in load.traffic])

    here, there = f"{_middle(load.cpu_us):.1f}", f"{each('cpu_us'):.1f}"
    return [
        here,
        there,
        f"{each('calls'):.3f}",
        f"{each('reads'):.3f}",
        f"{each('bytes_in'):.0f}",
        f"{each('bytes_out'):.0f}",
    ]


def _summary(loads: Loads) -> str:
    ran = [name for name in PEERS if not loads[name][0].failure]
    ours_score, ours_load = loads[OURS]
    floor = loads[FLOOR][0]
    if not ran or ours_score.failure or floor.failure:
        return "No summary: somebody did not run."
    fastest = min(ran, key=lambda name: loads[name][0].ns)
    p99s = {name: _ratio(loads[name][1].p99_ms, ours_load.p99_ms) for name in ran}
    best = min(p99s, key=lambda name: p99s[name])
    others = [p99s[name] for name in ran if name != GLIDE]
    return (
        f"Ours reaches {floor.times(ours_score):.2f} of the floor's checks per second (aim: 0.8 at least), and "
        f"{loads[fastest][0].times(ours_score):.1f} times those of the fastest peer ({fastest}). The shortest p99 of a "
        f"peer ({best}) is {p99s[best]:.1f} times ours (aim: 8 at least), that of the peers over redis-py "
        f"{min(others, default=0.0):.1f} times."
    )


def _alone(server: PrivateServer, quick: bool) -> tuple[str, str, str]:
    loads = asyncio.run(redis_harness.alone(server, 60 if quick else 400, 25))
    text = (
        "One task; turns of 25 checks, the median of each turn and the median over the turns. Everybody has the "
        "connections of its own default."
    )
    rows = [[name, *_lone_cells(loads, name)] for name in ALONE]
    head = ["", "a check, µs", "times redis-py's own EVALSHA", "processor here, µs", "in Redis, µs", "calls", "reads"]
    summary = (
        f"A check of ours takes {_lone_cells(loads, OURS)[1]} times as long as redis-py's own (aim: 1.05 at most)."
    )
    return "Over Redis: one check alone", text, f"{table([*head, 'bytes in', 'bytes out'], rows)}\n\n{summary}"


def _lone_cells(loads: Loads, name: str) -> list[str]:
    score, load = loads[name]
    own = loads[OWN_EVALSHA][0]
    if score.failure or own.failure:
        return [f"did not run: {score.failure or own.failure}", *["-"] * 7]
    return [f"{score.ns / 1e3:.0f}", f"{score.times(own):.2f}", *_costs(load)]


def _burst(server: PrivateServer, quick: bool) -> tuple[str, str, str]:
    results = asyncio.run(redis_harness.burst(server, 2 if quick else 5))
    text = (
        f"{spaced(IN_A_BURST)} checks in one moment, each of another key, by a limiter just built on a server that has "
        "not seen its script; everybody as by default. Medians of the repeats; the worst of them in brackets."
    )
    head = ["", "raised", "answered without Redis", "connections", "until the last answer, ms"]
    return f"Over Redis: {spaced(IN_A_BURST)} checks in one moment", text, table(head, _burst_rows(results))


def _burst_rows(results: Mapping[str, list[Burst] | str]) -> Iterator[list[str]]:
    for name, bursts in results.items():
        if isinstance(bursts, str):
            yield [name, f"did not run: {bursts}", "-", "-", "-"]
        else:
            columns = list(zip(*bursts, strict=True))
            yield [name, *(f"{median(column):.0f} ({max(column):.0f})" for column in columns)]


def _flood(server: PrivateServer, quick: bool) -> tuple[str, str, str]:
    loads = asyncio.run(redis_harness.flood(server, 3 if quick else 10, 0.4 if quick else 1.0))
    text = (
        f"{AT_ONCE} tasks check one key that is used up, each check in its own turn of the loop. Commands are those "
        "inside scripts too."
    )
    head = ["", "checks/s", "ours is faster by", "commands in Redis per check", "processor here, µs", "in Redis, µs"]
    rows = [[name, *_flood_cells(loads, name)] for name in loads]
    return "Over Redis: a flood of refusals", text, table(head, rows)


def _flood_cells(loads: Loads, name: str) -> list[str]:
    score, load = loads[name]
    ours = loads[OURS][0]
    if score.failure or ours.failure:
        return [f"did not run: {score.failure or ours.failure}", *["-"] * 4]
    commands = _middle([traffic.commands for traffic in load.traffic])
    return [spaced(1e9 / score.ns), f"{score.times(ours):.1f}", f"{commands:.4f}", *_costs(load)[:2]]


def _memory(server: PrivateServer, quick: bool) -> tuple[str, str, str]:
    number = 20_000 if quick else 100_000
    used = asyncio.run(redis_harness.memory(server, number))
    text = f'"100/day", keys such as user:12345: {spaced(number)} of one check, or {spaced(number / 10)} of ten checks.'
    rows = [[name, size if isinstance(size, str) else f"{size:.0f}"] for name, size in used.items()]
    return "Over Redis: memory per key", text, table(["", "bytes in Redis"], rows)


def _middle(values: list[float]) -> float:
    return median(values[1:] or values)  # the first round only warms up


def _ratio(values: list[float], others: list[float]) -> float:
    return median(mine / theirs for mine, theirs in zip(values[1:], others[1:], strict=True))
