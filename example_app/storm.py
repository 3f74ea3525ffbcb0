"""A storm of requests against this very app, within the process: bounded in length, and reported while it lasts."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Scope

from asgi_ratelimit.load import server_load

__all__ = ["FLOODS", "KINDS", "LENGTHS", "PART_OF_A_STORM", "WORK_S", "Kind", "Plan", "Storm", "priority", "work"]

Kind = Literal["payments", "pages", "suggestions"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)  # their places are their classes
FLOODS: Final = {"0.5": "50 %", "1": "100 %", "3": "300 %"}
LENGTHS: Final = {"2": "2 s", "5": "5 s"}
WORK_S, WAIT_S = 0.004, 0.01  # that one request works, and waits
PART_OF_A_STORM: Final = "example_app.storm"  # in the scope of its requests, where no client can put it

_SHARES: Final = {0: 0, 5: 1, 10: 1, 15: 1}  # of twenty requests one is a payment, three are pages
_CALM_S, _CALM_FLOOD = 0.7, 0.4  # before the storm, so that the app gets to know these requests
_PAUSE_S: Final = 0.004  # between two looks at the requests that are due
_LOOK_S: Final = 0.1
_HEALTH_S: Final = 0.2
_MOST_WAITING: Final = 1_000  # requests; further ones are not sent
_IMPORTANT: Final = ("/operator", "/login", "/logout")


def priority(conn: HTTPConnection) -> int:
    """The class of a request for LoadShedMiddleware: its payments, the operator and the log-in come first."""
    path: str = conn.scope["path"]
    if path.startswith("/storm/"):
        kind = path.removeprefix("/storm/")
        return KINDS.index(kind) if kind in KINDS else len(KINDS)
    return 0 if path.startswith(_IMPORTANT) else 1


async def work() -> None:
    """The work of one request: it takes the processor for a while, and waits for something else."""
    end = time.perf_counter() + WORK_S
    while time.perf_counter() < end:
        pass
    await asyncio.sleep(WAIT_S)


class Plan(BaseModel):
    """The choices of a visitor. `flood`: how many times more than one processor can serve."""

    flood: float = Field(3, gt=0, le=3)
    seconds: float = Field(5, gt=0, le=5)


class Storm:
    """The requests of a plan: few at first, then as many each second as it says, whether they are answered or not.

    The time that one takes begins when it is due, so it contains the time for which the event loop is late.
    """

    def __init__(self, app: ASGIApp, host: str, plan: Plan) -> None:
        self._app, self._host, self._plan = app, host, plan
        self._served: list[list[float]] = [[] for _ in KINDS]  # the seconds that each took, by class
        self._shed = [0 for _ in KINDS]
        self._health: list[tuple[bool, float]] = []
        self._began = 0.0

    async def lines(self) -> AsyncIterator[str]:
        """One JSON object for each tenth of a second, and one at the end. A reader that stops ends the storm."""
        running = asyncio.create_task(self._run())
        self._began = time.perf_counter()
        try:
            while not running.done():
                await asyncio.wait([running], timeout=_LOOK_S)
                yield self._line("end" if running.done() else "look")
            await running
        finally:
            running.cancel()

    async def _run(self) -> None:
        calls: set[asyncio.Task[None]] = set()
        checks = asyncio.create_task(self._check_health())
        try:
            await self._send_all(calls)
            if calls:
                await asyncio.wait(calls, timeout=1)
        finally:
            for task in (checks, *calls):
                task.cancel()

    async def _send_all(self, calls: set[asyncio.Task[None]]) -> None:
        began, sent, seconds = time.perf_counter(), 0, _CALM_S + self._plan.seconds
        while (elapsed := time.perf_counter() - began) < seconds:
            while (due := self._due(sent)) <= elapsed:
                if len(calls) < _MOST_WAITING:
                    task = asyncio.create_task(self._call(_SHARES.get(sent % 20, 2), began + due))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                sent += 1
            await asyncio.sleep(_PAUSE_S)

    def _due(self, number: int) -> float:
        """When a request is due, in seconds from the beginning."""
        calm = min(_CALM_FLOOD, self._plan.flood) / WORK_S
        at_first = int(calm * _CALM_S)
        return number / calm if number < at_first else _CALM_S + (number - at_first) * WORK_S / self._plan.flood

    async def _call(self, place: int, due: float) -> None:
        if await self._get(f"/storm/{KINDS[place]}") == 200:
            self._served[place].append(time.perf_counter() - due)
        else:
            self._shed[place] += 1

    async def _check_health(self) -> None:
        due = time.perf_counter()
        while True:
            is_well = await self._get("/health") == 200
            self._health.append((is_well, time.perf_counter() - due))
            due = max(due + _HEALTH_S, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())

    async def _get(self, path: str) -> int:
        """The status of the response."""
        statuses = [0]

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._app(self._scope(path), receive, send)
        return statuses[-1]

    def _scope(self, path: str) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", self._host.encode())],
            "client": ("127.0.0.1", 1),
            "server": None,
            PART_OF_A_STORM: True,
        }

    def _line(self, kind: str) -> str:
        at = round(time.perf_counter() - self._began, 3)
        classes: list[dict[str, Any]] = [
            {"served": len(served), "shed": shed, "ms": _median_ms(served)}
            for served, shed in zip(self._served, self._shed, strict=True)
        ]
        health = {
            "asked": len(self._health),
            "answered": sum(is_well for is_well, _ in self._health),
            "slowest_ms": _ms(max((seconds for _, seconds in self._health), default=0)),
        }
        return json.dumps({"kind": kind, "at": at, "load": server_load(), "classes": classes, "health": health}) + "\n"


def _median_ms(seconds: list[float]) -> float | None:
    return _ms(statistics.median(seconds)) if seconds else None


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)
