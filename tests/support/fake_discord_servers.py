"""Fake Discords over real sockets: one process that serves any number of them, and reports their requests.

A process of its own, so that the client under test and the server do not share an interpreter's time.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Thread
from typing import Any

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.testing import FakeBucket, FakeDiscord
from asgi_ratelimit.testing.fake_discord.options import Latency, body_of
from tests.support.loop_lag import longest_stall, measure_loop_lag

CREATE = "POST /channels/{channel_id}/messages"
UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it takes a tenth of a second to make a whole one
SECONDS = 20.0  # for a reply to the test


def renames(body: Any) -> bool:
    """Whether a channel gets another name, of which Discord allows few."""
    return "name" in body


def with_spikes() -> float:
    """Mostly nothing to speak of, and a quarter of a second for one request of ten."""
    return 0.25 if random.random() < 0.1 else random.uniform(0.0, 0.02)


@dataclass(frozen=True, slots=True)
class Profile:
    """How long requests take on their way; `round_trip` is the time of the slowest one, in seconds."""

    latency: Latency
    round_trip: float


PROFILES = {
    "no latency": Profile(0.0, 0.01),
    "jitter": Profile((0.0, 0.06), 0.07),
    "spikes": Profile(with_spikes, 0.26),
}
FUNCTIONS: dict[str, Callable[[Any], bool]] = {"renames": renames}


# For the tests


@dataclass(slots=True)
class Report:
    """The requests of one fake Discord until now."""

    requests: list[dict[str, Any]]
    messages: list[str]  # the contents of those that were created
    created: int
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def refused(self) -> list[dict[str, Any]]:
        return [seen for seen in self.requests if seen["status"] == 429]

    def most_in(self, seconds: float) -> int:
        """The most requests that were counted in any such span, wherever it starts."""
        moments = sorted(seen["at"] for seen in self.requests)
        first, most = 0, 0
        for last, moment in enumerate(moments):
            while moments[first] <= moment - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


@dataclass(frozen=True, slots=True)
class Remote:
    """A fake Discord in the other process."""

    address: str
    name: str

    @property
    def base_url(self) -> str:
        return f"{self.address}/{self.name}/api/v10"

    async def do(self, verb: str, *values: Any, **options: Any) -> Any:
        """Have it do something, e.g. do("fail", 503, times=3)."""
        return await _request(self.address, {"name": self.name, "do": verb, "values": values, "options": options})

    async def report(self) -> Report:
        reply = await _request(self.address, {"name": self.name, "do": "report"})
        statuses = Counter(seen["status"] for seen in reply["requests"])
        return Report(**reply, statuses=statuses)


@dataclass(frozen=True, slots=True)
class Town:
    """The other process, and the fake Discords in it."""

    address: str
    numbers: Iterator[int] = field(default_factory=count)

    async def open(
        self, limits: dict[str, Any] | None = None, *, profile: str = "no latency", **options: Any
    ) -> Remote:
        """One more of them. A limit is a string, or a FakeBucket's arguments as a dict, or a list of those."""
        name = f"fake{next(self.numbers)}"
        await _request(self.address, {"name": name, "open": limits or {}, "profile": profile, "options": options})
        return Remote(self.address, name)

    async def longest_stall(self, since: float) -> float:
        """For how long the other process's loop stood still at a time, since that moment of the monotonic clock."""
        return float(await _request(self.address, {"name": "", "since": since}))


async def _request(address: str, question: dict[str, Any]) -> Any:
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False, verify=UNUSED_TLS) as client:
        response = await client.post(f"{address}/control", json=question)
    assert response.status_code == 200, response.text
    return response.json()


@contextmanager
def town() -> Iterator[Town]:
    """The other process, for as long as the block runs."""
    command = [sys.executable, "-m", "tests.support.fake_discord_servers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Town(process.stdout.readline().strip())
        finally:
            process.stdin.close()  # at which it ends
            process.wait(SECONDS)


# For the other process


class _Fakes:
    """An app in which the first segment of a path names the fake Discord."""

    def __init__(self) -> None:
        self._fakes: dict[str, FakeDiscord] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].split("/", 2)[1]
        if name in self._fakes:
            await self._fakes[name](scope, receive, send)
            return
        question = json.loads(await body_of(receive) or b"{}")
        try:
            status, reply = 200, self._answer(question)
        except Exception as error:
            status, reply = 500, repr(error)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

    def _answer(self, question: dict[str, Any]) -> Any:
        name, options = question["name"], question.get("options", {})
        if "since" in question:
            return longest_stall(question["since"])
        if "open" in question:
            limits = {route: _buckets(spec) for route, spec in question["open"].items()}
            self._fakes[name] = FakeDiscord(limits, latency=PROFILES[question["profile"]].latency, **options)
            return None
        if question["do"] == "report":
            return _told(self._fakes[name])
        if question["do"] == "held":
            return self._fakes[name].held
        getattr(self._fakes[name], question["do"])(*question["values"], **options)
        return None


def _buckets(spec: Any) -> Any:
    if isinstance(spec, list):
        return [_buckets(each) for each in spec]
    if isinstance(spec, str):
        return spec
    if "only_if" in spec:
        spec["only_if"] = FUNCTIONS[spec["only_if"]]
    return FakeBucket(**spec)


def _told(fake: FakeDiscord) -> dict[str, Any]:
    requests = [
        {"at": seen.at, "status": seen.status, "path": seen.path, "scope": seen.scope, "bucket": seen.bucket}
        for seen in fake.requests
    ]
    return {
        "requests": requests,
        "messages": [message["content"] for message in fake.messages],
        "created": fake.created,
    }


async def serve() -> None:
    """Serve until the input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        async with measure_loop_lag():
            config = uvicorn.Config(
                _Fakes(), lifespan="off", ws="none", log_config=None, access_log=False, timeout_keep_alive=60
            )
            server = uvicorn.Server(config)
            sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}\n")
            sys.stdout.flush()

            def watch() -> None:
                sys.stdin.read()
                server.should_exit = server.force_exit = True

            Thread(target=watch, daemon=True).start()
            await server.serve([listening])


if __name__ == "__main__":
    asyncio.run(serve())
