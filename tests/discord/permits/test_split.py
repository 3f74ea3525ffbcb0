"""A route whose responses come from two buckets: half of the messages that are deleted are gone already."""

from __future__ import annotations

import random
from collections.abc import Callable

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import Granted, Permit, Permits, Wait
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import all_of, bot_of, taken
from tests.support.servers import KINDS, Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

MESSAGES = range(60)
IsGone = Callable[[int], bool]


class Purged:
    """A channel: deletions that find a message, and those that do not, are counted apart, in windows of a second."""

    def __init__(self, clock: ManualClock, is_gone: IsGone, limits: tuple[int, int], latency: float) -> None:
        self._clock, self._is_gone, self._limits, self._latency = clock, is_gone, limits, latency
        self._windows, self._random = {False: (0, 0), True: (0, 0)}, random.Random(7)
        self.requests = self.refused = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await self._clock.sleep(self._random.random() * self._latency)
        response = self._count(self._is_gone(int(request.url.path.split("/")[-1])))
        await self._clock.sleep(self._random.random() * self._latency)
        return response

    def _count(self, gone: bool) -> httpx.Response:
        now_us, (end_us, used), limit = self._clock.now_us(), self._windows[gone], self._limits[gone]
        end_us, used = (now_us + 1_000_000, 1) if now_us >= end_us else (end_us, used + 1)
        self._windows[gone], self.requests = (end_us, used), self.requests + 1
        seconds = (end_us - now_us) / 1e6
        headers = {
            "X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(max(0, limit - used)),
            "X-RateLimit-Reset-After": f"{seconds:.3f}", "X-RateLimit-Bucket": f"{gone}", "Via": "1.1 google",
        }  # fmt: skip
        if used > limit:
            self.refused += 1
            return httpx.Response(429, json={"retry_after": seconds, "global": False}, headers=headers)
        if gone:
            return httpx.Response(404, json={"message": "Unknown Message", "code": 10008}, headers=headers)
        return httpx.Response(204, headers=headers)


def every_second(number: int) -> bool:
    return number % 2 == 0


def every_third(number: int) -> bool:
    return number % 3 == 0


def any_half(number: int) -> bool:
    return random.Random(number).random() < 0.5


@pytest.mark.parametrize("latency", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("limits", [(5, 5), (5, 10), (10, 3)])
@pytest.mark.parametrize("is_gone", [every_second, every_third, any_half])
async def test_a_purge_of_which_a_part_is_gone_draws_few_429s(
    clock: ManualClock, is_gone: IsGone, limits: tuple[int, int], latency: float
) -> None:
    server = Purged(clock, is_gone, limits, latency)
    async with bot_of(server, clock) as discord:
        seconds = await taken(clock, all_of(discord.delete(f"/channels/1/messages/{number}") for number in MESSAGES))
    gone = sum(map(is_gone, MESSAGES))
    assert server.refused <= 5
    assert server.requests == 60 + server.refused
    assert seconds <= 1.0 + max((60 - gone) / limits[0], gone / limits[1]) * (1.15 + 2 * latency)


def answer(bucket: str, remaining: int = 4) -> CallReport:
    return CallReport("answered", bucket, 5, remaining, 600_000_000)


async def ask(permits: Permits, name: str) -> Granted | Wait:
    reply = permits.take(name, "DELETE", "1", 50)
    return reply if isinstance(reply, (Granted, Wait)) else await reply


async def answered(permits: Permits, name: str, report: CallReport) -> None:
    reply = await ask(permits, name)
    assert isinstance(reply, Granted)
    await settled(permits, reply.permit, report)


async def settled(permits: Permits, permit: Permit, report: CallReport) -> None:
    pending = permits.settle(permit, report)
    if pending is not None:
        await pending


async def check_that_each_bucket_counts(permits: Permits) -> None:
    for number, bucket in enumerate("abab"):
        await answered(permits, f"p{number}", answer(bucket))
    for number in range(8):
        reply = await ask(permits, f"q{number}")
        assert isinstance(reply, Granted), "what one response leaves out is free again"
        await settled(permits, reply.permit, CallReport("unsent"))
    await answered(permits, "last of b", answer("b", 0))
    assert isinstance(await ask(permits, "r"), Wait), "it may be b's, and a has room"
    await answered_elsewhere(permits)


async def answered_elsewhere(permits: Permits) -> None:
    reply = permits.take("s", "DELETE", "2", 50)
    assert isinstance(reply if isinstance(reply, (Granted, Wait)) else await reply, Granted)


async def test_a_call_goes_if_each_of_the_buckets_has_room(clock: ManualClock) -> None:
    await check_that_each_bucket_counts(permits_of(MemoryStore(clock=clock), "me"))


async def test_a_call_goes_if_each_of_the_buckets_has_room_in_redis() -> None:
    with Server(KINDS[0]) as server:
        async with new_store(server.url) as store:
            await check_that_each_bucket_counts(permits_of(store, "me"))


async def test_a_bucket_that_was_renamed_for_good_is_no_second_one(clock: ManualClock) -> None:
    permits = permits_of(MemoryStore(clock=clock), "me")
    for number, bucket in enumerate("aabbbb"):
        await answered(permits, f"p{number}", answer(bucket))
    assert isinstance(permits.take("q", "DELETE", "1", 50), Granted)


async def test_a_bucket_that_does_not_answer_any_more_is_forgotten(clock: ManualClock) -> None:
    permits = permits_of(MemoryStore(clock=clock), "me")
    for number, bucket in enumerate("abab"):
        await answered(permits, f"p{number}", answer(bucket))
    clock.advance(61.0)
    assert isinstance(await ask(permits, "q"), Granted)
    assert isinstance(permits.take("r", "DELETE", "1", 50), (Granted, Wait)), "of one bucket again"
