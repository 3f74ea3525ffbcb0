"""The stores that a SyncLimiter is tested with."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server
from tests.support.threads import PromisingStore

MakeStore = Callable[[ManualClock], Store]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(params=["memory", "promising", "redis"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "redis":
        url = request.getfixturevalue("server").url
        prefix = secrets.token_hex(8)
        return lambda clock: RedisStore(url, clock=clock, prefix=prefix, timeout=5)
    return PromisingStore if request.param == "promising" else lambda clock: MemoryStore(clock=clock)


@pytest.fixture
def any_store(make_store: MakeStore, clock: ManualClock) -> Store:
    return make_store(clock)
