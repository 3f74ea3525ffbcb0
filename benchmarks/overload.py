"""Overload: an app at three times what it can serve, bare and with LoadShedMiddleware, in one run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_ratelimit.load import LoadShedMiddleware
from benchmarks.harness import Score, Turn, compete, enter, ns_per_call
from benchmarks.open_loop import Phase, Sent, send
from benchmarks.overload_app import BARE, SHEDDING

__all__ = ["OVERLOAD", "Run", "added", "best", "measure"]

UNLOADED, USUAL, OVERLOAD, AFTER = range(4)
LADDER = (190.0, 205.0, 220.0, 235.0, 250.0)  # requests a second, of which the app cannot serve the last ones
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Run:
    """All requests of one app: unloaded, as usual, at three times what it can serve, and as usual again.

    delayed: seconds for which its server was ready to work, and other processes had the processor
    """

    name: str
    phases: Sequence[Phase]
    sent: Sequence[Sent]
    delayed: float

    def start(self, phase: int) -> float:
        return sum(each.seconds for each in self.phases[:phase])

    def goodput(self, phase: int) -> float:
        """Answers a second that came while the phase lasted, health checks not counted."""
        start, seconds = self.start(phase), self.phases[phase].seconds
        done = [one.at + one.seconds - start for one in self.sent if one.status == 200 and not one.is_health_check]
        return sum(0 <= moment < seconds for moment in done) / seconds

    def percentile(self, phase: int, share: float, *, after: float = 0.0) -> float:
        """Of the seconds of what was served, in ms. `after`: seconds of the phase that are left out."""
        first = self.start(phase) + after
        served = [
            one.seconds * 1e3
            for one in self.sent
            if one.phase == phase and one.status == 200 and one.at >= first and not one.is_health_check
        ]
        return sorted(served)[min(len(served) - 1, int(share * len(served)))] if served else float("inf")

    def served(self, phase: int, priority: int | None) -> float:
        """The share of a class that was served; None: of the health checks."""
        asked = [
            one.status == 200
            for one in self.sent
            if one.phase == phase and (one.is_health_check if priority is None else _is_of(one, priority))
        ]
        return sum(asked) / len(asked)

    def seconds_to_normal(self) -> float:
        """After the overload: when the last request was sent that was not served, or took twice the usual p99."""
        slow = 2 * self.percentile(USUAL, 0.99) / 1e3
        bad = [one.at for one in self.sent if one.phase == AFTER and (one.status != 200 or one.seconds > slow)]
        return max(bad, default=self.start(AFTER)) - self.start(AFTER)


def _is_of(one: Sent, priority: int) -> bool:
    return not one.is_health_check and one.priority == priority


def measure(name: str, rate: float, seconds: float) -> Run:
    """One run of an app, with an overload of this rate and length."""
    phases = (Phase(20, 10), Phase(rate / 6, 5), Phase(rate, seconds), Phase(rate / 6, 10))
    with _server(name) as (process, port):
        return Run(name, phases, asyncio.run(send(port, phases)), _delayed(process))


def best(seconds: float) -> float:
    """The most that the bare app serves in a second, whatever the latency."""
    phases = [Phase(rate, seconds) for rate in LADDER]
    with _server(BARE) as (process, port):
        run = Run(BARE, phases, asyncio.run(send(port, phases)), _delayed(process))
    return max(run.goodput(number) for number in range(len(phases)))


async def added(rounds: int, calls: int) -> dict[str, Score]:
    """What the middleware adds to a request while there is no load, called in process."""
    builders = {name: partial(_in_process, name, calls) for name in (BARE, SHEDDING)}
    return await compete(await enter(builders), rounds)


async def _in_process(name: str, calls: int) -> Turn:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app: Any = Starlette(routes=[Route("/", hello)])
    if name == SHEDDING:
        app = LoadShedMiddleware(app)
    return partial(ns_per_call_of, app, calls)


async def ns_per_call_of(app: Callable[..., Awaitable[None]], calls: int) -> float:
    return await ns_per_call(_call(app, calls), calls)


async def _call(app: Callable[..., Awaitable[None]], calls: int) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ignore(message: Any) -> None:
        pass

    for _ in range(calls):
        headers = [(b"host", b"app"), (b"accept", b"*/*")]
        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "query_string": b"", "headers": headers}
        await app(scope, receive, ignore)


@contextmanager
def _server(name: str) -> Iterator[tuple[int, int]]:
    """The process and the port of an app."""
    command = [sys.executable, "-m", "benchmarks.overload_app", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process.pid, int(process.stdout.readline() if process.stdout else "")
        finally:
            process.kill()


def _delayed(process: int) -> float:
    """The seconds for which a process has waited for a processor, since it was started, by the system's accounts."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
