"""A look at a Redis as a RedisStore uses it. What it writes is gone when it ends."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from asgi_ratelimit.cli.examination.findings import Finding, worst_of
from asgi_ratelimit.cli.examination.server_facts import ServerFacts, facts_of
from asgi_ratelimit.cli.examination.server_settings import clock_of, eviction_of, role_of, room_of, version_of
from asgi_ratelimit.cli.examination.transport import transport_of
from asgi_ratelimit.cli.redis_limiter import open_store
from asgi_ratelimit.cli.running import cause_of
from asgi_ratelimit.cli.screen import duration
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.redis.address import locate
from asgi_ratelimit.redis.servers import masters_in, slot_ranges

if TYPE_CHECKING:
    from asgi_ratelimit.redis.address import Address, Location

__all__ = ["examine_redis", "latency"]

_SLOTS: Final = 16_384
_NAME: Final = "asgi-ratelimit doctor"  # of its limiter
_LIMIT: Final = "1000/s"  # so that a bucket of one call is gone after a millisecond
_CHECKS, _SECONDS = 200, 2.0  # at most so many to measure the latency, and for so long
_PATIENCE = 5.0  # seconds for one check


async def examine_redis(url: str, *, prefix: str, timeout: float) -> tuple[str, list[Finding]]:
    """What it is, and the findings. `timeout` is that of the app's store. Raises ValueError for a bad URL."""
    location = locate(url)
    about = f"Redis: {location.name}"
    reached = Finding("ok", "connection", "It answers.")
    try:
        addresses, slots = await _servers(location)
        facts = [await facts_of(location, address) for address in addresses]
    except Exception as error:  # of redis-py, of the system, or of the TLS options
        return about, [_unreachable(location, error)]
    found = [reached, *slots, transport_of(url), *_settings(facts, location.kind)]
    return about, [*found, *await _work(url, prefix, timeout)]


async def _servers(location: Location) -> tuple[Sequence[Address | None], list[Finding]]:
    """The servers to look at, and whether they have all slots if it is a cluster."""
    if location.kind != "cluster":
        return [None], []
    try:
        ranges = await slot_ranges(location)
    except RedisError as error:
        if "cluster support disabled" not in str(error):
            raise
        raise ValueError("it is no cluster: write the URL without +cluster") from None
    masters, served = masters_in(ranges), sum(last - first + 1 for first, last, _ in ranges)
    if served == _SLOTS:
        return masters, [Finding("ok", "cluster", f"{len(masters)} masters have all {_SLOTS} slots.")]
    says = f"{_SLOTS - served} of {_SLOTS} slots have no master: their keys are decided as in an outage."
    return masters, [Finding("bad", "cluster", says, "Run redis-cli --cluster check, and give each slot a master.")]


def _unreachable(location: Location, error: Exception) -> Finding:
    cause = "it took too long" if isinstance(error, TimeoutError) else cause_of(error)
    advice = "Check the address, the user and password, firewalls, and whether it runs."
    if "SSL" in cause or "TLS" in cause or "certificate" in cause:
        advice = "Check rediss:// and ?ssl_ca_certs=, and that the certificate is for this host."
    return Finding("bad", "connection", f"{location.name} does not answer as it should: {cause}.", advice)


def _settings(servers: Sequence[ServerFacts], kind: str) -> list[Finding]:
    names = [facts.name for facts in servers]
    looks = [
        [version_of(facts) for facts in servers],
        [role_of(facts, kind) for facts in servers],
        [eviction_of(facts) for facts in servers],
        [room_of(facts) for facts in servers],
        [clock_of(facts) for facts in servers],
    ]
    return [worst_of(list(zip(names, findings, strict=True))) for findings in looks]


async def _work(url: str, prefix: str, timeout: float) -> list[Finding]:
    """Whether the store works there, and how fast it is."""
    try:
        async with open_store(url, prefix=prefix, secret=None, timeout=_PATIENCE) as store:
            limiter = Limiter(_LIMIT, store=store, name=_NAME)
            await _use_each_verb(limiter)
            seconds = sorted(await _latencies(limiter))
    except StoreUnavailable as error:
        advice = "" if "rights" in str(error) else "See what the other lines say, and the log of the server."
        return [Finding("bad", "checks", str(error), advice)]
    says = "A check, a refund, a block and a reset work; they have left nothing behind."
    return [Finding("ok", "checks", says), latency(seconds, timeout)]


async def _use_each_verb(limiter: Limiter) -> None:
    key = os.urandom(8).hex()
    await limiter.refund(await limiter.try_acquire(key))
    await limiter.block(key, 1)
    await limiter.peek(key)
    await limiter.reset(key)


async def _latencies(limiter: Limiter) -> list[float]:
    """The seconds of lone checks, each of another key, so that in a cluster all masters have some."""
    keys, seconds = os.urandom(8).hex(), []
    until = time.perf_counter() + _SECONDS
    for number in range(_CHECKS):
        started = time.perf_counter()
        await limiter.try_acquire(f"{keys} {number}")
        ended = time.perf_counter()
        seconds.append(ended - started)
        if ended > until:
            break
        await asyncio.sleep(0)
    return seconds


def latency(seconds: Sequence[float], timeout: float) -> Finding:
    """The latencies of checks, in order, against the timeout of the store."""
    median, slow = _percentile(seconds, 50), _percentile(seconds, 99)
    says = (
        f"A check takes {median * 1000:.2f} ms (p50), {slow * 1000:.2f} ms (p99) from here; {len(seconds)} were made."
    )
    if slow > timeout:
        told = f"{says} The store's timeout is {duration(timeout)}: slower checks are answered without the server."
        return Finding("bad", "latency", told, "Move the server closer, or raise RedisStore(timeout=).")
    if slow > timeout / 2:
        told = f"{says} That is close to the store's timeout of {duration(timeout)}."
        return Finding("warning", "latency", told, "Move the server closer, or raise RedisStore(timeout=).")
    return Finding("ok", "latency", says)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
