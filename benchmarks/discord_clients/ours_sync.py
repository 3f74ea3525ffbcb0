"""asgi_ratelimit's SyncDiscordClient: one client, and a thread for each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import SyncDiscordClient
from asgi_ratelimit.redis import RedisStore
from benchmarks.discord_clients.job import EMOJI, PREFIX, TOKEN, Verb, run


@asynccontextmanager
async def connect(job: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Verb]]:
    store = RedisStore(job["redis"]) if job["redis"] else MemoryStore()
    base_url, most = f"{job['address']}{PREFIX}", job["global_limit"]
    threads = ThreadPoolExecutor(len(job["calls"]))
    with threads, SyncDiscordClient(TOKEN, base_url=base_url, store=store, global_limit=most) as discord:

        def ask(method: str, path: str, **options: Any) -> None:
            discord.request(method, path, **options).raise_for_status()

        async def send(channel: int, name: int) -> None:
            content = {"content": str(name)}
            path = f"/channels/{channel}/messages"
            await _in_thread(threads, lambda: ask("POST", path, json=content))

        async def react(channel: int, message: int) -> None:
            path = f"/channels/{channel}/messages/{message}/reactions/{quote(EMOJI)}/@me"
            await _in_thread(threads, lambda: ask("PUT", path))

        yield {"send": send, "react": react}


async def _in_thread(threads: ThreadPoolExecutor, call: Any) -> None:
    await asyncio.get_running_loop().run_in_executor(threads, call)


if __name__ == "__main__":
    run(connect)
