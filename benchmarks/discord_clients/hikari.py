"""hikari: the client of a RESTApp."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import hikari

from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    app = hikari.RESTApp(url=f"{job['address']}{PREFIX}")
    await app.start()
    try:
        async with app.acquire(TOKEN, "Bot") as client:

            async def send(channel: int, name: int) -> None:
                await client.create_message(channel, str(name))

            async def react(channel: int, message: int) -> None:
                await client.add_reaction(channel, message, EMOJI)

            yield {"send": send, "react": react}
    finally:
        await app.close()


if __name__ == "__main__":
    run(connect)
