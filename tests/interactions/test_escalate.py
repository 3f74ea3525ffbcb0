"""A user who goes on with commands when refused is blocked for longer each time."""

from __future__ import annotations

import pytest

from asgi_ratelimit import Escalate, MemoryStore
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import reached, with_limit
from tests.support.signing import command, content, now

pytestmark = pytest.mark.anyio

ESCALATE = Escalate(after=5, within=60, block=(60, 600))


async def test_a_user_who_goes_on_is_blocked(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, escalate=ESCALATE)
    assert reached(await discord.post(command()))
    for seconds in (60, 600):
        for _ in range(5):
            await discord.post(command())
        assert f"<t:{now(clock) + seconds}:R>" in content(await discord.post(command()))
        assert reached(await discord.post(command("2")))
        clock.advance(seconds)
        assert reached(await discord.post(command()))


async def test_a_user_who_types_is_not(store: MemoryStore, clock: ManualClock) -> None:
    """Discord sends an autocomplete with each letter."""
    discord = with_limit(store, clock, escalate=ESCALATE, autocomplete="1/10s")
    for _ in range(50):
        await discord.post(command(type=4))
    assert reached(await discord.post(command()))
    for _ in range(50):
        await discord.post(command(type=4))
    clock.advance(10)
    assert reached(await discord.post(command()))
