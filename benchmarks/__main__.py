"""Measures everything, prints the page and writes it to benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchmarks import (
    candidates,
    decisions,
    discord_proxied,
    discord_report,
    http_overhead,
    imports,
    kinds,
    load_controllers,
    observers,
    overload_report,
    redis_report,
    report,
    served_report,
)
from benchmarks.memory import memory


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Us, the floors and the peers, in one run."
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and keys: a few minutes instead of half an hour"
    )
    parser.add_argument("--only", choices=PARTS, help="one part of it; printed, and written only where --output says")
    parser.add_argument("--output", type=Path, help="where to write instead of benchmarks/RESULTS.md")
    options = parser.parse_args()
    output = options.output and options.output.absolute()
    if output is None and options.only is None:
        output = Path(__file__).with_name("RESULTS.md")
    command = " ".join(["python -m benchmarks", *_arguments(options)])
    warnings.simplefilter("ignore", DeprecationWarning)  # the peers'
    os.chdir(Path(__file__).parent)  # some peers read ./.env
    parts = [PARTS[options.only]] if options.only else PARTS.values()
    page = report.page(chain.from_iterable(part(options.quick) for part in parts), command)
    if output is not None:
        output.write_text(page, encoding="utf-8")
    print(page)


def _arguments(options: argparse.Namespace) -> Iterator[str]:
    if options.only:
        yield f"--only {options.only}"
    if options.quick:
        yield "--quick"


def _in_memory(quick: bool) -> Iterator[tuple[str, str, str]]:
    rounds = 5 if quick else 15
    yield _decisions(rounds, quick)
    yield _kinds(quick)
    yield _growth(rounds, quick)
    yield _inserts(quick)


def _in_requests(quick: bool) -> Iterator[tuple[str, str, str]]:
    rounds = 5 if quick else 15
    yield _middlewares(rounds, quick)
    yield _dependencies(rounds, quick)


def _imports(quick: bool) -> Iterator[tuple[str, str, str]]:
    scores = imports.imports(5 if quick else 21)
    text = (
        f"Each in a fresh process, by turns: the processor time of `{imports.OUR_IMPORT}`, and of the peers' imports."
    )
    yield "An import", text, report.imports(scores, imports.FLOOR)


def _observers(quick: bool) -> Iterator[tuple[str, str, str]]:
    cases = asyncio.run(observers.added_by_observers(5 if quick else 31, 5_000 if quick else 20_000))
    text = (
        "A decision in memory, which is then reported to the store's observers. Each row is what one observer adds, "
        "its event included. All calls are allowed, and no limit is nearly used up."
    )
    yield "What observers add", text, report.observers(cases, observers.NONE)


PARTS = {
    "memory": _in_memory,
    "observers": _observers,
    "import": _imports,
    "requests": _in_requests,
    "served": served_report.sections,
    "redis": redis_report.sections,
    "discord": discord_report.sections,
    "proxy": discord_proxied.sections,
    "overload": overload_report.sections,
    "controllers": load_controllers.sections,
}


def _decisions(rounds: int, quick: bool) -> tuple[str, str, str]:
    cases = asyncio.run(decisions.decisions(rounds, 5_000 if quick else 20_000))
    used = memory(candidates.CANDIDATES, 1 if quick else 3)
    text = (
        "An async call, 100 000 keys in the store. *Spread*: keys in random order, 100 a minute, all allowed. *Hot*: "
        "one key again and again, all allowed. *Refused*: keys in random order, every one of them used up. Checks per "
        "second are of the first. Memory: what the resident process grows by for 100 000 keys, each in a process of "
        "its own, the keys themselves not counted."
    )
    return "A decision in memory", text, report.per_check(cases, used, candidates.FLOOR)


def _kinds(quick: bool) -> tuple[str, str, str]:
    found = asyncio.run(kinds.latencies(3 if quick else 9, 4 if quick else 20))
    used = memory(candidates.KINDS, 1 if quick else 3)
    text = (
        f"{report.spaced(kinds.CALLERS)} tasks on one event loop, each with a key of its own, make their calls by "
        "turns. p50 and p99: wall time of one awaited call, one reading of the clock included. Memory as above, after "
        "one check of each key; a SlidingWindow grows by about 40 bytes with each further call that counts. A seed of "
        "this project published 2.8-3.3 µs p50, 11-13 µs p99 and 37-43 MB for its token bucket, leaky bucket and "
        "sliding log."
    )
    return "All four kinds in memory, 5 000 concurrent callers", text, report.kinds(found, used)


def _growth(rounds: int, quick: bool) -> tuple[str, str, str]:
    sizes = decisions.SIZES[:-1] if quick else decisions.SIZES
    scores = asyncio.run(decisions.growth(rounds, 5_000 if quick else 20_000, sizes))
    text = "Keys in random order, so that what grows is mostly the misses of the processor's caches."
    return "Growth with the number of keys", text, report.growth(scores, candidates.FLOOR, candidates.OURS)


def _inserts(quick: bool) -> tuple[str, str, str]:
    number, fills = (100_000, 1) if quick else (1_000_000, 3)
    worst = decisions.worst_inserts(number, fills)
    text = f"The slowest single check while a store is filled with {number:,} new keys (the best of {fills} fills)."
    names = {candidates.FLOOR: "one plain dict", candidates.OURS: candidates.OURS}
    return "The worst insert", text.replace(",", " "), report.inserts(worst, names)


def _middlewares(rounds: int, quick: bool) -> tuple[str, str, str]:
    scores, headers = asyncio.run(http_overhead.middlewares(2 * rounds + 1, 200 if quick else 400))
    text = "A Starlette app with one route, called in process as a server would call it; 1 000 clients in turn."
    return "What a middleware adds", text, report.added(scores, headers, http_overhead.BARE, http_overhead.FLOOR)


def _dependencies(rounds: int, quick: bool) -> tuple[str, str, str]:
    scores, headers = asyncio.run(http_overhead.dependencies(2 * rounds + 1, 200 if quick else 400))
    text = "The same with a FastAPI app. The bare app's route has one trivial dependency, an async function of nothing."
    return "What a dependency adds", text, report.added(scores, headers, http_overhead.BARE, http_overhead.FLOOR)


if __name__ == "__main__":
    main()
