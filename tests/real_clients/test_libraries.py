"""Every Discord library makes twenty calls at once against a limit of five per second, and each call ends well."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from starlette.types import ASGIApp

from asgi_ratelimit.limits import Scope
from tests.real_clients.discord_api import (
    CAPACITY,
    PER_SECOND,
    ByToken,
    Door,
    Drained,
    Exchange,
    Recorded,
    limited_api,
    served,
)
from tests.real_clients.libraries import LIBRARIES, Program, program_of

CALLS = 20
USERS = [str(803_511_102_246_790_000 + number) for number in range(CALLS)]  # some libraries know an id by its length
LONGEST = 60.0  # seconds after which a bot is taken to hang
SHORTEST = (CALLS - CAPACITY) / PER_SECOND  # seconds: the calls after the first burst come in at the rate

GIVE_UP = {"interactions.py": 3}  # tries after which a library returns nothing, without an error

DOORS: tuple[Door, ...] = ("middleware", "dependency")
SCOPES: tuple[Scope, ...] = ("user", "global", "shared")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A bot of some library, and its app. `drained`: another client empties the bucket just before its first call."""

    door: Door
    scope: Scope
    drained: bool

    def __str__(self) -> str:
        return f"{self.door}-{self.scope}-{'empty' if self.drained else 'full'}"

    def app(self) -> ASGIApp:
        app = limited_api(self.door, self.scope)
        return Drained(app) if self.drained else app


CASES = [Case(door, scope, drained) for door in DOORS for scope in SCOPES for drained in (False, True)]


@dataclass(frozen=True)
class Runs:
    """What the bots of one library report, by case, and what their apps have seen."""

    outcomes: Mapping[str, Mapping[str, str]]
    exchanges: Mapping[str, list[Exchange]]


Results = Mapping[str, Runs]


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """The programs of the libraries that this machine has. They are installed one after the other."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = program_of(name)
        except pytest.skip.Exception as reason:
            logger.warning("%s", reason)
    return found


@pytest.fixture(scope="module")
def results(programs: Mapping[str, Program]) -> Results:
    """All bots of all libraries. They wait most of the time, so they do it together."""
    apps = {f"{name}-{case}": Recorded(case.app()) for name in programs for case in CASES}
    with served(ByToken(apps)) as address, ThreadPoolExecutor(len(programs)) as threads:
        outcomes = dict(
            zip(programs, threads.map(lambda name: run(name, programs[name], address), programs), strict=True)
        )
    return {
        name: Runs(outcomes[name], {token: app.exchanges for token, app in apps.items() if token in outcomes[name]})
        for name in programs
    }


def run(name: str, program: Program, address: str) -> dict[str, dict[str, str]]:
    """The outcome of each call of each bot of a library."""
    tokens = [f"{name}-{case}" for case in CASES]
    job = json.dumps({"address": address, "tokens": tokens, "users": USERS, "seconds": LONGEST})
    process = subprocess.run(
        program.command,
        input=f"{job}\n",
        env={**os.environ, "PYTHONPATH": "", **program.environment},
        capture_output=True,
        text=True,
        timeout=2 * LONGEST,
    )
    if process.returncode != 0:
        return {token: {"all": process.stderr[-2000:]} for token in tokens}
    outcomes: dict[str, dict[str, str]] = json.loads(process.stdout.splitlines()[-1])
    return outcomes


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", LIBRARIES)
def test_twenty_calls_at_once_end_well(results: Results, name: str, case: Case) -> None:
    if name not in results:
        program_of(name)  # it skips the test, with the reason
    token = f"{name}-{case}"
    outcomes = results[name].outcomes[token]
    calls: dict[str, list[int]] = {user: [] for user in USERS}  # the statuses of the tries of each
    exchanges = [exchange for exchange in results[name].exchanges[token] if exchange.user in calls]
    for exchange in exchanges:
        calls[exchange.user].append(exchange.status)
    given_up = [user for user in USERS if name in GIVE_UP and calls[user] == [429] * GIVE_UP[name]]
    assert outcomes == {user: "given up" if user in given_up else "ok" for user in USERS}
    assert all(tries.count(200) == 1 for user, tries in calls.items() if user not in given_up)
    seconds = max(exchange.answered for exchange in exchanges) - min(exchange.started for exchange in exchanges)
    refused = sum(exchange.refused for exchange in exchanges)
    logger.info("%s: %.1f s, %d refused, %d given up", token, seconds, refused, len(given_up))
    assert seconds >= SHORTEST - len(given_up) / PER_SECOND, "it was not limited"
