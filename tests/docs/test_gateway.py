"""The recipe for the gateway: shards identify in their turns, and no event passes its connection's limit."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.testing import ManualClock
from tests.docs.markdown import DOCS, blocks
from tests.docs.running import run

pytestmark = pytest.mark.anyio

(RECIPE,) = (block for block in blocks(DOCS / "discord-bots.md") if "identifies" in block.source)


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return run(RECIPE)


async def test_each_shard_has_its_turn_in_the_bucket_of_its_number(
    recipe: dict[str, Any], clock: ManualClock, store: MemoryStore
) -> None:
    identifies = Limiter(recipe["identifies"].limits, store=store)
    asked = [await identifies.try_acquire(f"bucket:{shard % 2}") for shard in range(4)]
    assert [each.allowed for each in asked] == [True, True, False, False]
    assert asked[2].retry_after >= 5
    clock.advance(5.1)
    asked = [await identifies.try_acquire(f"bucket:{shard % 2}") for shard in range(2, 4)]
    assert [each.allowed for each in asked] == [True, True]


async def test_at_most_120_events_pass_in_any_minute(
    recipe: dict[str, Any], clock: ManualClock, store: MemoryStore
) -> None:
    events = Limiter(recipe["events"].limits, store=store)
    passed = []
    for _ in range(150):
        passed.append(sum([(await events.try_acquire("shard:0")).allowed for _ in range(30)]))
        clock.advance(1.0)
    busiest = max(sum(passed[start : start + 60]) for start in range(90))
    assert 100 <= busiest <= 120


def test_the_shards_of_the_example_have_identified(recipe: dict[str, Any]) -> None:
    assert recipe["ANSWER"]["shards"] == 4
