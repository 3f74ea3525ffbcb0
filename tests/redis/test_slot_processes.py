"""Eight processes share five slots, cancel a hundred thousand calls, and are killed in the middle of it.

A referee of their own counts how many are inside at any moment.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from asgi_ratelimit import Decision
from tests.support.referee import Referee
from tests.support.servers import KINDS, Cluster, Server
from tests.support.servers.binaries import absent
from tests.support.slot_holder import KEY, LIMIT, slots

PROCESSES, LONG, KILLED_EARLY = 8, 2, 4
CANCELLED = 100_000
PATIENCE_S = 60.0  # until so many are cancelled; some seconds are enough

Place = tuple[str, str]  # the address of a store, and its prefix


@dataclass
class Run:
    """What the referee has seen, and what the servers say when all processes are dead."""

    kinds: list[str]
    referee: Referee
    after: list[Decision]
    in_the_end: list[Decision]


@pytest.fixture(scope="module")
def places(fresh_server: Callable[[str], Server], running_cluster: Cluster) -> dict[str, Place]:
    urls = {"cluster": str(running_cluster.url)}
    for kind in KINDS:
        try:
            urls[kind] = fresh_server(kind).url
        except pytest.skip.Exception:
            continue
    return {kind: (url, f"slots{secrets.token_hex(4)}") for kind, url in urls.items()}


@pytest.fixture(scope="module")
def run(places: dict[str, Place]) -> Run:
    addresses = list(places.values())
    with Referee() as referee:
        processes = [start(referee.port, addresses, is_long=number < LONG) for number in range(PROCESSES)]
        try:
            for process in processes:
                say(process, "go")
            wait_and_kill(referee, processes)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        after = asyncio.run(peeked(addresses))
        time.sleep(max(decision.reset_after for decision in after))
        return Run(list(places), referee, after, asyncio.run(peeked(addresses)))


def wait_and_kill(referee: Referee, processes: list[subprocess.Popen[str]]) -> None:
    """Until so many calls are cancelled, some of the processes are killed on the way."""
    doomed, until = random.sample(processes, KILLED_EARLY), time.monotonic() + PATIENCE_S
    while referee.cancelled < CANCELLED:
        assert time.monotonic() < until, f"{referee.cancelled} calls were cancelled in {PATIENCE_S} s"
        if KILLED_EARLY - len(doomed) < referee.cancelled * (KILLED_EARLY + 1) // CANCELLED:
            doomed.pop().kill()
        time.sleep(0.05)


async def peeked(places: list[Place]) -> list[Decision]:
    decisions = []
    for url, prefix in places:
        store, limiter = slots(url, prefix)
        async with store:
            decisions.append(await limiter.peek(KEY))
    return decisions


def start(port: int, places: list[Place], *, is_long: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.support.slot_holder"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    say(process, json.dumps([port, places, is_long]))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def number_of(kind: str, run: Run) -> int:
    if kind not in run.kinds:
        absent(kind)
    return run.kinds.index(kind)


@pytest.mark.parametrize("kind", [*KINDS, "cluster"])
def test_never_more_than_the_limit_are_inside(kind: str, run: Run) -> None:
    place = number_of(kind, run)
    assert run.referee.most[place] == LIMIT.capacity  # it was reached, and never exceeded
    assert run.referee.entered[place] > 100


@pytest.mark.parametrize("kind", [*KINDS, "cluster"])
def test_all_slots_are_free_within_one_lease_of_the_death_of_their_holders(kind: str, run: Run) -> None:
    place = number_of(kind, run)
    assert run.after[place].reset_after <= LIMIT.lease
    assert run.in_the_end[place].remaining == LIMIT.capacity
    assert run.referee.inside[place] == 0
