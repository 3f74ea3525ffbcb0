"""A clock that stands still, and a store that goes by it."""

from __future__ import annotations

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)
