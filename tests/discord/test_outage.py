"""Processes that share a Redis lose it while they want more than the global limit: each goes on with its share."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from asgi_ratelimit.discord import DiscordClient
from tests.support.discord_runs import CHANNEL, PATIENCE, new_client, send
from tests.support.fake_discord_servers import Town, town
from tests.support.servers import KINDS, Server
from tests.support.stores import new_store

BEFORE, OUTAGE = 2.0, 6.0  # seconds
CALLERS = 25  # of each process: together they want far more than 50 calls a second

_numbers = itertools.count()


@pytest.fixture(scope="module")
def fakes() -> Iterator[Town]:
    with town() as fakes:
        yield fakes


async def keep_sending(discord: DiscordClient) -> None:
    while True:
        await send(discord, "x", CHANNEL + next(_numbers) % 5_000)


@pytest.mark.anyio
@pytest.mark.parametrize("processes", [3, 6])
async def test_an_outage_of_redis_draws_hardly_any_429(fakes: Town, processes: int) -> None:
    fake = await fakes.open()
    prefix = f"outage {secrets.token_hex(4)}"
    with Server(KINDS[0]) as server:
        async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
            bots = []
            for _ in range(processes):
                store = await stack.enter_async_context(new_store(server.url, prefix=prefix, outage="local"))
                bots.append(await stack.enter_async_context(new_client(fake, store=store)))
            callers = [asyncio.ensure_future(keep_sending(bot)) for bot in bots for _ in range(CALLERS)]
            await asyncio.sleep(BEFORE)
            assert (await fake.report()).refused == []
            server.kill()
            await asyncio.sleep(OUTAGE)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            report = await fake.report()
    sys.stdout.write(f"{processes} processes: {len(report.refused)} of {len(report.requests)} refused\n")
    assert len(report.refused) <= 20, "there were 50 a second with three processes, and 125 with six"
    assert len(report.requests) >= 50 * (BEFORE + OUTAGE) * 0.5, "and they went on"
