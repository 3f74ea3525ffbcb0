"""Tests that users write for their own code."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock, StoreContract, unlimited

SEND = "POST /channels/{channel_id}/messages"


@pytest.mark.anyio
class MyStoreContract(StoreContract):
    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(clock=clock)


@unlimited()
async def test_without_limits(calls: int) -> None:
    limiter = Limiter("1/hour")
    assert all([(await limiter.try_acquire("ada")).allowed for _ in range(calls)])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    MemoryStore().clear()
    with unlimited():
        yield


async def wipe(store: RedisStore) -> None:
    await store.clear()
    await MemoryStore().clear()


def make_fake(clock: ManualClock) -> FakeDiscord:
    every_option = FakeBucket(
        "5/2s",
        window="fixed",
        hash="0123456789abcdef",
        hidden=True,
        scope="shared",
        per=("channel_id",),
        only_if=lambda body: "name" in body,
        older_than=3600.0,
        gone=False,
        by="address",
        own=True,
        code=30046,
    )
    return FakeDiscord(
        {SEND: "5/500ms", "PATCH /channels/{channel_id}": ["5/s", every_option], "GET /users/@me": FakeBucket("1/s")},
        token="test",
        global_limit=None,
        global_window="sliding",
        application_id=1234,
        follow_up_after=0.5,
        invalid_limit=100,
        clock=clock,
        wall_skew=0.5,
        latency=(0.0, 0.06),
        seed=1,
        record=True,
    )


async def announcements_arrive() -> list[int]:
    fake = make_fake(ManualClock())
    transport = httpx.ASGITransport(app=fake)
    fake.fail(502, when="after", route=SEND, times=1)
    fake.drop(when="before", route=SEND)
    fake.refuse(SEND, 0.5, scope="shared")
    async with DiscordClient("test", transport=transport) as client:
        await client.post("/channels/1001/messages", json={"content": "hi"})
    fake.stop(1.0)
    fake.ban(1.0)
    fake.change_hash(SEND, "fedcba9876543210")
    fake.kill_webhook("1")
    fake.delete_message("1")
    fake.stop(1.0, interactions=True)
    fake.slow(0.1, route=SEND)
    fake.drop(when="within")
    fake.refuse(SEND, None)
    with fake.hold(order="reverse"):
        fake.release(1)
    contents = [message["content"] for message in fake.messages]
    assert fake.count(429) == len(fake.refused), contents
    return [seen.status for seen in fake.requests]


async def a_bucket_is_full_again() -> bool:
    clock = ManualClock()
    limiter = Limiter("1/s", store=MemoryStore(clock=clock))
    await limiter.try_acquire("user:1")
    clock.advance(1)
    return (await limiter.try_acquire("user:1")).allowed
