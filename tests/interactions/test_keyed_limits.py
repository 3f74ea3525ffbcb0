"""`by` at an interactions endpoint: per user and per guild in one list."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit import MemoryStore, by
from asgi_ratelimit.interactions import InteractionLimit
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import as_dependency, refusals, with_limit
from tests.support.signing import PUBLIC_KEY, Discord, command

pytestmark = pytest.mark.anyio


def guild_of(interaction: dict[str, Any]) -> str:
    return str(interaction["guild_id"])


async def channel_of(interaction: dict[str, Any]) -> str | None:
    return interaction.get("channel_id")


async def test_a_user_and_a_guild_are_charged_together(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, ["2/hour", by(guild_of, "3/hour"), by(channel_of, "9/s", optional=True)])
    assert await refusals(discord, *[command("1") for _ in range(3)]) == [False, False, True]
    assert await refusals(discord, command("2", channel_id="5"), command("2")) == [False, True]
    assert await refusals(discord, command("2", guild_id="8"), command("3")) == [False, True]


async def test_a_used_up_guild_gets_no_choices(store: MemoryStore, clock: ManualClock) -> None:
    limit = InteractionLimit(PUBLIC_KEY, ["9/hour", by(guild_of, "1/hour")], autocomplete="9/s", store=store)
    discord = Discord(as_dependency(limit), clock)
    choices = {"type": 4, "data": {"name": "play", "options": []}}
    assert await refusals(discord, command("1", **choices), command("1"), command("2", **choices)) == [
        False,
        False,
        True,
    ]
