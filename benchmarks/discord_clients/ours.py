"""asgi_ratelimit's DiscordClient: over Redis where the job names one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.redis import RedisStore
from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    store = RedisStore(job["redis"]) if job["redis"] else MemoryStore()
    base_url, most = f"{job['address']}{PREFIX}", job["global_limit"]
    async with DiscordClient(TOKEN, base_url=base_url, store=store, global_limit=most) as discord:

        async def send(channel: int, name: int) -> None:
            response = await discord.post(f"/channels/{channel}/messages", json={"content": str(name)})
            response.raise_for_status()

        async def react(channel: int, message: int) -> None:
            path = f"/channels/{channel}/messages/{message}/reactions/{quote(EMOJI)}/@me"
            (await discord.put(path)).raise_for_status()

        yield {"send": send, "react": react}


if __name__ == "__main__":
    run(connect)
