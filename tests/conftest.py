"""What all tests share: a clock that stands still, and a store that goes by it."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock

pytest_plugins = ["tests.support.redis_fixtures"]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)
