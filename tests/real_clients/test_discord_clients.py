"""discord.py and hikari finish their calls against an app with a limit, and wait as long as a 429 requires."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import pairwise

import pytest

from asgi_ratelimit.limits import Scope
from tests.real_clients.discord_api import CAPACITY, PER_SECOND, Door
from tests.real_clients.runs import AT_A_TIME, BOTS, CALLS, Case, Run, run_all

DOORS: tuple[Door, ...] = ("middleware", "dependency")
SCOPES: tuple[Scope, ...] = ("user", "global", "shared")
FULL = [Case(bot, door, scope) for bot in BOTS for door in DOORS for scope in SCOPES]
DRAINED = [Case("hikari", door, scope, drained=True) for door in DOORS for scope in SCOPES]

WINDOWS = CALLS // CAPACITY
SHORTEST = (CALLS - CAPACITY) / PER_SECOND  # seconds: the calls after the first burst come in at the rate
CLOCK = 0.002  # seconds by which a sleep may end early

BUCKET = {f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset", "reset-after", "bucket")}

logger = logging.getLogger(__name__)

of_discord_py = pytest.mark.parametrize("case", [case for case in FULL if case.bot == "discord.py"], ids=str)
of_hikari = pytest.mark.parametrize("case", [case for case in FULL if case.bot == "hikari"], ids=str)


@pytest.fixture(scope="module")
def runs() -> dict[Case, Run]:
    return run_all(FULL)


@pytest.fixture(scope="module")
def drained_runs() -> dict[Case, Run]:
    return run_all(DRAINED)


@pytest.mark.parametrize("case", FULL, ids=str)
def test_every_call_is_answered_and_none_raises(runs: Mapping[Case, Run], case: Case) -> None:
    logger.info("%s: %s", case, runs[case])
    assert_finished(runs[case])
    assert runs[case].seconds >= SHORTEST, "it was not limited"


@of_discord_py
def test_discord_py_waits_as_long_as_each_refusal_says(runs: Mapping[Case, Run], case: Case) -> None:
    run = runs[case]
    assert 0 < len(run.refusals) <= 2 * AT_A_TIME * WINDOWS, str(run)
    for tries in run.calls.values():
        for refused, retried in pairwise(tries):
            assert retried.started - refused.answered >= refused.refusal["retry_after"] - CLOCK


@of_hikari
def test_hikari_is_hardly_ever_refused(runs: Mapping[Case, Run], case: Case) -> None:
    assert len(runs[case].refusals) <= WINDOWS, str(runs[case])


@pytest.mark.parametrize("case", DRAINED, ids=str)
def test_hikari_finishes_when_it_finds_the_bucket_empty(drained_runs: Mapping[Case, Run], case: Case) -> None:
    logger.info("%s: %s", case, drained_runs[case])
    assert_finished(drained_runs[case])
    assert drained_runs[case].refusals, "the bucket was not empty"


@pytest.mark.parametrize("case", DRAINED, ids=str)
def test_hikari_does_not_loop_once_it_has_seen_a_bucket(drained_runs: Mapping[Case, Run], case: Case) -> None:
    """Every answer names its bucket but a global 429. Until one does, hikari asks again at once and all the time."""
    run = drained_runs[case]
    seen = next(exchange.answered for exchange in run.exchanges if "x-ratelimit-bucket" in exchange.headers)
    assert len([refused for refused in run.refusals if refused.answered >= seen]) <= WINDOWS, str(run)
    if case.scope != "global":
        assert len(run.refusals) <= WINDOWS, str(run)


@pytest.mark.parametrize("case", [*FULL, *DRAINED], ids=str)
def test_the_headers_are_discords(runs: Mapping[Case, Run], drained_runs: Mapping[Case, Run], case: Case) -> None:
    """https://discord.com/developers/docs/topics/rate-limits#header-format"""
    of_refusal = {"x-ratelimit-global"} if case.scope == "global" else BUCKET
    for tries in (drained_runs if case.drained else runs)[case].calls.values():
        for exchange in tries:
            sent = {name for name in exchange.headers if name.startswith("x-ratelimit-")}
            assert sent == (of_refusal | {"x-ratelimit-scope"} if exchange.refused else BUCKET)


def assert_finished(run: Run) -> None:
    """Each call was let in exactly once, and its answer reached the bot."""
    assert run.answers == {number: number for number in range(1, CALLS + 1)}, str(run)
    let_in = {number: [e.status for e in tries if not e.refused] for number, tries in run.calls.items()}
    assert let_in == {number: [200] for number in range(1, CALLS + 1)}, str(run)
