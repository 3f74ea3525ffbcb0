"""One run of the benchmark: the processes of a client start, begin at one moment, and end if it takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle
from threading import Timer
from typing import IO, Any

from asgi_ratelimit.testing.fake_discord.scenarios import LATENCY, WARMING, Call, Scenario
from asgi_ratelimit.testing.fake_discord.stage import Score
from benchmarks.discord_server import ROOT, RemoteStage

__all__ = ["Candidate", "Result", "play", "python_client"]

PATIENCE = 60.0  # seconds for a client to log in


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A column: the command of one process, and its options besides its calls. `missing` is why it is left out."""

    name: str
    command: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    shares: bool = False  # its processes know of each other by the Redis of the benchmark
    only_shared: bool = False  # of interest in rows of several processes
    environment: Mapping[str, str] = field(default_factory=dict)  # besides ours
    left_out: Collection[str] = ()  # the scenarios that it cannot play


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run. `failure` is why there is none."""

    refused: int = 0
    lost: int = 0
    twice: int = 0
    ratio: float = 0.0  # the makespan by the ideal
    extra: float = 0.0  # seconds by which the last call took longer than the longest way
    finished: bool = True
    still: bool = False  # not finished, and nothing sent any more: a deadlock
    version: str = ""
    failure: str = ""


def python_client(name: str, module: str, package: str, **more: Any) -> Candidate:
    command = [sys.executable, "-m", f"benchmarks.discord_clients.{module}"]
    return Candidate(name, command, {"package": package, **more.pop("options", {})}, **more)


def play(
    scenario: Scenario, candidate: Candidate, stage: RemoteStage, redis: str | None = None, ways: Sequence[str] = ()
) -> Result:
    """One run on a new server. `redis` is an empty one, for candidates that share.

    `ways`: the addresses that the processes use in turn, where they do not call the server itself.
    """
    stage.open(scenario)
    options = {
        "addresses": ways or [stage.address],
        "redis": redis,
        "global_limit": scenario.global_limit,
        **candidate.options,
    }
    with tempfile.TemporaryFile() as errors, _troupe(scenario, candidate, options, errors) as processes:
        try:
            for process in processes:
                _await_ready(process)
            stage.start()
            outputs = _perform(processes, scenario.bound)
            score = stage.score()
        except (OSError, RuntimeError) as error:
            return Result(failure=f"{error} {_last_line(errors)}".strip())
        if any(output == "" for output in outputs):
            return Result(failure=_last_line(errors) or "it ended without a word")
    reports = [None if output is None else json.loads(output) for output in outputs]
    return _judged(scenario, reports, score)


@contextmanager
def _troupe(
    scenario: Scenario, candidate: Candidate, options: Mapping[str, Any], errors: IO[bytes]
) -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    try:
        before = [_as_json(WARMING)] if scenario.is_warm else []
        for calls, address in zip(scenario.calls, cycle(options["addresses"]), strict=False):
            theirs = {"address": address, "before": before, "calls": [_as_json(call) for call in calls]}
            job = json.dumps({**options, **theirs})
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                candidate.command,
                cwd=ROOT,
                env={**os.environ, **candidate.environment},
                text=True,
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
            )
            processes.append(process)
            with suppress(BrokenPipeError):  # it has ended; that is noticed when it does not get ready
                process.stdin.write(job + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _as_json(call: Call) -> dict[str, Any]:
    """Identifiers as text: a number of JavaScript's does not hold them."""
    return {**asdict(call), "channel": str(call.channel), "name": str(call.name)}


def _await_ready(process: subprocess.Popen[str]) -> None:
    alarm = Timer(PATIENCE, process.kill)
    alarm.start()
    word = process.stdout.readline()  # type: ignore[union-attr]
    alarm.cancel()
    if word.strip() != "ready":
        raise RuntimeError("it did not get ready:")


def _perform(processes: Sequence[subprocess.Popen[str]], seconds: float) -> list[str | None]:
    """The report of each process at its end. None if it had to be ended."""
    until, outputs = time.monotonic() + seconds, list[str | None]()
    for process in processes:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in processes:
        try:
            outputs.append(process.communicate(timeout=max(0.01, until - time.monotonic()))[0])
        except subprocess.TimeoutExpired:
            outputs.append(None)
    return outputs


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:120] if lines else ""


def _judged(scenario: Scenario, reports: Sequence[Mapping[str, Any] | None], score: Score) -> Result:
    outcomes = list[tuple[str, float] | None]()
    for part, report in zip(scenario.calls, reports, strict=True):
        outcomes += report["outcomes"] if report is not None else [None] * len(part)
    outcome_of = {call.identity: outcome for call, outcome in zip(scenario.all_calls(), outcomes, strict=True)}
    lost = [call for call in scenario.awaited if not _came_through(outcome_of[call.identity], score, call)]
    finished = None not in reports
    return Result(
        refused=sum(score.refused.values()),
        lost=len(lost),
        twice=score.doubled,
        ratio=score.makespan / scenario.ideal,
        extra=max(0.0, outcomes[-1][1] - LATENCY[1]) if outcomes[-1] is not None else 0.0,
        finished=finished,
        still=not finished and score.idle > scenario.bound / 3,
        version=next((report["version"] for report in reports if report is not None), ""),
    )


def _came_through(outcome: tuple[str, float] | None, score: Score, call: Call) -> bool:
    """Whether the call was carried out and succeeded for the caller, if the caller still reports."""
    return call.identity not in score.lost_calls and (outcome is None or outcome[0] == "ok")
