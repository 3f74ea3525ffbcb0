"""The candidates over Redis: for each one check in its own API, and how to close it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from benchmarks.candidates import Allowance

__all__ = [
    "ALONE",
    "BURST",
    "FLOOD",
    "FLOOR",
    "GLIDE",
    "MEMORY",
    "OURS",
    "OWN_EVALSHA",
    "PEERS",
    "TOGETHER",
    "Degraded",
    "Entrant",
]


class Entrant(NamedTuple):
    check: Callable[[str], Awaitable[bool]]  # whether the key is allowed
    close: Callable[[], Awaitable[object]]


# Builds a candidate for a server's URL and an allowance. `connections`: the most it may open, and then wait for one;
# None: as its own default has it.
Build = Callable[[str, Allowance, int | None], Awaitable[Entrant]]


# Ours


class Degraded(Exception):
    """Answered without Redis."""


def ours(kind: str = "TokenBucket", *, outage: Literal["local", "closed"] = "closed", **options: Any) -> Build:
    """Without Redis its checks raise StoreUnavailable, or Degraded where that is not to be an error."""

    async def build(url: str, allowance: Allowance, connections: int | None) -> Entrant:
        import asgi_ratelimit
        from asgi_ratelimit.redis import RedisStore

        store = RedisStore(url, outage=outage, **options)
        limit = getattr(asgi_ratelimit, kind)(f"{allowance.count}/{allowance.seconds}s")
        limiter = asgi_ratelimit.Limiter(limit, store=store, name="bench")
        await store.start()

        async def check(key: str) -> bool:
            return (await limiter.try_acquire(key)).allowed

        async def check_where(key: str) -> bool:
            decision = await limiter.try_acquire(key)
            if decision.reason == "degraded":
                raise Degraded
            return decision.allowed

        return Entrant(check if outage == "closed" else check_where, store.aclose)

    return build


# The floors: a minimal GCRA that answers yes or no, and redis-py

_ONE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + ARGV[1]
if full_at - now > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return 1
"""
_MANY = """
local time = redis.call('TIME')
local now, interval, depth = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local answers = {}
for i, key in ipairs(KEYS) do
  local full_at = math.max(tonumber(redis.call('GET', key) or now), now) + interval
  answers[i] = full_at - now > depth and 0 or 1
  if answers[i] == 1 then
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  end
end
return answers
"""


class Queue:
    """Checks that come while `calls` calls are in flight leave together in the next one, `most` of them at most."""

    def __init__(self, send: Callable[[Sequence[str]], Awaitable[Sequence[int]]], calls: int, most: int) -> None:
        self.send, self.calls, self.most = send, calls, most
        self.waiting: list[tuple[str, asyncio.Future[bool]]] = []
        self.flights: set[asyncio.Task[None] | None] = set()

    def check(self, key: str) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append((key, answer))
        if len(self.flights) < self.calls:
            self.flights.add(asyncio.create_task(self.fly()))
        return answer

    async def fly(self) -> None:
        while self.waiting:
            leaving, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            try:
                answers = await self.send([key for key, _ in leaving])
            except Exception as error:
                for _, future in leaving:
                    future.set_exception(error)
            else:
                for (_, future), answer in zip(leaving, answers, strict=True):
                    future.set_result(bool(answer))
        self.flights.discard(asyncio.current_task())


async def _scripted(url: str, allowance: Allowance, connections: int | None, script: str) -> tuple[Any, str, list[int]]:
    """A client, the script's name and its arguments."""
    from redis.asyncio import BlockingConnectionPool, Redis

    waiting = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=None) if connections else None
    client: Any = Redis(connection_pool=waiting) if waiting else Redis.from_url(url)
    interval = allowance.seconds * 1_000_000 // allowance.count
    return client, await client.script_load(script), [interval, interval * allowance.count]


async def one_by_one(url: str, allowance: Allowance, connections: int | None) -> Entrant:
    client, sha, numbers = await _scripted(url, allowance, connections, _ONE)

    async def check(key: str) -> bool:
        return bool(await client.evalsha(sha, 1, f"floor:{key}", *numbers))

    return Entrant(check, client.connection_pool.disconnect)


async def pipelined(url: str, allowance: Allowance, connections: int | None) -> Entrant:
    client, sha, numbers = await _scripted(url, allowance, connections, _ONE)

    async def send(keys: Sequence[str]) -> Sequence[int]:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.evalsha(sha, 1, f"floor:{key}", *numbers)
        return await pipeline.execute()  # type: ignore[no-any-return]

    return Entrant(Queue(send, 1, _MOST).check, client.connection_pool.disconnect)


def many_keys(calls: int) -> Build:
    """Each of the calls in flight takes its share of the checks that are made at once, so that all of them are used."""

    async def build(url: str, allowance: Allowance, connections: int | None) -> Entrant:
        client, sha, numbers = await _scripted(url, allowance, connections, _MANY)

        async def send(keys: Sequence[str]) -> Sequence[int]:
            names = [f"floor:{key}" for key in keys]
            return await client.evalsha(sha, len(names), *names, *numbers)  # type: ignore[no-any-return]

        most = (connections or _MOST) // calls
        return Entrant(Queue(send, calls, most).check, client.connection_pool.disconnect)

    return build


# The peers


async def glide(url: str, allowance: Allowance, connections: int | None) -> Entrant:
    """One connection for all checks, each with its own call. It has no script that takes many."""
    from glide import GlideClient, GlideClientConfiguration, NodeAddress, Script

    address = urlsplit(url)
    patience = round(_PATIENT * 1e3) if connections else None
    configuration = GlideClientConfiguration([NodeAddress(address.hostname, address.port)], request_timeout=patience)
    client = await GlideClient.create(configuration)
    script, interval = Script(_ONE), allowance.seconds * 1_000_000 // allowance.count
    numbers = [str(interval), str(interval * allowance.count)]

    async def check(key: str) -> bool:
        return bool(await client.invoke_script(script, [f"floor:{key}"], numbers))

    return Entrant(check, client.close)


def limits(strategy: str) -> Build:
    async def build(url: str, allowance: Allowance, connections: int | None) -> Entrant:
        from limits import RateLimitItemPerSecond
        from limits.aio import strategies
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool

        options: Any = {}
        if connections:
            pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=None)
            options = {"connection_pool": pool}
        storage = RedisStorage(f"async+{url}", implementation="redispy", key_prefix=strategy, **options)
        limiter = getattr(strategies, strategy)(storage)
        item = RateLimitItemPerSecond(allowance.count, allowance.seconds)
        client: Any = storage.bridge.get_connection()
        return Entrant(partial(limiter.hit, item), client.connection_pool.disconnect)

    return build


def throttled(algorithm: str) -> Build:
    async def build(url: str, allowance: Allowance, connections: int | None) -> Entrant:
        from throttled.asyncio import RedisStore, Throttled, per_duration

        options: Any = {}
        if connections:
            options = {
                "CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
                "CONNECTION_POOL_KWARGS": {"max_connections": connections, "timeout": None},
            }
        store = RedisStore(server=url, options=options)
        quota = per_duration(timedelta(seconds=allowance.seconds), allowance.count)
        throttle = Throttled(using=algorithm, quota=quota, store=store)

        async def check(key: str) -> bool:
            return not (await throttle.limit(key)).limited

        client: Any = store._backend.get_client()
        return Entrant(check, client.connection_pool.disconnect)

    return build


_MOST = 1_000  # checks in a call
# Everybody else waits for as long as it takes; left at 0.1 s, ours would answer by itself whenever the machine is busy.
_PATIENT = 10.0

OURS = "**asgi_ratelimit, token bucket**"
FLOOR = "one EVALSHA for the checks that queue, two calls in flight (the floor)"
GLIDE = "valkey-glide, one script call per check"
OWN_EVALSHA = "redis-py, one EVALSHA per check"

PEERS: dict[str, Build] = {
    "limits.aio (redis-py), fixed window": limits("FixedWindowRateLimiter"),
    "throttled-py, GCRA": throttled("gcra"),
    "throttled-py, token bucket": throttled("token_bucket"),
    GLIDE: glide,
}
TOGETHER: dict[str, Build] = {
    FLOOR: many_keys(2),
    "one EVALSHA for the checks that queue, one call in flight": many_keys(1),
    "one pipeline for the checks that queue, one call in flight": pipelined,
    OURS: ours(timeout=_PATIENT),
    OWN_EVALSHA: one_by_one,
    **PEERS,
}
ALONE: dict[str, Build] = {OWN_EVALSHA: one_by_one, OURS: ours(timeout=_PATIENT), **PEERS}
BURST: dict[str, Build] = {OURS: ours(outage="local"), **PEERS}
FLOOD: dict[str, Build] = {
    OURS: ours(timeout=_PATIENT),
    f"{OURS}, deny_cache=0": ours(timeout=_PATIENT, deny_cache=0),
    **PEERS,
}
MEMORY: dict[str, tuple[Build, int]] = {  # with the number of checks of each key
    "a minimal GCRA (the floor)": (one_by_one, 1),
    OURS: (ours(timeout=_PATIENT), 1),
    "throttled-py, GCRA": (throttled("gcra"), 1),
    "throttled-py, token bucket": (throttled("token_bucket"), 1),
    "**asgi_ratelimit, fixed window**": (ours("FixedWindow", timeout=_PATIENT), 1),
    "limits.aio, fixed window": (limits("FixedWindowRateLimiter"), 1),
    "**asgi_ratelimit, sliding window**": (ours("SlidingWindow", timeout=_PATIENT), 1),
    "limits.aio, moving window": (limits("MovingWindowRateLimiter"), 1),
    "**asgi_ratelimit, sliding window**, 10 checks": (ours("SlidingWindow", timeout=_PATIENT), 10),
    "limits.aio, moving window, 10 checks": (limits("MovingWindowRateLimiter"), 10),
}
