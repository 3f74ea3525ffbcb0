"""The deadline of a call: no attempt goes on past it, and none begins after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordRateLimited
from asgi_ratelimit.discord.turns import Turns
from asgi_ratelimit.testing import ManualClock
from tests.discord.test_sender import Script
from tests.support.clients import Seen, bot_of, passing, settled
from tests.support.fake_discord import SEND

pytestmark = pytest.mark.anyio


async def test_a_failure_is_not_waited_out_past_the_deadline(clock: ManualClock) -> None:
    script = Script((503, {}, {"Retry-After": "10"}))
    async with bot_of(script, clock) as discord:
        assert (await discord.get("/users/@me", extensions={"deadline": 5})).status_code == 503


async def test_each_attempt_has_no_more_time_than_is_left(clock: ManualClock) -> None:
    script = Script(503, 200)
    async with bot_of(script, clock) as discord:
        await passing(clock, discord.get("/users/@me", extensions={"deadline": 1}, timeout=30))
        await discord.get("/users/@me", extensions={"deadline": 100}, timeout=30)
        await discord.get("/users/@me", timeout=None)
    limits = [request.extensions["timeout"]["read"] for request in script.requests]
    assert limits[0] == 1
    assert 0.7 < limits[1] < 0.9
    assert limits[2:] == [30, None]


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_all_of_an_attempt_together_ends_at_the_deadline(clock: ManualClock, verb: str) -> None:
    """Each of its phases may be in time, and the whole of it late. It may have arrived, and its time is over."""
    sent: list[httpx.Request] = []

    async def slow(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        for _ in range(10):  # phases
            await clock.sleep(0.9)
        return httpx.Response(200, json={"id": "1"})

    async with bot_of(slow, clock) as discord:
        started = clock.now_us()
        with pytest.raises(httpx.ReadTimeout, match=r"the deadline has passed, 1\.000 s after"):
            await passing(clock, discord.request(verb, SEND, extensions={"deadline": 1}))
        assert (clock.now_us() - started) / 1e6 == pytest.approx(1, abs=0.05)
        assert len(sent) == 1


async def test_a_body_that_takes_too_long_ends_at_the_deadline_as_well(clock: ManualClock) -> None:
    class Body(httpx.AsyncByteStream):
        is_closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(10):
                await clock.sleep(0.3)
                yield b" "

        async def aclose(self) -> None:
            self.is_closed = True

    body = Body()
    async with bot_of(lambda request: httpx.Response(200, stream=body), clock) as discord:
        with pytest.raises(httpx.ReadTimeout, match="the deadline has passed"):
            await passing(clock, discord.post(SEND, json={}, extensions={"deadline": 1}))
    assert body.is_closed


async def test_a_call_past_its_deadline_is_not_sent(clock: ManualClock) -> None:
    seen = Seen()

    class Late(Turns):
        async def take(self, url: object, extensions: Any) -> Any:
            clock.advance(0.5)
            return extensions

    async with bot_of(seen, clock) as discord:
        discord._pacing._turns = Late()
        with pytest.raises(DiscordRateLimited, match="not sent: its deadline has passed") as late:
            await discord.get("/users/@me", extensions={"deadline": 0.4})
        assert late.value.cause == "late"
        assert seen.requests == []
        assert (await discord.get("/users/@me", extensions={"deadline": 0.6})).status_code == 200


async def test_a_call_that_is_cancelled_before_its_deadline_is_cancelled(clock: ManualClock) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with bot_of(never, clock) as discord:
        call = asyncio.ensure_future(discord.get("/users/@me", extensions={"deadline": 1}))
        await settled()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
