"""The measurements, as one Markdown page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version

from benchmarks.harness import Score
from benchmarks.kinds import Latency

__all__ = ["added", "growth", "imports", "inserts", "kinds", "observers", "page", "per_check", "spaced", "table"]

PACKAGES = (
    "starlette",
    "fastapi",
    "token-bucket",
    "traffik",
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "asgi-ratelimit",
    "slowapi",
    "fastapi-limiter",
    "redis",
    "hiredis",
    "valkey-glide",
    "httpx",
    "uvicorn",
    "discord.py",
    "hikari",
)


def page(sections: Iterable[tuple[str, str, str]], command: str) -> str:
    """The page of all sections: (title, description, table)."""
    parts = ["# Benchmarks", _machine(command)]
    for title, text, rows in sections:
        parts += [f"## {title}", text, rows]
    return "\n\n".join(parts) + "\n"


def _machine(command: str) -> str:
    return (
        f"Written by `{command}` on {date.today().isoformat()}: {os.cpu_count()} processors ({platform.machine()}), "
        f"{platform.system()}, {platform.python_implementation()} {platform.python_version()}, "
        f"{', '.join(f'{name} {_version(name)}' for name in PACKAGES)}.\n\n"
        "In every round each candidate takes one turn; the figures are medians over the rounds, the ratios medians of "
        "the ratios within a round. Time is the process's own processor time unless it says otherwise. Absolute "
        "figures move from machine to machine and from run to run; the ratios are what counts."
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def per_check(cases: Mapping[str, Mapping[str, Score]], memory: Mapping[str, float | str], floor: str) -> str:
    """One row per candidate: µs and multiple of the floor for each case, checks/s, memory."""
    first = next(iter(cases.values()))
    header = ["", *[part for case in cases for part in (f"{case}, µs", "times the floor")], "checks/s", "MB"]
    rows = []
    for name in first:
        cells = [cell for scores in cases.values() for cell in _time_and_ratio(scores[name], scores[floor])]
        speed = "-" if first[name].failure else spaced(1e9 / first[name].ns)
        used = memory.get(name, "not measured")
        size = f"{used:.1f}" if isinstance(used, float) else used
        rows.append([name, *cells, speed, size])
    return table(header, rows)


def _time_and_ratio(score: Score, floor: Score) -> tuple[str, str]:
    if score.failure or floor.failure:
        return f"did not run: {score.failure or floor.failure}", "-"
    return f"{score.ns / 1e3:.2f}", f"{score.times(floor):.1f}"


def growth(scores: Mapping[str, Mapping[int, Score]], floor: str, ours: str) -> str:
    """One row per size: µs and growth since the smallest size, ours beside the bare dict."""
    smallest = min(scores[floor])
    rows = []
    for size, bare in scores[floor].items():
        mine = scores[ours][size]
        grown, mine_grown = bare.times(scores[floor][smallest]), mine.times(scores[ours][smallest])
        rows.append(
            [
                spaced(size),
                f"{bare.ns / 1e3:.2f}",
                f"{grown:.2f}",
                f"{mine.ns / 1e3:.2f}",
                f"{mine_grown:.2f}",
                f"{mine_grown / grown:.2f}",
            ]
        )
    return table(
        [
            "keys",
            "bare dict, µs",
            "growth",
            "ours, µs",
            "growth",
            "ours by the dict's",
        ],
        rows,
    )


def inserts(worst: Mapping[tuple[str, bool], float], names: Mapping[str, str]) -> str:
    """One row per candidate: its slowest single insert with the garbage collector on and off."""
    rows = [[shown, f"{worst[name, True]:.2f}", f"{worst[name, False]:.2f}"] for name, shown in names.items()]
    return table(["worst insert, ms", "collector on", "collector off"], rows)


def kinds(latencies: Mapping[str, Latency], memory: Mapping[str, float | str]) -> str:
    """One row per kind of limit: p50 and p99 of one call, and memory."""
    rows = []
    for name, latency in latencies.items():
        used = memory[name]
        size = f"{used:.1f}" if isinstance(used, float) else used
        rows.append([name, f"{latency.p50 / 1e3:.2f}", f"{latency.p99 / 1e3:.2f}", size])
    return table(["", "p50, µs", "p99, µs", "MB per 100 000 keys"], rows)


def observers(cases: Mapping[str, Mapping[str, Score]], none: str) -> str:
    """One row per observer: µs that it adds to a decision, for each case."""
    rows = []
    for name in next(iter(cases.values())):
        cells = [_added_us(scores[name], scores[none]) for scores in cases.values()]
        rows.append([name, *cells])
    rows[0][1:] = [f"{scores[none].ns / 1e3:.2f} in all" for scores in cases.values()]
    return table(["", *(f"{case}, added µs" for case in cases)], rows)


def _added_us(score: Score, none: Score) -> str:
    return f"did not run: {score.failure}" if score.failure else f"{score.added(none) / 1e3:.2f}"


def imports(scores: Mapping[str, Score], floor: str) -> str:
    """One row per import: ms, and the multiple of the floor's."""
    rows = []
    for name, score in scores.items():
        if score.failure:
            rows.append([name, f"did not run: {score.failure}", "-"])
        else:
            rows.append([name, f"{score.ns / 1e6:.1f}", f"{score.times(scores[floor]):.2f}"])
    return table(["", "ms", "times the floor"], rows)


def added(scores: Mapping[str, Score], headers: Mapping[str, int], bare: str, floor: str) -> str:
    """One row per candidate: its overhead per request, as a multiple of the floor's, and its headers."""
    rows = []
    for name, score in scores.items():
        if score.failure:
            rows.append([name, f"did not run: {score.failure}", "-", "-", "-"])
        elif name == bare:
            rows.append([name, f"{score.ns / 1e3:.1f}", "-", "-", "-"])
        else:
            extra, least = score.added(scores[bare]), scores[floor].added(scores[bare])
            row = [name, f"{score.ns / 1e3:.1f}", f"{extra / 1e3:.1f}", f"{extra / least:.1f}", f"{headers[name]}"]
            rows.append(row)
    return table(["", "a request, µs", "added, µs", "times the floor", "headers on the 200"], rows)
