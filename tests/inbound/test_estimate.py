"""Estimate: the cost of a call before it is known."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_ratelimit import Estimate, MemoryStore, RateLimitMiddleware, RateLimitWarning, Served, TokenBucket
from tests.inbound.test_middleware import door
from tests.support.asgi import ask

pytestmark = pytest.mark.anyio


@given(st.lists(st.integers(1, 10**6), min_size=20, max_size=300), st.floats(0.01, 1))
def test_it_is_the_exact_quantile_of_the_last_two_hundred(costs: list[int], quantile: float) -> None:
    estimate = Estimate(quantile=quantile, start=5)
    for cost in costs:
        estimate.learn(cost)
    last = sorted(costs[-200:])
    assert estimate.of() == last[math.ceil(len(last) * quantile) - 1]
    assert sum(cost <= estimate.of() for cost in last) >= quantile * len(last)


def test_the_first_calls_are_charged_at_least_the_start() -> None:
    estimate = Estimate(start=4000)
    for _ in range(19):
        estimate.learn(10)
        assert estimate.of() == 4000
    estimate.learn(10)
    assert estimate.of() == 10


def test_the_first_calls_are_charged_more_if_one_of_them_has_cost_more() -> None:
    estimate = Estimate(start=4000)
    estimate.learn(9000)
    assert estimate.of() == 9000


def test_calls_that_cost_nothing_teach_nothing() -> None:
    estimate = Estimate(start=4000)
    for _ in range(50):
        estimate.learn(0)
    assert estimate.of() == 4000


def test_routes_learn_apart() -> None:
    estimate = Estimate(start=7)
    for _ in range(20):
        estimate.learn(100, "/chat")
    assert (estimate.of("/chat"), estimate.of("/search"), estimate.of()) == (100, 7, 7)


def test_the_route_that_learned_least_recently_is_forgotten_at_a_thousand() -> None:
    estimate = Estimate(start=1)
    for _ in range(20):
        estimate.learn(50, "busy")
        estimate.learn(60, "idle")
    for number in range(999):
        estimate.learn(9, "busy")
        estimate.learn(9, f"/{number}")
    assert (estimate.of("busy"), estimate.of("idle")) == (9, 1)


def test_threads_may_share_one() -> None:
    estimate = Estimate(start=1)

    def work(cost: int) -> int:
        for _ in range(300):
            estimate.learn(cost)
            assert estimate.of() in range(1, 9)
        return estimate.of()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(1, 9)))


@pytest.mark.parametrize("quantile", [0, -0.1, 1.1, "0.9", None, True, math.nan])
def test_a_quantile_that_is_none_is_an_error(quantile: Any) -> None:
    with pytest.raises(ValueError, match=r"quantile is a share.*0\.95"):
        Estimate(quantile=quantile, start=1)


@pytest.mark.parametrize("start", [0, -1, 1.5, "4000", None, True])
def test_a_start_that_is_no_cost_is_an_error(start: Any) -> None:
    with pytest.raises(ValueError, match="start is a whole number from 1"):
        Estimate(start=start)


def test_it_says_what_it_is() -> None:
    assert repr(Estimate(start=4000)) == "Estimate(quantile=0.95, start=4000)"


# As the cost of the middleware


def size(served: Served) -> int:
    return served.body_bytes


async def test_the_middleware_charges_what_it_has_learned(store: MemoryStore) -> None:
    estimate = Estimate(start=100)
    app = door(store, "1000/day", cost=estimate, settle=size)
    assert (await ask(app))["x-ratelimit-remaining"] == "900"
    for _ in range(19):
        await ask(app)
    assert estimate.of() == 5
    assert (await ask(app))["x-ratelimit-remaining"] == "895"


async def test_a_middleware_around_the_app_learns_one_value_and_one_on_a_route_learns_of_it(store: MemoryStore) -> None:
    def page(request: Request) -> Response:
        return PlainTextResponse("page")

    whole, routes = Estimate(start=9), Estimate(start=9)
    own = Middleware(RateLimitMiddleware, limit="99/s", name="own", store=store, cost=routes, settle=size)
    inner = Starlette(routes=[Route("/{name}", page, middleware=[own])])
    app = Starlette(routes=[Mount("/inner", inner)])
    app.add_middleware(RateLimitMiddleware, limit="999/s", store=store, cost=whole, settle=size)
    for number in range(20):
        assert (await ask(app, f"/inner/{number}")).status == 200
    assert (whole.of(), routes.of("/inner/{name}"), routes.of()) == (4, 4, 9)


async def test_it_is_never_above_the_capacity_and_that_is_no_mistake(
    store: MemoryStore, recwarn: pytest.WarningsRecorder
) -> None:
    estimate = Estimate(start=5)
    estimate.learn(5000)
    assert (await ask(door(store, "10/day", cost=estimate)))["x-ratelimit-remaining"] == "0"
    assert not [one for one in recwarn.list if issubclass(one.category, RateLimitWarning)]


def test_a_start_above_the_capacity_is_an_error(store: MemoryStore) -> None:
    with pytest.raises(ValueError, match="the start of an Estimate must be a whole number from 1 to 10"):
        door(store, "10/day", cost=Estimate(start=11))


async def test_a_soft_limit_bounds_no_cost(store: MemoryStore) -> None:
    app = door(store, ["20/day", TokenBucket("10/hour", enforce=False)], cost=11)
    assert (await ask(app)).status == 200
