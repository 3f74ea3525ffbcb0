"""An operator is told of each refusal, stop, ban and long wait, once a minute; `waiting` shows all calls that wait."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordClient, DiscordEvent
from asgi_ratelimit.discord.event_log import EventLog
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import all_of, bot_of, passing, rid_of, settled

pytestmark = pytest.mark.anyio

VIA = {"Via": "1.1 google"}


def refusal(seconds: float, *, scope: str = "user") -> httpx.Response:
    headers = VIA | {"X-RateLimit-Scope": scope}
    return httpx.Response(429, json={"retry_after": seconds, "global": scope == "global"}, headers=headers)


def ban(seconds: int) -> httpx.Response:
    return httpx.Response(429, text="error code: 1015", headers={"Retry-After": str(seconds)})


class Answers:
    """These answers, then successes."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.left = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return self.left.pop(0) if self.left else httpx.Response(200, json={"id": "1"})


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "asgi_ratelimit")
    return caplog


def logged(lines: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in lines.records if record.levelno == level]


async def waiting_call(discord: DiscordClient, path: str = "/channels/1") -> asyncio.Task[Any]:
    task = asyncio.ensure_future(discord.get(path))
    await settled()
    return task


async def test_a_429_is_a_warning(clock: ManualClock, lines: pytest.LogCaptureFixture) -> None:
    async with bot_of(Answers(refusal(2.5)), clock) as discord:
        await passing(clock, discord.get("/channels/1"))
    (line,) = logged(lines, logging.WARNING)
    assert line == "GET /channels/{channel_id} has drawn 1 429s (user) in a minute, the last for 2.500 s [channels/1]"


async def test_hundreds_of_them_are_a_line_a_minute_with_their_number(
    clock: ManualClock, lines: pytest.LogCaptureFixture
) -> None:
    async with bot_of(Answers(*[refusal(0.5)] * 200), clock, max_retries=0) as discord:
        for _ in range(200):
            await passing(clock, discord.get("/channels/1"))
        await passing(clock, asyncio.sleep(0), step=1)
        clock.advance(61)
        await settled()
    counts = [int(line.split(" has drawn ")[1].split()[0]) for line in logged(lines, logging.WARNING)]
    assert sum(counts) == 200
    assert len(counts) <= 1 + 200 * 0.51 // 60 + 1


async def test_a_global_stop_is_one_warning_though_many_calls_meet_it(
    clock: ManualClock, lines: pytest.LogCaptureFixture
) -> None:
    arrived, answers = 0, Answers(*[refusal(5, scope="global")] * 20)

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal arrived
        arrived += 1
        while arrived < 20:
            await asyncio.sleep(0)
        return answers(request)

    async with bot_of(answer, clock) as discord:
        await passing(clock, all_of(discord.get(f"/channels/{number}") for number in range(20)))
    first, stop, *rest = logged(lines, logging.WARNING)
    assert first.startswith("GET /channels/{channel_id} has drawn 1 429s (global)")
    assert stop.startswith("Discord has stopped the calls of a token for 5.0 s, by a global 429 at GET /channels/")
    assert not rest


async def test_so_is_a_ban_and_its_end_is_told(clock: ManualClock, lines: pytest.LogCaptureFixture) -> None:
    async with bot_of(Answers(*[ban(1800)] * 5), clock) as discord:
        calls = [await waiting_call(discord, f"/channels/{number}") for number in range(5)]
        late = await waiting_call(discord, "/guilds/1")
        assert sum("has banned this address for 1800 s" in line for line in logged(lines, logging.WARNING)) == 1
        assert sum("Cloudflare has banned" in line for line in logged(lines, logging.WARNING)) > 1, "the waits, too"
        assert {(each.cause, round(each.seconds)) for each in discord.waiting} == {("banned", 1800)}
        assert sum(each.calls for each in discord.waiting) == 6
        await passing(clock, all_of([*calls, late]), step=1)
        assert discord.waiting == []
    assert any("goes after a wait of 1800 s" in line for line in logged(lines, logging.INFO))


@pytest.mark.parametrize("seconds", [1800.0, 82_721.0])
async def test_a_long_wait_is_a_warning_and_its_end_is_told(
    clock: ManualClock, lines: pytest.LogCaptureFixture, seconds: float
) -> None:
    events: list[DiscordEvent] = []
    async with bot_of(Answers(refusal(seconds)), clock, on_event=events.append) as discord:
        call = await waiting_call(discord)
        assert any(f"has to wait for {seconds:.0f} s" in line for line in logged(lines, logging.WARNING))
        assert [(each.cause, round(each.seconds)) for each in discord.waiting] == [("route", seconds)]
        await passing(clock, call, step=60)
    assert len(logged(lines, logging.INFO)) == 1
    assert [event.kind for event in events] == ["limited", "wait", "waited"]
    assert events[-1].seconds == pytest.approx(seconds, abs=60)


async def test_a_wait_that_becomes_long_is_told_as_well(clock: ManualClock, lines: pytest.LogCaptureFixture) -> None:
    async with bot_of(Answers(refusal(2), refusal(40)), clock) as discord:
        call = await waiting_call(discord)
        assert not [line for line in logged(lines, logging.WARNING) if "has to wait" in line]
        clock.advance(2.1)
        await settled()
        assert [line for line in logged(lines, logging.WARNING) if "has to wait for 40 s" in line]
        await rid_of(call)


async def test_the_pause_before_another_attempt_is_shown(clock: ManualClock) -> None:
    answers = Answers(httpx.Response(503, headers={"Retry-After": "20"}))
    async with bot_of(answers, clock) as discord:
        call = await waiting_call(discord)
        (shown,) = discord.waiting
        assert shown.cause == "retry"
        assert shown.seconds == pytest.approx(20, abs=0.1)
        await passing(clock, call)


async def test_counts_are_written_when_there_are_too_many_routes_to_follow(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(lambda event: None, clock)
    for route in ("GET /first", "GET /first", "GET /first", *(f"GET /{number}" for number in range(1_000))):
        log(DiscordEvent("limited", route, 1.0, "user"))
    lines = [record.getMessage() for record in caplog.records if "GET /first" in record.getMessage()]
    assert len(lines) == 2
    assert "2 429s" in lines[1]
