"""An app under load, simulated: the real middleware on asyncio's loop in virtual time, so each run is the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.load import LoadShedMiddleware
from tests.support.virtual_loop import VirtualLoop

__all__ = ["Phase", "Served", "Simulation"]

SERVER_S = 0.0001  # that the server itself works for each request


@dataclass(frozen=True)
class Phase:
    """So many requests a second for so many seconds, as they come at random."""

    rate: float
    seconds: float


@dataclass
class Served:
    """One request: when its client sent it, what it got and when."""

    phase: int
    path: str
    priority: int
    sent: float
    status: int = 0
    done: float = 0.0

    @property
    def seconds(self) -> float:
        return self.done - self.sent


@dataclass
class Simulation:
    """Each request works for `work` seconds and waits for `wait`, or what `job` of its path says.

    mix: the share of each class; a hundredth of all are health checks
    """

    work: float = 0.004
    wait: float = 0.010
    mix: Sequence[float] = (0.1, 0.4, 0.5)
    options: dict[str, Any] = field(default_factory=dict)
    middleware: type[LoadShedMiddleware] | None = LoadShedMiddleware
    seed: int = 1
    served: list[Served] = field(default_factory=list)

    def run(self, *phases: Phase) -> list[Served]:
        self.loop = VirtualLoop()
        self.random = random.Random(self.seed)
        self.in_flight = 0
        self.loop.run(self._run(phases))
        return self.served

    async def _run(self, phases: Sequence[Phase]) -> None:
        loop, app = self.loop, self._app()
        tasks: set[asyncio.Task[None]] = set()
        moment = loop.time()
        for number, phase in enumerate(phases):
            end = moment + phase.seconds
            while (moment := moment + self.random.expovariate(phase.rate)) < end:
                if moment > loop.time():  # all that came while the loop was busy are read in one turn
                    await asyncio.sleep(moment - loop.time())
                task = asyncio.create_task(self._request(app, self._new(number, moment)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            moment = end
        await asyncio.gather(*tasks)

    def _new(self, phase: int, moment: float) -> Served:
        is_health_check = self.random.random() < 0.01
        priority = self.random.choices(range(len(self.mix)), self.mix)[0]
        served = Served(phase, "/health" if is_health_check else "/", priority, moment)
        self.served.append(served)
        return served

    def _app(self) -> ASGIApp:
        if self.middleware is None:
            return self._serve
        store = MemoryStore(clock=self.loop.clock)
        options = {"priority": lambda conn: int(conn.headers["x-class"]), **self.options}
        simulated = type("Simulated", (self.middleware,), {"worked_s": lambda _: self.loop.worked})
        app: ASGIApp = simulated(self._serve, store=store, **options)
        return app

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.in_flight += 1
        if scope["path"] != "/health":
            self.loop.work(self.work)
            await asyncio.sleep(self.wait)
        self.in_flight -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _request(self, app: ASGIApp, served: Served) -> None:
        self.loop.work(SERVER_S)
        scope = {
            "type": "http", "method": "GET", "path": served.path, "root_path": "", "query_string": b"",
            "headers": [(b"x-class", b"%d" % served.priority)],
        }  # fmt: skip

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                served.status, served.done = message["status"], self.loop.time()

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await app(scope, receive, send)
