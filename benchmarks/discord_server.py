"""The one server of the benchmark: FakeDiscord under uvicorn in a process of its own, and its record of each run."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.testing import FakeDiscord
from benchmarks.discord_scenarios import LATENCY, SCENARIOS, Scenario, identity

__all__ = ["ROOT", "Seen", "Stage", "stage"]

ROOT = Path(__file__).parents[1]
SEED = 7


@dataclass(frozen=True, slots=True)
class Seen:
    """The server's record of a run."""

    refused: int
    carried_out: dict[str, int]  # by identity: more than once is one time too many
    seconds: float  # from the first request to the last answer
    idle: float  # seconds since the last request


class Stage:
    """The server, as the benchmark holds it in its hands."""

    def __init__(self, address: str, client: httpx.Client) -> None:
        self.address, self._client = address, client

    def open(self, scenario: Scenario) -> None:
        """Open a new FakeDiscord."""
        self._post("open", {"number": SCENARIOS.index(scenario)})

    def start(self) -> None:
        """Count from here, from the beginning of one of the server's seconds; both of us see the same clock."""
        second = int(time.monotonic()) + 2  # the second of the last login is over
        time.sleep(second - time.monotonic())
        self._post("start", {})

    def seen(self) -> Seen:
        return Seen(**self._post("seen", {}))

    def _post(self, verb: str, content: dict[str, int]) -> Any:
        response = self._client.post(f"{self.address}/control/{verb}", json=content)
        return response.raise_for_status().json()


@contextmanager
def stage() -> Iterator[Stage]:
    """Run the server for as long as the block runs."""
    command = [sys.executable, "-m", "benchmarks.discord_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            yield Stage(process.stdout.readline().strip(), client)  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()


# In the process of the server


class _Theatre:
    def __init__(self) -> None:
        self._scenario = SCENARIOS[0]
        self._fake = FakeDiscord()
        self._forget()

    def _forget(self) -> None:
        self._first = self._last_request = self._last_answered = 0.0
        self._is_on = False  # before, clients only log in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._last_request = time.monotonic()
        if not self._first:
            self._begin(self._last_request)
        await self._fake(scope, receive, send)
        self._last_answered = time.monotonic()

    def _begin(self, now: float) -> None:
        self._first = now
        if self._is_on and self._scenario.stop:
            when, seconds = self._scenario.stop
            asyncio.get_running_loop().call_later(when, self._fake.stop, seconds)

    async def open(self, request: Request) -> JSONResponse:
        self._scenario = SCENARIOS[(await request.json())["number"]]
        self._forget()
        limits, most = self._scenario.limits, self._scenario.global_limit
        self._fake = FakeDiscord(limits, global_limit=most, latency=LATENCY, seed=SEED)
        return JSONResponse({})

    async def start(self, request: Request) -> JSONResponse:
        self._forget()
        self._is_on = True
        self._fake.reset_record()
        return JSONResponse({})

    async def seen(self, request: Request) -> JSONResponse:
        done = Counter(
            identity(seen.method, seen.json.get("content") or seen.path.split("/")[4])
            for seen in self._fake.requests
            if 200 <= seen.status < 300
        )
        counts = {"refused": self._fake.count(429), "carried_out": dict(done)}
        seconds, idle = self._last_answered - self._first, time.monotonic() - self._last_request
        return JSONResponse({**counts, "seconds": seconds, "idle": idle})


def _serve() -> None:
    theatre = _Theatre()
    controls = [
        Route(f"/control/{verb}", getattr(theatre, verb), methods=["POST"]) for verb in ("open", "start", "seen")
    ]
    app = Starlette(routes=[*controls, Mount("/", app=theatre)])
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False, date_header=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1_024)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    _serve()
