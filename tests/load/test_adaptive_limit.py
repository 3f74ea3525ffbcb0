"""A rate that depends on the load of the server: what was used of it carries over, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import HTTPConnection

from asgi_ratelimit import FixedWindow, MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.load import server_load
from asgi_ratelimit.load.loop_lag import EVERY_S
from asgi_ratelimit.load.server_load import LOOPS
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import ask, hello
from tests.support.stores import new_store

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "redis"])
async def limited_store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(clock=clock)
    else:
        async with new_store(request.getfixturevalue("any_redis").url, clock=clock) as store:
            yield store


def set_load(load: float) -> None:
    """As the timer of this loop measures it in some seconds."""
    lag = LOOPS.of(asyncio.get_running_loop())
    for _ in range(100):
        lag.note(EVERY_S, load * EVERY_S)
    assert server_load() == pytest.approx(load, abs=0.05)


# Of 100, 60 are used. A bucket keeps the used share: then 60 % of 50, and after ten more calls 80 % of 100. A window
# keeps the count.
@pytest.mark.parametrize(("kind", "left"), [(TokenBucket, [40, 19, 10, 19]), (FixedWindow, [40, 0, 0, 39])])
async def test_half_the_rate_while_the_server_is_busy(kind: type[Limit], left: list[int], limited_store: Store) -> None:
    def limit(conn: HTTPConnection) -> Limit:
        return kind("50/hour" if server_load() > 0.8 else "100/hour")

    app = RateLimitMiddleware(hello, limit=limit, store=limited_store)
    seen = []
    for load, calls in [(0.1, 60), (0.9, 1), (0.9, 9), (0.1, 1)]:
        for _ in range(calls):
            set_load(load)  # the timer goes on, and the machine may be busy
            answer = await ask(app)
        seen.append(int(answer["x-ratelimit-remaining"]))
    assert seen == left
