"""Three processes with one token, which know of each other through a Redis only, and of which one may be killed."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest

from asgi_ratelimit.discord.permits.memory import EXPIRY_US
from tests.support.discord_process import Job, Sent
from tests.support.discord_runs import BUSY, PATIENCE, undisturbed, until_created, until_held
from tests.support.fake_discord_servers import CREATE, PROFILES, Remote, Town, town
from tests.support.servers import KINDS, Server

Scenario = Callable[..., Coroutine[Any, Any, None]]


class Sender:
    """One of the processes."""

    def __init__(self, process: Process, jobs: list[Job]) -> None:
        self._process, self._jobs = process, jobs

    def names(self, place: int = 0) -> list[str]:
        """What it sends in one of its jobs."""
        job = self._jobs[place]
        return [f"{job.name} {i}" for i in range(job.count)]

    async def get_ready(self) -> None:
        self._write(json.dumps([asdict(job) for job in self._jobs]))
        assert await self._line() == "ready"

    def go(self) -> None:
        self._write("go")

    async def sent(self) -> list[Sent]:
        """What became of each job."""
        results = json.loads(await self._line())
        return [Sent(**each | {"statuses": {int(key): n for key, n in each["statuses"].items()}}) for each in results]

    async def kill(self) -> None:
        """As by kill -9."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def senders(*jobs_of_each: list[Job]) -> AsyncIterator[list[Sender]]:
    """A process for each list of jobs, ready to go."""
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        found = []
        for jobs in jobs_of_each:
            command = (sys.executable, "-m", "tests.support.discord_process")
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            found.append(Sender(process, jobs))
            stack.push_async_callback(found[-1].kill)
        await asyncio.gather(*(sender.get_ready() for sender in found))
        yield found


def jobs_at(fake: Remote, server: Server, counts: Sequence[int], channels: int = 1) -> list[Job]:
    """One for each process, at a store that they share."""
    prefix = secrets.token_hex(4)
    return [Job(fake.base_url, server.url, prefix, f"process {i}", count, channels) for i, count in enumerate(counts)]


def check_makespan(what: str, sent: Sequence[Sent], ideal: float, windows: int, profile: str) -> None:
    """At most 5 % more than the ideal and one round trip per window, and what a busy machine takes."""
    took = max(each.ended for each in sent) - min(each.started for each in sent)
    late = max(each.late for each in sent)
    summary = f"{what} ({profile}): {took:.2f} s, ideal {ideal:.2f}, ratio {took / ideal:.3f}, late {late:.2f}"
    sys.stdout.write(f"{summary}\n")
    assert took <= 1.05 * ideal + windows * PROFILES[profile].round_trip + BUSY + late, summary


async def all_are_alive(fakes: Town, server: Server) -> None:
    """Three times 60 calls under the global limit, and three times 10 on one bucket, with every latency."""
    runs = []
    for profile in PROFILES:
        window = "sliding" if profile == "jitter" else "fixed"
        everywhere = await fakes.open(profile=profile, global_window="sliding")
        bucket = await fakes.open({CREATE: {"limit": "5/1s", "window": window}}, profile=profile)
        runs.append((everywhere, profile, jobs_at(everywhere, server, [60] * 3, channels=60), 180 / (0.8 * 50)))
        runs.append((bucket, profile, jobs_at(bucket, server, [10] * 3), 5.0))
    async with senders(*map(list, zip(*(jobs for _, _, jobs, _ in runs), strict=True))) as those:
        for sender in those:
            sender.go()
        results = [await sender.sent() for sender in those]
    for place, (fake, profile, jobs, ideal) in enumerate(runs):
        sent = [each[place] for each in results]
        report = await fake.report()
        assert not report.refused
        assert sorted(report.messages) == sorted(name for sender in those for name in sender.names(place))
        assert [each.statuses for each in sent] == [{200: job.count} for job in jobs]
        assert report.most_in(1.0) <= 50
        check_makespan(f"3 x {jobs[0].count}", sent, ideal, round(ideal) + 1, profile)


async def the_death_of_one_that_holds_the_only_permit(fakes: Town, server: Server) -> None:
    """The others wait until that permit is given up, and then go on."""
    fake = await fakes.open({CREATE: {"limit": "1/100ms", "window": "fixed"}})
    async with senders(*([job] for job in jobs_at(fake, server, [3, 3, 3]))) as (doomed, *others):
        await fake.do("hold")
        doomed.go()
        await until_held(fake, 1)
        for sender in others:
            sender.go()
        await doomed.kill()
        await fake.do("release")
        sent = [(await sender.sent())[0] for sender in others]
    report = await fake.report()
    assert not report.refused
    assert report.messages[0] in doomed.names()
    assert sorted(report.messages[1:]) == sorted(name for sender in others for name in sender.names())
    moments = [seen["at"] for seen in report.requests]
    assert moments[1] - moments[0] >= EXPIRY_US / 1e6 - 1.0  # it is counted from the permit, not from the arrival
    check_makespan("a dead one's permit", sent, EXPIRY_US / 1e6 + 0.6, 7, "no latency")


async def the_death_of_one_among_many_calls(fakes: Town, server: Server) -> None:
    """It may have held as many permits as there were: even then the others wait no longer than for those."""
    fake = await fakes.open({CREATE: {"limit": "5/500ms", "window": "fixed"}}, profile="jitter")
    async with senders(*([job] for job in jobs_at(fake, server, [60, 20, 20]))) as (doomed, *others):
        for sender in (doomed, *others):
            sender.go()
        await until_created(fake, 12)
        await doomed.kill()
        sent = [(await sender.sent())[0] for sender in others]
    report = await fake.report()
    assert not report.refused
    assert len(report.messages) == len(set(report.messages))
    assert {name for sender in others for name in sender.names()} <= set(report.messages)
    assert [each.statuses for each in sent] == [{200: 20}, {200: 20}]
    check_makespan("a dead one's permits", sent, EXPIRY_US / 1e6 + 5.0, 11, "jitter")


SCENARIOS: list[Scenario] = [
    all_are_alive,
    the_death_of_one_that_holds_the_only_permit,
    the_death_of_one_among_many_calls,
]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, asyncio.Task[None]]]:
    """All of them at the same time: most of it is waiting."""

    async def run_all(fakes: Town, server: Server) -> dict[str, asyncio.Task[None]]:
        tasks = {
            each.__name__: asyncio.ensure_future(undisturbed(each)(fakes=fakes, server=server)) for each in SCENARIOS
        }
        await asyncio.wait(tasks.values())
        return tasks

    with town() as fakes, Server(KINDS[0]) as server:
        yield asyncio.run(run_all(fakes, server))


@pytest.mark.parametrize("name", [each.__name__ for each in SCENARIOS])
def test_processes_share_limits(results: dict[str, asyncio.Task[None]], name: str) -> None:
    results[name].result()
