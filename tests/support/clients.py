"""How the tests of the way out make their clients, and let time pass on a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import httpx

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.discord.permits.memory import MemoryPermits, permits_by_owner
from asgi_ratelimit.testing import FakeDiscord, ManualClock

# Of the form that Discord's have; none of it was ever issued.
TOKEN = "OTA0ODYxNzMzMzQ1Njc4OTAx.GfAkEr.n0t-a-real-t0ken-0nly-f0r-these-tests"
WEBHOOK = "/webhooks/424242424242424242/W3bh00k-t0ken-that-n0b0dy-may-read-W3bh00k-t0ken-that-n0b0dy-may-r3ad"
API = "http://fake/api/v10"
SECONDS = 20.0  # of real time, after which a test is stuck

T = TypeVar("T")


class Seen:
    """A function that answers, and stores the requests."""

    def __init__(
        self, answer: Callable[[httpx.Request], Any] = lambda request: httpx.Response(200, json={"id": "1"})
    ) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)  # type: ignore[no-any-return]

    @property
    def authorizations(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.requests]


def bot(fake: FakeDiscord, *, token: str = TOKEN, store: MemoryStore | None = None, **options: Any) -> DiscordClient:
    """A client of the fake, on its clock."""
    store = MemoryStore(clock=fake.clock) if store is None else store
    inner = httpx.ASGITransport(app=fake, client=("127.0.0.1", 123))
    return DiscordClient(token, base_url=API, transport=inner, store=store, **options)


def bot_of(answer: Callable[[httpx.Request], Any], clock: ManualClock, **options: Any) -> DiscordClient:
    """A client with a function, sync or async, in place of Discord."""
    inner = httpx.MockTransport(answer)
    options.setdefault("store", MemoryStore(clock=clock))
    return DiscordClient(TOKEN, base_url=API, transport=inner, **options)


async def settled() -> None:
    """Let all tasks go on that can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def passing(clock: ManualClock, awaited: Awaitable[T], step: float = 0.01) -> T:
    """Let time pass in steps until it is done. Raises TimeoutError if it never is."""
    task = asyncio.ensure_future(awaited)
    try:
        async with asyncio.timeout(SECONDS):
            await settled()
            while not task.done():
                clock.advance(step)
                await settled()
    finally:
        task.cancel()
    return await task


def all_of(awaited: Iterable[Awaitable[T]]) -> asyncio.Future[list[T]]:
    return asyncio.gather(*awaited)


async def taken(clock: ManualClock, awaited: Awaitable[object], step: float = 0.01) -> float:
    """How many seconds it takes."""
    started = clock.now_us()
    await passing(clock, awaited, step)
    return (clock.now_us() - started) / 1e6


async def rid_of(*tasks: asyncio.Task[Any]) -> None:
    """End tasks that were to wait for ever."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def permits_in(store: MemoryStore) -> Mapping[str, MemoryPermits]:
    """The permits in a store, by their owner."""
    return permits_by_owner.of(store).owners


def calls_in_flight(store: MemoryStore) -> int:
    """Calls that are under way, as the store has it."""
    return sum(len(each.in_flight) for permits in permits_in(store).values() for each in permits._buckets.values())


def held(store: MemoryStore) -> int:
    """Permits that the store counts towards global limits now."""
    for permits in permits_in(store).values():
        permits.sweep()
    return sum(len(permits._held) for permits in permits_in(store).values())
