"""Eight processes spend one budget with random costs, settle them at random, and are killed in the middle of it.

What they report and what the records say agree to the unit, but for the calls that were cut off.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from asgi_ratelimit import Decision
from tests.support.servers import KINDS, Cluster, Server
from tests.support.servers.binaries import absent
from tests.support.spending import FLOW, KEY, MOST, budget

PROCESSES, KILLED_EARLY = 8, 4
WORDS = {"charged", "settled"}
START = 2_000  # units, so that no bucket is ever full: what flows into a full one is lost

Place = tuple[str, str]  # the address of a store, and its prefix


@dataclass
class Ledger:
    """The reports about one store."""

    settled: int = 0
    unsettled: list[int] = field(default_factory=list)  # the last call of each process, if it was cut off
    calls: int = 0
    last_us: int = 0


@pytest.fixture(scope="module")
def places(fresh_server: Callable[[str], Server], running_cluster: Cluster) -> dict[str, Place]:
    urls = {"cluster": str(running_cluster.url)}
    for kind in KINDS:
        try:
            urls[kind] = fresh_server(kind).url
        except pytest.skip.Exception:
            continue
    return {kind: (url, f"spending{secrets.token_hex(4)}") for kind, url in urls.items()}


@pytest.fixture(scope="module")
def spent(places: dict[str, Place]) -> dict[str, tuple[Decision, Ledger, Decision]]:
    """Of each store: the first decision, the reports, and the last decision."""
    processes = [start(list(places.values())) for _ in range(PROCESSES)]
    try:
        firsts = {kind: asyncio.run(charged(*place, START)) for kind, place in places.items()}
        for process in processes:
            say(process, "go")
        time.sleep(0.8)
        for process in processes[:KILLED_EARLY]:
            process.kill()
        time.sleep(0.8)
    finally:
        for process in processes:
            process.kill()
    outputs = [process.communicate()[0] for process in processes]
    return {
        kind: (firsts[kind], ledger_of(number, outputs), asyncio.run(peeked(*place)))
        for number, (kind, place) in enumerate(places.items())
    }


def start(places: list[Place]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.support.spending"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    say(process, json.dumps(places))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


async def charged(url: str, prefix: str, cost: int) -> Decision:
    store, limiter = budget(url, prefix)
    async with store:
        decision = await limiter.try_acquire(KEY, cost)
        assert decision.allowed
        return decision


async def peeked(url: str, prefix: str) -> Decision:
    store, limiter = budget(url, prefix)
    async with store:
        return await limiter.peek(KEY)


def ledger_of(number: int, outputs: list[str]) -> Ledger:
    ledger = Ledger(settled=START)
    for output in outputs:
        reports = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
        mine = [(word, int(cost), int(us)) for place, word, cost, us in reports if place == str(number)]
        assert {word for word, _, _ in mine} <= WORDS
        ledger.settled += sum(cost for word, cost, _ in mine if word == "settled")
        ledger.calls += len(mine)
        ledger.last_us = max([ledger.last_us, *(us for _, _, us in mine)])
        if mine and mine[-1][0] == "charged":
            ledger.unsettled.append(mine[-1][1])
    return ledger


@pytest.mark.parametrize("kind", [*KINDS, "cluster"])
def test_what_is_spent_and_what_is_counted_agree(
    kind: str, spent: dict[str, tuple[Decision, Ledger, Decision]]
) -> None:
    first, ledger, last = spent.get(kind) or absent(kind)
    assert ledger.calls > 200
    flow, window, quota = last.parts
    interval = FLOW.interval / FLOW.ticks
    in_bucket = (flow.state / FLOW.ticks - first.now_us) / interval
    in_window, in_quota = window.state[1], quota.state[1]
    assert in_bucket == in_window == in_quota  # they are settled together, or not at all
    # Each process may have been cut off after a charge or a settlement, and before it could report it.
    assert ledger.settled <= in_window <= ledger.settled + PROCESSES * 2 * MOST


@pytest.mark.parametrize("kind", [*KINDS, "cluster"])
def test_no_more_is_spent_than_the_limit_and_the_overages_in_flight(
    kind: str, spent: dict[str, tuple[Decision, Ledger, Decision]]
) -> None:
    first, ledger, _ = spent.get(kind) or absent(kind)
    flowed = (ledger.last_us - first.now_us) * FLOW.ticks // FLOW.interval
    overages = PROCESSES * (2 * MOST - 1)
    assert ledger.settled + sum(ledger.unsettled) <= FLOW.capacity + flowed + overages
    assert ledger.settled >= FLOW.capacity  # the budget was used up
