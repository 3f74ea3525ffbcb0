"""Runs of a client against a fake Discord in another process: sending, and the checks afterwards."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import httpx

from asgi_ratelimit.discord import DiscordClient
from tests.support.fake_discord_servers import PROFILES, UNUSED_TLS, Remote, Report
from tests.support.loop_lag import longest_stall, measure_loop_lag

CHANNEL = 100_000
PATIENCE = 60.0  # seconds for a run; none takes half as long
BUSY = 0.5  # seconds for which the other process may be kept from running
TOO_LONG = 0.1  # seconds for which a loop stood still: limits of a second cannot be observed then

P = ParamSpec("P")
Run = Callable[P, Coroutine[Any, Any, None]]


def new_client(fake: Remote, token: str = "test", **options: Any) -> DiscordClient:
    """A client of this fake; it uses no proxy, and waits for responses as long as a run may take."""
    chosen: dict[str, Any] = {"trust_env": False, "timeout": PATIENCE} | options
    if "transport" not in options:
        chosen["verify"] = UNUSED_TLS
    return DiscordClient(token, base_url=fake.base_url, **chosen)


async def send(discord: httpx.AsyncClient, content: str, channel: int = CHANNEL) -> httpx.Response:
    return await discord.post(f"/channels/{channel}/messages", json={"content": content})


async def send_all(discord: httpx.AsyncClient, names: Sequence[str], channels: int = 1) -> list[httpx.Response]:
    """All of them at once, the i-th to the channel i modulo `channels`."""
    return await asyncio.gather(*(send(discord, name, CHANNEL + i % channels) for i, name in enumerate(names)))


def names_of(number: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{i}" for i in range(number)]


async def until_held(fake: Remote, number: int) -> None:
    """Return once the fake holds so many responses back."""
    while await fake.do("held") < number:
        await asyncio.sleep(0.01)


async def until_created(fake: Remote, number: int) -> None:
    """Return once so many messages have arrived."""
    while (await fake.report()).created < number:
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Watch:
    """How long something took, and for how much of that this process's loop was late.

    A machine that does other work makes every run slower: that is not the client's doing, and is taken off.
    """

    started: float
    took: float = 0.0
    late: float = 0.0

    def check(self, name: str, ideal: float, *, windows: int = 0, profile: str = "no latency") -> None:
        """At most 5 % more than the ideal, and one round trip per window."""
        bound = 1.05 * ideal + windows * PROFILES[profile].round_trip + BUSY
        ratio = self.took / ideal
        summary = f"{name} ({profile}): {self.took:.2f} s, ideal {ideal:.2f}, ratio {ratio:.3f}, late {self.late:.2f}"
        sys.stdout.write(f"{summary}\n")
        assert self.took <= bound + self.late, summary


@asynccontextmanager
async def watched(patience: float = PATIENCE) -> AsyncIterator[Watch]:
    """Measure the block, which has to end in time."""
    watch = Watch(time.monotonic())
    async with measure_loop_lag() as lag:
        try:
            async with asyncio.timeout(patience):
                yield watch
        finally:
            watch.took, watch.late = time.monotonic() - watch.started, lag.total


def undisturbed(run: Run[P]) -> Run[P]:
    """Run it again if it failed while client or server stood still for longer than its limits leave room for.

    A machine that does other work can delay an answer by more than a window; a client cannot see that, so no test
    requires it. A run that fails three times fails. `fakes` is the server where that is another process.
    """

    @wraps(run)
    async def judged(*args: P.args, **kwargs: P.kwargs) -> None:
        fakes: Any = kwargs.get("fakes")
        for _ in range(2):
            started = time.monotonic()
            async with measure_loop_lag():
                try:
                    return await run(*args, **kwargs)
                except AssertionError as error:
                    stall = longest_stall(started)
                    if fakes is not None:
                        stall = max(stall, await fakes.longest_stall(started))
                    if stall < TOO_LONG:
                        raise
                    sys.stdout.write(f"{run.__name__}: again, after a stall of {stall:.2f} s: {error}\n")
        return await run(*args, **kwargs)

    return judged


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
