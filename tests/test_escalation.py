"""Keys that go on hammering are blocked for longer each time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore, Store
from asgi_ratelimit.escalation import Escalate, Escalation, Round, Strikes
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio

ESCALATE = Escalate(after=20, within=60, block=(60, 600))


class Door:
    """A limiter whose refusals are counted."""

    def __init__(self, store: Store, escalate: Escalate = ESCALATE, limit: str = "1/hour") -> None:
        self.limiter = Limiter(limit, store=store, name="door")
        self.escalation = Escalation(escalate, store=store, name="door")

    async def call(self, key: str = "ada") -> float:
        """The seconds of the block that begins with this call."""
        decision = await self.limiter.try_acquire(key)
        return 0.0 if decision.allowed else await self.escalation.refused(key, self.limiter.block)

    async def calls(self, number: int) -> list[float]:
        return [seconds for _ in range(number) if (seconds := await self.call())]


async def test_a_key_is_blocked_for_longer_each_time(store: MemoryStore, clock: ManualClock) -> None:
    door = Door(store)
    await door.call()
    for seconds in (60, 600, 600):
        assert await door.calls(19) == []
        assert (await door.limiter.peek("ada")).reason == "limited"
        assert await door.call() == seconds
        blocked = await door.limiter.peek("ada")
        assert (blocked.reason, blocked.retry_after) == ("blocked", seconds)
        assert await door.calls(100) == []  # a block is not prolonged by calls during it
        clock.advance(seconds)


async def test_each_block_takes_as_many_refusals_as_the_first(store: MemoryStore, clock: ManualClock) -> None:
    """Those before it are not counted twice, though they are in the last ten minutes."""
    door = Door(store, Escalate(after=20, within=600, block=(1, 2)))
    await door.call()
    for seconds in (1, 2, 2, 2):
        assert await door.calls(19) == []
        assert await door.call() == seconds
        clock.advance(seconds)


async def test_refusals_that_come_slowly_enough_are_no_reason(store: MemoryStore, clock: ManualClock) -> None:
    door = Door(store)
    await door.call()
    for _ in range(200):
        assert await door.call() == 0.0
        clock.advance(3.2)  # 19 in 60 s


async def test_another_key_is_not_blocked(store: MemoryStore) -> None:
    door = Door(store)
    assert await door.calls(21) == [60]
    assert (await door.limiter.peek("bob")).allowed


async def test_a_block_is_forgotten_after_its_memory(store: MemoryStore, clock: ManualClock) -> None:
    door = Door(store, Escalate(after=2, within=60, block=(60, 600), memory=3600), "1/day")
    assert await door.calls(3) == [60]
    clock.advance(3599)
    assert await door.calls(2) == [600]
    clock.advance(3600)
    assert await door.calls(2) == [60]


async def test_many_that_count_at_once_begin_one_block(store: MemoryStore) -> None:
    """As many processes do. All of them have seen the same round, and its end."""
    strikes = Strikes((60, 600), 86_400, store=store, name="door")
    blocks: list[float] = []

    async def block(key: str, seconds: float) -> None:
        await asyncio.sleep(0)
        blocks.append(seconds)

    present = await strikes.round_of("ada")
    await asyncio.gather(*(strikes.strike("ada", present, block) for _ in range(10)))
    assert blocks == [60]
    assert (await strikes.round_of("ada")).level == 1


async def test_one_that_is_late_begins_no_second_block(store: MemoryStore, clock: ManualClock) -> None:
    strikes, limiter = Strikes((60, 600), 86_400, store=store, name="door"), Limiter("1/s", store=store)
    first = await strikes.round_of("ada")
    assert await strikes.strike("ada", first, limiter.block) == 60
    clock.advance(3600)
    assert await strikes.strike("ada", first, limiter.block) == 0
    assert await strikes.strike("ada", await strikes.round_of("ada"), limiter.block) == 600


async def test_one_that_dies_before_it_has_blocked_leaves_it_to_the_next(
    store: MemoryStore, clock: ManualClock
) -> None:
    strikes, limiter = Strikes((60,), 86_400, store=store, name="door"), Limiter("1/s", store=store)

    async def die(key: str, seconds: float) -> None:
        raise asyncio.CancelledError

    present = await strikes.round_of("ada")
    with pytest.raises(asyncio.CancelledError):
        await strikes.strike("ada", present, die)
    assert await strikes.strike("ada", present, limiter.block) == 0
    clock.advance(10)
    assert await strikes.strike("ada", present, limiter.block) == 60


async def test_a_round_is_the_same_until_the_next_block(store: MemoryStore, clock: ManualClock) -> None:
    strikes, limiter = Strikes((1,), 3600, store=store, name="door"), Limiter("1/s", store=store)
    seen: set[Round] = set()
    for _ in range(5):
        present = await strikes.round_of("ada")
        assert present not in seen
        seen.add(present)
        await strikes.strike("ada", present, limiter.block)
        clock.advance(1.234567)
    last = await strikes.round_of("ada")
    clock.advance(3598)  # all blocks but the last are forgotten
    assert await strikes.round_of("ada") == Round(1, last.id)
    clock.advance(3)
    assert await strikes.round_of("ada") == Round(0, "")


async def test_a_key_can_be_forgiven(store: MemoryStore, clock: ManualClock) -> None:
    door = Door(store)
    assert await door.calls(21) == [60]
    clock.advance(60)
    assert await door.calls(20) == [600]
    await door.escalation.forget("ada")
    await door.limiter.block("ada", 0)
    assert await door.calls(20) == [60]


async def test_what_is_counted_together_is_what_shares_a_store(store: MemoryStore) -> None:
    doors = Door(store), Door(store)
    await doors[0].call()
    began = [await doors[number % 2].call() for number in range(20)]
    assert began == [0.0] * 19 + [60]
    assert (await doors[0].limiter.peek("ada")).reason == (await doors[1].limiter.peek("ada")).reason == "blocked"


async def test_processes_count_together_over_redis(any_redis: Server) -> None:
    """Their limiters remember refusals for a moment, which do not reach the server."""
    async with new_store(any_redis.url, prefix="one") as one, new_store(any_redis.url, prefix="one") as other:
        doors = Door(one), Door(other)
        await doors[0].call()
        began = [await doors[number % 2].call() for number in range(100)]
        assert began == [0.0] * 19 + [60.0] + [0.0] * 80
        await doors[0].limiter.reset("ada")
        await doors[0].escalation.forget("ada")
        assert await doors[1].escalation.refused("ada", doors[1].limiter.block, 20) == 0.0  # by what it remembers


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"after": 0}, "after=20"),
        ({"after": True}, "after=20"),
        ({"within": 0}, "within is a number of seconds"),
        ({"within": "minute"}, "within is a number of seconds"),
        ({"block": ()}, "at least one block"),
        ({"block": 60}, "block is a list of seconds"),
        ({"block": "60"}, "block is a list of seconds"),
        ({"block": (600, 60)}, "at least as long as the one before"),
        ({"memory": 10}, "memory must be at least as long"),
        ({"within": 700, "memory": 600}, "memory must be at least as long as within"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], text: str) -> None:
    chosen: dict[str, Any] = {"after": 20, "within": 60, "block": (60, 600), **options}
    with pytest.raises(ValueError, match=text):
        Escalate(**chosen)


def test_it_is_a_value() -> None:
    assert Escalate(after=20, within=60, block=[60, 600]) == ESCALATE
    assert (ESCALATE.memory, Escalate(after=1, within=100_000, block=(1,)).memory) == (86_400, 100_000)
    assert len({ESCALATE, Escalate(after=20, within=60.0, block=(60, 600))}) == 1
    with pytest.raises(AttributeError):
        ESCALATE.after = 1  # type: ignore[misc]
