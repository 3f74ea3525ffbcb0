"""A bot that has met tens of thousands of channels, webhooks and tokens is as small as before once it is idle."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.routes import _parsed, route_of
from asgi_ratelimit.discord.scheduler import Call, CallLimits, Scheduler
from asgi_ratelimit.discord.tokens import TokenRegistry
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import TOKEN, all_of, bot_of, permits_in, settled

pytestmark = pytest.mark.anyio

MANY = 40_000
LITTLE = 150_000  # bytes: what a dict keeps of its room


@pytest.fixture
def size() -> Iterator[Callable[[], int]]:
    """How many bytes there are that were allocated since the test began."""

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    yield traced
    tracemalloc.stop()


async def idle(clock: ManualClock) -> None:
    for _ in range(5):
        clock.advance(30)
        await settled()
        while clock._timers and clock._timers[0][0] - clock.now_us() < 100_000:  # a sweep goes on in steps
            clock.advance(0.1)
            await settled()
    gc.collect()


def answer(request: httpx.Request) -> httpx.Response:
    headers = {"limit": "5", "remaining": "4", "reset-after": "1.000", "bucket": "0123456789abcdef"}
    return httpx.Response(200, headers={f"x-ratelimit-{name}": value for name, value in headers.items()})


async def through_all_channels(scheduler: Scheduler, numbers: range) -> None:
    for number in numbers:
        path = f"/channels/{number}/messages" if number % 2 else f"/webhooks/{number}/token-of-{number}"
        permit = await scheduler.permit(Call(route_of("POST", path)))
        scheduler.settle(permit, CallReport("answered", f"bucket{number % 7}", 5, 4, 1_000_000))


async def test_channels_and_webhooks_are_forgotten(clock: ManualClock, store: MemoryStore) -> None:
    owners = TokenRegistry(store, CallLimits(10**9), "default", lambda event: None)
    scheduler = owners.of(f"Bot {TOKEN}").scheduler
    await through_all_channels(scheduler, range(3_000))  # caches are full now
    await idle(clock)
    gc.collect()
    records = len(permits_in(store))
    await through_all_channels(scheduler, range(3_000, MANY))
    permits = next(iter(permits_in(store).values()))
    assert len(permits._buckets) > MANY / 2, "nothing is forgotten while it is in use"
    await idle(clock)
    assert (len(permits._buckets), len(permits._locked), len(permits._held), len(permits._by_end)) == (0, 0, 0, 0)
    assert (len(scheduler._queues), len(scheduler._pauses), len(permits_in(store))) == (0, 0, records)
    assert len(permits._names) <= 10_000
    assert scheduler.is_idle
    assert not clock._timers
    await owners.aclose()


async def test_a_client_is_as_small_afterwards_as_before(clock: ManualClock, size: Callable[[], int]) -> None:
    async def talk(discord: DiscordClient, first: int, count: int) -> None:
        for start in range(first, first + count, 50):
            numbers = range(start, start + 50)
            await all_of(discord.post(f"/channels/{n}/messages", content=b"{}") for n in numbers if n % 2)
            await all_of(discord.post(f"/webhooks/{n}/token-of-{n}", content=b"{}") for n in numbers if n % 2 == 0)

    async with bot_of(answer, clock, global_limit=10**9) as discord:
        for number in range(1_100):
            route_of("POST", f"/channels/{number}/messages", application_id=None)  # the cache of routes is full now
        await talk(discord, 2_000, 200)
        await idle(clock)
        before = size()
        await talk(discord, 3_000, 1_000)
        assert size() > before + 500_000, "else this shows nothing"
        await idle(clock)
        assert size() < before + LITTLE


def test_the_cache_of_routes_is_bounded_and_keeps_no_long_paths() -> None:
    for number in range(5_000):
        route_of("GET", f"/channels/{number}/{'x' * (number % 600)}")
    assert _parsed.cache_info().currsize <= 1024


async def test_tokens_that_are_used_no_more_are_forgotten_even_if_they_are_dead(
    clock: ManualClock, store: MemoryStore
) -> None:
    owners, route = TokenRegistry(store, CallLimits(), "default", lambda event: None), route_of("GET", "/users/@me")
    for number in range(1_500):
        owner = owners.of(f"Bot {number}")
        owner.scheduler.settle(await owner.scheduler.permit(Call(route)), CallReport("answered"))
        if number % 2:
            owner.rejected_until_us = 10**18
        if number % 250 == 0:
            await idle(clock)
    assert len(owners._tokens) <= 1_000
    assert len(permits_in(store)) <= 1_000


async def test_many_tokens_in_use_at_once_all_stay_and_are_looked_up_quickly(
    clock: ManualClock, store: MemoryStore
) -> None:
    owners, route = TokenRegistry(store, CallLimits(), "default", lambda event: None), route_of("GET", "/users/@me")
    first = owners.of("Bot 0")
    await first.scheduler.permit(Call(route))
    looks = 0

    class Counted(type(first.scheduler)):  # type: ignore[misc]
        @property
        def is_idle(self) -> bool:
            nonlocal looks
            looks += 1
            return False

    for number in range(1, 5_000):
        owner = owners.of(f"Bot {number}")
        owner.scheduler.__class__ = Counted
    assert owners.of("Bot 0") is first
    assert looks < 20_000, "not all of them for each new one"


async def test_the_list_of_webhooks_that_are_gone_is_bounded(store: MemoryStore) -> None:
    owners = TokenRegistry(store, CallLimits(), "default", lambda event: None)
    for number in range(10_100):
        owners.mark_webhook_gone(route_of("POST", f"/webhooks/{number}/token"), 404)
    assert len(owners._gone) == 10_000


async def test_closed_clients_leave_nothing_behind(
    clock: ManualClock, store: MemoryStore, size: Callable[[], int]
) -> None:
    async def once(number: int) -> None:
        inner = httpx.MockTransport(answer)
        async with DiscordClient(f"token{number}", transport=inner, store=store) as discord:
            await discord.get("/users/@me")

    async def often(first: int, count: int) -> int:
        for number in range(first, first + count):
            await once(number)
        await idle(clock)
        for number in range(300):
            await once(-first - number)
        return size()

    def living() -> list[Scheduler]:
        # By type: isinstance would evaluate the lazy objects that other tests' libraries leave in the process.
        return [one for one in gc.get_objects() if type(one) is Scheduler]

    schedulers = weakref.WeakSet(living())
    before = await often(1_000, 20)
    assert await often(2_000, 120) < before + LITTLE
    assert not [one for one in living() if one not in schedulers]
