"""Runs of a client against a fake Discord in another process: sending, and what has to be true afterwards."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from asgi_ratelimit.discord import DiscordClient
from tests.discord.servers import PROFILES, UNUSED_TLS, Remote, Report

CHANNEL = 100_000
PATIENCE = 60.0  # seconds for a run; none takes half as long
BUSY = 0.5  # seconds for which the other process may be kept from running


def new_client(fake: Remote, token: str = "test", **options: Any) -> DiscordClient:
    """A client of this fake; it asks for no proxy, and waits for answers as long as a run may take."""
    chosen: dict[str, Any] = {"trust_env": False, "timeout": PATIENCE} | options
    if "transport" not in options:
        chosen["verify"] = UNUSED_TLS
    return DiscordClient(token, base_url=fake.base_url, **chosen)


async def send(discord: httpx.AsyncClient, content: str, channel: int = CHANNEL) -> httpx.Response:
    return await discord.post(f"/channels/{channel}/messages", json={"content": content})


async def send_all(discord: httpx.AsyncClient, names: Sequence[str], channels: int = 1) -> list[httpx.Response]:
    """All of them at once, the i-th to the channel i modulo `channels`."""
    return await asyncio.gather(*(send(discord, name, CHANNEL + i % channels) for i, name in enumerate(names)))


class Spread(httpx.AsyncBaseTransport):
    """Several pools of connections: one that is large spends more time on looking through them than on requests."""

    def __init__(self, pools: int) -> None:
        self._pools = [httpx.AsyncHTTPTransport(verify=UNUSED_TLS) for _ in range(pools)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._pools[hash(request.url.path) % len(self._pools)].handle_async_request(request)

    async def aclose(self) -> None:
        await asyncio.gather(*(pool.aclose() for pool in self._pools))


def names_of(number: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{i}" for i in range(number)]


async def until_held(fake: Remote, number: int) -> None:
    """Return once the fake keeps so many answers back."""
    while await fake.do("held") < number:
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Watch:
    """How long something took, and for how much of that this process's loop was late.

    A machine that does other work makes every run slower: that is not the client's doing, and is taken off.
    """

    begun: float
    took: float = 0.0
    late: float = 0.0

    def check(self, what: str, ideal: float, *, windows: int = 0, profile: str = "no latency") -> None:
        """At most 5 % more than the ideal, and one round trip per window."""
        bound = 1.05 * ideal + windows * PROFILES[profile].round_trip + BUSY
        ratio = self.took / ideal
        said = f"{what} ({profile}): {self.took:.2f} s, ideal {ideal:.2f}, ratio {ratio:.3f}, late {self.late:.2f}"
        sys.stdout.write(f"{said}\n")
        assert self.took <= bound + self.late, said


@asynccontextmanager
async def watched(patience: float = PATIENCE) -> AsyncIterator[Watch]:
    """Measure the block, which has to end in time."""
    watch = Watch(time.monotonic())
    ticking = asyncio.ensure_future(_tick(watch))
    try:
        async with asyncio.timeout(patience):
            yield watch
    finally:
        watch.took = time.monotonic() - watch.begun
        ticking.cancel()


async def _tick(watch: Watch) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        watch.late += max(0.0, time.monotonic() - before - 0.006)


async def check_all_sent(
    fake: Remote, names: Sequence[str], responses: Sequence[httpx.Response], *, refused: int | range = 0
) -> Report:
    """Everything was answered with success, nothing lost or doubled, and so many calls were refused."""
    report = await fake.report()
    assert {response.status_code for response in responses} <= {200, 204}
    assert sorted(report.messages) == sorted(names)
    assert report.created == len(names)
    allowed = range(refused, refused + 1) if isinstance(refused, int) else refused
    assert len(report.refused) in allowed, report.refused
    return report
