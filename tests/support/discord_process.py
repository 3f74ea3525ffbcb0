"""One of the processes that share a token through Redis: test_processes.py starts it and reads its results.

It reads its jobs, writes "ready", waits for a line, does all jobs at the same time, and writes the results.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.redis import RedisStore
from tests.support.discord_runs import PATIENCE, send_all, watched
from tests.support.fake_discord_servers import UNUSED_TLS

OUTAGE = 10.0  # s without an answer of Redis: a busy machine is none


@dataclass(frozen=True, slots=True)
class Job:
    """`count` messages, the i-th to channel i modulo `channels`, all at once."""

    base_url: str
    redis_url: str
    prefix: str
    name: str
    count: int
    channels: int = 1


@dataclass(slots=True)
class Sent:
    """The outcome of a job. Moments are seconds of this machine's monotonic clock, which all processes share."""

    statuses: dict[int, int] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    late: float = 0.0  # for how long of that its loop was late


async def work(jobs: list[Job]) -> list[Sent]:
    async with AsyncExitStack() as stack:
        clients = [await _client_of(job, stack) for job in jobs]
        write_line("ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return await asyncio.gather(*map(_send_all, clients, jobs))


async def _client_of(job: Job, stack: AsyncExitStack) -> DiscordClient:
    store = RedisStore(job.redis_url, prefix=job.prefix, timeout=OUTAGE, outage="closed")
    await stack.enter_async_context(store)
    discord = DiscordClient(
        "test", base_url=job.base_url, store=store, verify=UNUSED_TLS, timeout=PATIENCE, trust_env=False
    )
    return await stack.enter_async_context(discord)


async def _send_all(discord: DiscordClient, job: Job) -> Sent:
    async with watched() as watch:
        responses = await send_all(discord, [f"{job.name} {i}" for i in range(job.count)], job.channels)
    statuses = Counter(response.status_code for response in responses)
    return Sent(dict(statuses), watch.started, watch.started + watch.took, watch.late)


def write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    jobs = [Job(**job) for job in json.loads(sys.stdin.readline())]
    write_line(json.dumps([asdict(sent) for sent in asyncio.run(work(jobs))]))
