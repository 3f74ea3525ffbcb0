"""The clock of the Redis server goes back: calls wait for as long as they would have, not until it has caught up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, CallReport
from asgi_ratelimit.discord.permits.memory import EXPIRY_US, Granted
from asgi_ratelimit.discord.permits.shared import SharedPermits, shared_permits
from asgi_ratelimit.testing import ManualClock
from tests.discord.permits.replies import cause_of, new_call, permit_of, wait_of
from tests.support.servers import Server
from tests.support.stores import new_store

S = 1_000_000
BACK = 60.0

pytestmark = pytest.mark.anyio


@pytest.fixture
async def permits(any_redis: Server, clock: ManualClock) -> AsyncIterator[SharedPermits]:
    async with new_store(any_redis.url, clock=clock) as store:
        yield shared_permits(store, "a bot")


async def learn(permits: SharedPermits, report: CallReport, resource: str = "1") -> None:
    await permits.settle(permit_of(await permits.take(*new_call(resource))), report)


async def waited(permits: SharedPermits, clock: ManualClock, resource: str = "1", per_second: int = 50) -> float:
    """Seconds until a call may go, as the replies name them."""
    started_us = clock.now_us()
    while not isinstance(reply := await permits.take(*new_call(resource, per_second=per_second)), Granted):
        clock.advance(0.1 if reply.wait_us == AWAIT_RESPONSE else reply.wait_us / 1e6)
    return (clock.now_us() - started_us) / 1e6


async def test_a_bucket_is_full_again_when_it_would_have_been(permits: SharedPermits, clock: ManualClock) -> None:
    await learn(permits, CallReport("answered", "b", 1, 0, 5 * S))
    clock.advance(1.0 - BACK)
    assert await waited(permits, clock) <= 5.01


async def test_the_global_limit_is_free_after_a_second(permits: SharedPermits, clock: ManualClock) -> None:
    for number in range(3):
        await learn(permits, CallReport("answered", "b", 50, 49, S), str(number))
    held = [permit_of(await permits.take(*new_call(str(number), per_second=5))) for number in range(3, 5)]
    clock.advance(-BACK)
    assert await waited(permits, clock, "9", per_second=5) <= 1.1
    await asyncio.gather(*(permits.settle(each, CallReport("answered", "b", 50, 48, S)) for each in held))


async def test_permits_that_are_out_expire_in_time(permits: SharedPermits, clock: ManualClock) -> None:
    await permits.take(*new_call())
    clock.advance(-BACK)
    assert await waited(permits, clock) <= EXPIRY_US / 1e6 + 0.2


async def test_a_response_to_a_call_from_before_teaches_the_time_now(
    permits: SharedPermits, clock: ManualClock
) -> None:
    held = permit_of(await permits.take(*new_call()))
    clock.advance(0.1 - BACK)
    await permits.settle(held, CallReport("answered", "b", 1, 0, 2 * S))
    assert await waited(permits, clock) <= 2.2


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (CallReport("sublimited", retry_us=10 * S), "route"),
        (CallReport("stopped", retry_us=10 * S), "stopped"),
        (CallReport("banned", retry_us=10 * S), "banned"),
    ],
)
@pytest.mark.parametrize("per_second", [0, 50])
async def test_a_stop_ends_in_time(
    permits: SharedPermits, clock: ManualClock, report: CallReport, cause: str, per_second: int
) -> None:
    taken = await permits.take(*new_call(per_second=per_second))
    await permits.settle(permit_of(taken), report)
    clock.advance(-BACK)
    reply = await permits.take(*new_call(per_second=per_second))
    assert cause_of(reply) == cause
    assert 10 * S <= wait_of(reply) <= 10 * S + 1_000
    assert await waited(permits, clock, per_second=per_second) <= 10.01
