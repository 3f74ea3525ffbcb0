"""A call that is refused stays away for as long as the refusal says, and longer each time.

The servers here are functions written from Discord's public facts: a global 429 may refuse interaction callbacks, too.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordRateLimited
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import Seen, all_of, bot_of, passing

pytestmark = pytest.mark.anyio

VIA = {"Via": "1.1 google"}
CALLBACK = "/interactions/{}/aW50ZXJhY3Rpb24x/callback"


class GlobalStop:
    """Refuses everything until `end`, seconds after the clock's start, and says how long that still is."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self._clock, self._end_us = clock, clock.now_us() + round(seconds * 1e6)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        left = (self._end_us - self._clock.now_us()) / 1e6
        if left <= 0:
            return httpx.Response(200, json={"id": "1"}, headers=VIA)
        headers = VIA | {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
        return httpx.Response(429, json={"retry_after": left, "global": True}, headers=headers)


def refused(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers if answer.status_code == 429]


async def test_callbacks_that_a_global_stop_refuses_draw_one_429_each(clock: ManualClock) -> None:
    server = Seen(GlobalStop(clock, 2.0))
    async with bot_of(server, clock) as discord:
        calls = [discord.post(CALLBACK.format(number), json={"type": 5}) for number in range(200)]
        answers = await passing(clock, all_of(calls))
    assert not refused(answers)
    assert len(server.requests) <= 400


async def test_later_callbacks_wait_for_a_stop_that_refused_one(clock: ManualClock) -> None:
    server = Seen(GlobalStop(clock, 2.0))
    async with bot_of(server, clock) as discord:
        first = asyncio.ensure_future(discord.post(CALLBACK.format(0), json={"type": 5}))
        await passing(clock, asyncio.sleep(0.02))
        calls = [discord.post(CALLBACK.format(number), json={"type": 5}) for number in range(1, 50)]
        answers = await passing(clock, all_of([first, *calls]))
    assert not refused(answers)
    assert len(server.requests) == 51


async def test_a_callback_that_a_stop_outlasts_is_refused_at_once(clock: ManualClock) -> None:
    server = Seen(GlobalStop(clock, 5.0))
    started_us = clock.now_us()
    async with bot_of(server, clock) as discord:
        with pytest.raises(DiscordRateLimited, match="Discord has refused everything") as caught:
            await passing(clock, discord.post(CALLBACK.format(0), json={"type": 5}))
    assert clock.now_us() - started_us < 100_000
    assert caught.value.retry_after == pytest.approx(5, abs=0.1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [{"retry_after": 0}, {"retry_after": -1}, {"retry_after": 0.001}, {"message": "no"}])
@pytest.mark.parametrize("path", ["/channels/1/messages", CALLBACK.format(1)])
async def test_a_call_stays_away_longer_with_each_of_its_refusals(clock: ManualClock, path: str, body: Any) -> None:
    times: list[int] = []

    def server(request: httpx.Request) -> httpx.Response:
        times.append(clock.now_us())
        return httpx.Response(429, json=body, headers=VIA)

    async with bot_of(server, clock) as discord:
        call = asyncio.gather(discord.post(path, json={}), return_exceptions=True)
        (outcome,) = await passing(clock, call, step=0.05)
    pauses = [(later - earlier) / 1e6 for earlier, later in itertools.pairwise(times)]
    for number, pause in enumerate(pauses[2:]):
        assert pause >= min(30, 0.25 * 2**number)
    if path == CALLBACK.format(1):
        assert isinstance(outcome, DiscordRateLimited), "its three seconds are over"
        assert len(times) <= 6
    else:
        assert isinstance(outcome, httpx.Response)
        assert outcome.status_code == 429
        assert len(times) == 10


class Renames:
    """Two renames of a channel in ten minutes, of which the headers say nothing: they are the channel's own."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock, self._renamed_us = clock, list[int]()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)  # all that are sent at once are on their way at once
        headers = VIA | {
            "X-RateLimit-Bucket": "edits", "X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "15",
            "X-RateLimit-Reset-After": "1.0",
        }  # fmt: skip
        now_us = self._clock.now_us()
        if b'"name"' in request.content:
            self._renamed_us = [each for each in self._renamed_us if now_us - each < 600_000_000]
            if len(self._renamed_us) == 2:
                left = (self._renamed_us[0] + 600_000_000 - now_us) / 1e6
                content = {"retry_after": left, "global": False}
                return httpx.Response(429, json=content, headers=headers | {"X-RateLimit-Scope": "user"})
            self._renamed_us.append(now_us)
        return httpx.Response(200, json={"id": "1"}, headers=headers)


async def test_a_limit_that_no_header_shows_is_learned_from_one_429_and_holds_up_nothing_else(
    clock: ManualClock,
) -> None:
    renames = Renames(clock)
    statuses: list[tuple[bool, int]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        response = await renames(request)
        statuses.append((b'"name"' in request.content, response.status_code))
        return response

    async with bot_of(answer, clock) as discord:
        named = [discord.patch("/channels/1", json={"name": f"n{number}"}) for number in range(4)]
        others = [discord.patch("/channels/1", json={"nsfw": True}) for _ in range(10)]
        calls = asyncio.ensure_future(all_of([*named, *others]))
        await passing(clock, asyncio.sleep(0))
        assert statuses.count((False, 200)) == 10
        assert [status for is_name, status in statuses if is_name] == [200, 200, 429]
        assert {each.status_code for each in await passing(clock, calls, step=10.0)} == {200}
    assert [status for is_name, status in statuses if is_name] == [200, 200, 429, 200, 200]


async def test_renames_of_several_channels_do_not_wait_for_each_other(clock: ManualClock) -> None:
    arrived: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        arrived.append(request.url.path[-1])
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with bot_of(answer, clock) as discord:
        urls = [f"/channels/{number}" for number in (1, 2, 2, 3)]
        calls = [asyncio.ensure_future(discord.patch(url, json={"topic": "x"})) for url in urls]
        await passing(clock, asyncio.sleep(0))
        assert sorted(arrived) == ["1", "2", "3"]
        calls[1].cancel()
        await passing(clock, asyncio.sleep(0))
        assert sorted(arrived) == ["1", "2", "2", "3"], "a cancelled one holds up nothing"
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
