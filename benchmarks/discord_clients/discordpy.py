"""discord.py, or a library that began as a copy of it: a logged-in Client without a gateway."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        library = import_module(job["library"])
    route = library.http.Route  # none of them has an option for it
    setattr(route, "BASE" if hasattr(route, "BASE") else "API_BASE_URL", f"{job['address']}{PREFIX}")
    client = library.Client(intents=library.Intents.none())
    try:
        await client.login(TOKEN)

        async def send(channel: int, name: int) -> None:
            await client.get_partial_messageable(channel).send(str(name))

        async def react(channel: int, message: int) -> None:
            await client.http.add_reaction(channel, message, EMOJI)  # the objects above it differ

        yield {"send": send, "react": react}
    finally:
        await client.close()


if __name__ == "__main__":
    run(connect)
