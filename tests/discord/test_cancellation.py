"""Whoever waits may be cancelled at any moment: the rest go on, and no permit is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock
from tests.support.clients import SECONDS, TOKEN, all_of, bot, bot_of, calls_in_flight, held, passing, settled, taken
from tests.support.fake_discord import MESSAGES, SEND, until

pytestmark = pytest.mark.anyio


def stop(fake: FakeDiscord) -> None:
    fake.stop(5)


def empty(fake: FakeDiscord) -> None:
    """Nothing: the bucket holds one, and that is used up."""


def fail(fake: FakeDiscord) -> None:
    fake.fail(503, times=8)


def ban(fake: FakeDiscord) -> None:
    fake.ban(5)


def refuse(fake: FakeDiscord) -> None:
    fake.refuse(MESSAGES, 5, scope="shared")


@pytest.mark.parametrize("trouble", [stop, empty, fail, ban, refuse])
@pytest.mark.parametrize("victims", [[0], [1], [2, 3], [0, 1, 2], [4], [1, 3, 4]])
async def test_the_rest_of_a_queue_go_on_if_any_call_is_cancelled(
    clock: ManualClock, store: MemoryStore, trouble: Callable[[FakeDiscord], None], victims: list[int]
) -> None:
    fake = FakeDiscord({MESSAGES: "1/s"}, clock=clock)
    async with bot(fake, store=store) as discord:
        await discord.post(SEND, json={"content": "first"})
        trouble(fake)
        clock.advance(1)
        calls = [asyncio.create_task(discord.post(SEND, json={"content": str(n)})) for n in range(5)]
        await settled()
        for victim in victims:
            calls[victim].cancel()
        answers = await passing(clock, asyncio.gather(*calls, return_exceptions=True))
    lived = [answer for place, answer in enumerate(answers) if place not in victims]
    assert [getattr(answer, "status_code", answer) for answer in lived] == [200] * len(lived)
    assert calls_in_flight(store) == 0
    clock.advance(1.01)
    assert held(store) == 0


async def test_calls_waiting_for_a_probe_go_on_when_it_is_cancelled(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "5/s"}, clock=clock)
    async with bot(fake, store=store) as discord:
        with fake.hold():
            probe = asyncio.create_task(discord.post(SEND, json={}))
            await until(lambda: fake.held)
            others = [asyncio.create_task(discord.post(SEND, json={})) for _ in range(3)]
            await settled()
            assert len(fake.requests) == 1
            probe.cancel()
            await settled()
        await passing(clock, all_of(others))
    assert calls_in_flight(store) == 0


async def test_a_cancelled_call_that_was_sent_counts_as_used(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "2/10s"}, clock=clock)
    async with bot(fake, store=store) as discord:
        await discord.post(SEND, json={})
        with fake.hold():
            sent = asyncio.create_task(discord.post(SEND, json={}))
            await until(lambda: fake.held)
            sent.cancel()
            await settled()
        assert await taken(clock, discord.post(SEND, json={})) >= 4.9
    assert not fake.refused


async def test_a_cancelled_answer_is_closed(clock: ManualClock) -> None:
    class Endless(httpx.AsyncByteStream):
        is_closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            self.is_closed = True

    body = Endless()
    async with bot_of(lambda request: httpx.Response(429, stream=body), clock) as discord:
        call = asyncio.create_task(discord.get("/users/@me"))
        await settled()
        call.cancel()
        await settled()
        assert (call.cancelled(), body.is_closed) == (True, True)


PLACES = [
    ("POST", "/channels/{}/messages"), ("GET", "/channels/{}"), ("PATCH", "/channels/{}"), ("POST", "/webhooks/{}/abc"),
    ("DELETE", "/channels/{}/messages/5"), ("POST", "/interactions/{}/abc"), ("GET", "/users/@me"),
]  # fmt: skip


class Chaos:
    """A thousand calls of all kinds, each cancelled at some random moment, and as many that are not."""

    def __init__(self, seed: int, clock: ManualClock) -> None:
        self.random, self.clock = random.Random(seed), clock
        limits: dict[str, str | FakeBucket] = {
            MESSAGES: FakeBucket("5/2s"), "GET /channels/{channel_id}": FakeBucket("3/s", window="fixed"),
            "PATCH /channels/{channel_id}": FakeBucket("2/s", hidden=True),
            "POST /webhooks/{webhook_id}/{webhook_token}": "5/s",
        }  # fmt: skip
        self.fake = FakeDiscord(limits, clock=clock, latency=(0.0, 0.06), seed=seed, global_window="sliding")

    def call(self, discord: DiscordClient) -> asyncio.Task[httpx.Response]:
        verb, path = self.random.choice(PLACES)
        body: Any = {"json": {"name": "x"}} if verb in ("POST", "PATCH") else {}
        priority = {"priority": self.random.choice((0, 0, 5))}
        where = path.format(self.random.randrange(8))
        return asyncio.create_task(discord.request(verb, where, extensions=priority, **body))

    def trouble(self) -> None:
        troubles: list[Callable[[], None]] = [
            lambda: self.fake.stop(0.3), lambda: self.fake.fail(502, times=5), lambda: self.fake.drop(times=3),
            lambda: self.fake.ban(1.0), lambda: self.fake.refuse(None, 0.5, scope="shared"),
            lambda: self.fake.change_hash(MESSAGES, f"{self.random.getrandbits(128):032x}"), lambda: None, lambda: None,
        ]  # fmt: skip
        self.random.choice(troubles)()

    async def run(self, discord: DiscordClient, count: int) -> tuple[list[Any], int]:
        kept, victims, cancelled = [], [], 0
        async with asyncio.timeout(SECONDS):
            while cancelled < count:
                kept.append(self.call(discord))
                victims += [self.call(discord), self.call(discord)]
                if self.random.random() < 0.1:
                    self.trouble()
                for _ in range(self.random.randrange(4)):
                    await asyncio.sleep(0)
                if self.random.random() < 0.3:
                    self.clock.advance(self.random.random() * 0.1)
                while len(victims) > self.random.randrange(100):
                    cancelled += victims.pop(self.random.randrange(len(victims))).cancel()
        cancelled += sum(call.cancel() for call in victims)
        return await passing(self.clock, asyncio.gather(*kept, return_exceptions=True), step=0.05), cancelled


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_thousand_random_cancellations_leave_nothing_stuck_and_nothing_lost(
    clock: ManualClock, store: MemoryStore, seed: int
) -> None:
    chaos = Chaos(seed, clock)
    async with bot(chaos.fake, store=store, max_retries=20, retry_unsafe=True) as discord:
        answers, cancelled = await chaos.run(discord, 1_000)
        assert cancelled >= 1_000
        wrong = [answer for answer in answers if not isinstance(answer, httpx.Response) or answer.is_error]
        assert wrong == []
        assert calls_in_flight(store) == 0
        assert discord.waiting == []
        clock.advance(1.01)
        assert held(store) == 0
        engine = discord._pacing._engines.current()
        scheduler = engine.tokens.of(f"Bot {TOKEN}").scheduler
        assert (scheduler._queues, scheduler._pauses, len(scheduler._global_queue)) == ({}, {}, 0)
        assert not engine.sender.waiting
        assert (await passing(clock, discord.get("/users/@me"))).status_code == 200
