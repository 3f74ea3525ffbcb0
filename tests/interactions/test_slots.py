"""Slots of interactions: they end with the answer, wherever the limit stands."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from asgi_ratelimit import Concurrency, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import BUILDS, MOUNTED, Build, limited, reached
from tests.support.signing import URL, Discord, command

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("build", BUILDS)
async def test_a_slot_ends_with_the_answer(build: Build, watched: bool, store: MemoryStore, clock: ManualClock) -> None:
    app: ASGIApp = build(limited(store, Concurrency(1)))
    if watched:
        app = RateLimitMiddleware(app, limit=None, store=store)
    discord = Discord(app, clock, url=f"{URL}/" if build in MOUNTED else URL)
    assert [reached(await discord.post(command())) for _ in range(3)] == [True] * 3
