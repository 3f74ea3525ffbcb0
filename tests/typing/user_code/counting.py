"""What an app sees of its limits: counts of one process, and of all that share a Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from asgi_ratelimit.observe import KeyCounts, LimiterCounts, Outage, Period, Snapshot, Stats, shared_snapshot
from asgi_ratelimit.redis import RedisStore

stats = Stats(top=20, keys="digest")
store = RedisStore("redis://localhost:6379", observers=[stats])


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with store, stats.sharing(store):
        yield


app = Starlette(lifespan=lifespan)


def line(counts: LimiterCounts) -> str:
    busiest: Period | None = counts.busiest
    heaviest: KeyCounts | None = next(iter(counts.keys), None)
    return (
        f"{counts.name}: {counts.refused} refused, {busiest and busiest.total} in a minute, {heaviest and heaviest.key}"
    )


async def page() -> str:
    snapshot: Snapshot = await stats.share(store)
    both = Snapshot.merge([snapshot, await shared_snapshot(store)])
    down: list[Outage] = [outage for outage in both.outages if outage.seconds is None]
    return json.dumps([Snapshot.from_dict(both.to_dict()).time, *map(line, both.limiters.values()), len(down)])


if __name__ == "__main__":
    stats.reset()
    print(stats.snapshot().processes)
