"""Permits show the same behaviour in memory and on every kind of Redis server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.discord.permits.contract import PermitContract
from tests.support.stores import new_store


@pytest.mark.anyio
class TestMemoryPermits(PermitContract):
    def make_store(self, clock: ManualClock) -> MemoryStore:
        return MemoryStore(clock=clock)


@pytest.mark.anyio
class TestSharedPermits(PermitContract):
    @pytest.fixture(autouse=True)
    async def where(self, every_url: str) -> AsyncIterator[None]:
        self.url = every_url
        self.stores: list[RedisStore] = []
        yield
        for store in self.stores:
            await store.aclose()

    def make_store(self, clock: ManualClock) -> RedisStore:
        self.stores.append(new_store(self.url, clock=clock))
        return self.stores[-1]
