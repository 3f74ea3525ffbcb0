"""discord.py: a logged-in Client without a gateway."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import discord


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    discord.http.Route.BASE = f"{job['address']}{PREFIX}"  # it has no option for it
    async with discord.Client(intents=discord.Intents.none()) as client:
        await client.login(TOKEN)

        async def send(channel: int, name: int) -> None:
            await client.get_partial_messageable(channel).send(str(name))

        async def react(channel: int, message: int) -> None:
            await client.get_partial_messageable(channel).get_partial_message(message).add_reaction(EMOJI)

        yield {"send": send, "react": react}


if __name__ == "__main__":
    run("discord.py", connect)
