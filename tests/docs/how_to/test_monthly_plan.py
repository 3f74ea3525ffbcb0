"""A monthly plan: its calendar, what is rolled over, top-ups, credit, and service beyond the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage

DAY = 86_400.0
ADA, BOB = {"x-customer": "ada"}, {"x-customer": "bob"}


def berlin(month: int, day: int) -> float:
    return datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(berlin(3, 15))


@pytest.fixture
def page(run_page: RunPage) -> dict[str, Any]:
    return run_page("monthly-plan")


@pytest.fixture
def client(page: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(page["app"], headers=ADA) as client:
        yield client


def use(page: dict[str, Any], clock: ManualClock, count: int) -> None:
    """Make so many calls at once, as another process that shares the buckets, at most 5000 a day."""
    bought = sum(calls for calls, end in page["TOP_UPS"].get("ada", []) if clock.wall() < end)
    limiter = Limiter(page["limits"](50_000 + bought, 15), store=page["store"], name="calls")
    for _ in range(count // 5000):
        assert asyncio.run(limiter.try_acquire("ada", 5000)).allowed
        clock.advance(DAY)
    if count % 5000:
        assert asyncio.run(limiter.try_acquire("ada", count % 5000)).allowed


def plan(client: TestClient) -> dict[str, Any]:
    plan, ceiling = client.get("/limits/me").json()["limits"]
    assert (plan["limit"] >= 50_000, ceiling["limit"]) == (True, 5000)
    return {name: plan[name] for name in ("remaining", "reset_after", "over")}


def text_of(client: TestClient) -> str:
    answer = client.post("/translations?text=hi")
    assert answer.status_code == 200
    return str(answer.json())


def test_a_month_goes_from_the_first_day_of_the_customer_to_the_next(
    client: TestClient, page: dict[str, Any], clock: ManualClock
) -> None:
    assert text_of(client) == "hi (thoroughly translated)"
    assert plan(client) == {"remaining": 49_999, "reset_after": berlin(4, 15) - clock.wall(), "over": False}
    assert (berlin(4, 15) - berlin(3, 15)) / DAY == 31 - 1 / 24  # the clocks go forward
    client.post("/translations?text=hi", headers=BOB)
    months = client.get("/limits/me", headers=BOB).json()["limits"]
    assert months[0]["reset_after"] == berlin(3, 31) - clock.wall()
    clock.advance(berlin(3, 31) - clock.wall())
    client.post("/translations?text=hi", headers=BOB)
    months = client.get("/limits/me", headers=BOB).json()["limits"]
    assert months[0]["reset_after"] == berlin(4, 30) - clock.wall()
    assert client.post("/translations?text=hi", headers={"x-customer": "eve"}).status_code == 401


def test_a_quarter_of_the_rest_is_rolled_over_once(
    client: TestClient, page: dict[str, Any], clock: ManualClock
) -> None:
    use(page, clock, 10_000)
    clock.advance(berlin(4, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000 + 10_000
    text_of(client)
    clock.advance(berlin(5, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000 + 12_500  # 50 000 were left, and the 9999 of before are gone


def test_of_a_month_without_calls_a_quarter_is_rolled_over(client: TestClient, clock: ManualClock) -> None:
    text_of(client)
    clock.advance(berlin(5, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000 + 12_500
    text_of(client)
    clock.advance(berlin(9, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000


def test_a_refund_after_the_month_changes_nothing(client: TestClient, page: dict[str, Any], clock: ManualClock) -> None:
    limiter = Limiter(page["limits"](50_000, 15), store=page["store"], name="calls")
    decision = asyncio.run(limiter.try_acquire("ada", 1000))
    clock.advance(berlin(4, 15) - clock.wall())
    text_of(client)
    before = plan(client)
    asyncio.run(limiter.refund(decision))
    assert plan(client) == before


def test_over_the_plan_a_call_is_served_more_simply(
    client: TestClient, page: dict[str, Any], clock: ManualClock
) -> None:
    use(page, clock, 49_999)
    clock.advance(DAY)
    assert text_of(client) == "hi (thoroughly translated)"
    assert text_of(client) == "hi (roughly translated)"
    assert plan(client) == {"remaining": 0, "reset_after": berlin(4, 15) - clock.wall(), "over": True}
    clock.advance(berlin(4, 15) - clock.wall())
    assert text_of(client) == "hi (thoroughly translated)"
    assert plan(client)["remaining"] == 49_999


def test_the_ceiling_holds_over_the_plan(client: TestClient, page: dict[str, Any], clock: ManualClock) -> None:
    use(page, clock, 50_000)
    use(page, clock, 4999)
    assert text_of(client) == "hi (roughly translated)"
    refused = client.post("/translations?text=hi")
    assert refused.status_code == 429
    assert refused.json()["retry_after"] == berlin(3, 26) - clock.wall()


def test_a_top_up_counts_until_the_month_ends(client: TestClient, page: dict[str, Any], clock: ManualClock) -> None:
    assert client.post("/top-ups?count=10000").status_code == 400  # nothing is used
    use(page, clock, 50_000)
    assert text_of(client) == "hi (roughly translated)"
    assert client.post("/top-ups?count=10000").json() == {"bought": 10_000}
    assert text_of(client) == "hi (thoroughly translated)"
    assert plan(client) == {"remaining": 9999, "reset_after": berlin(4, 15) - clock.wall(), "over": False}
    clock.advance(berlin(4, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000  # nothing was left of the plan itself


def test_of_a_top_up_nothing_is_rolled_over(client: TestClient, page: dict[str, Any], clock: ManualClock) -> None:
    use(page, clock, 30_000)
    client.post("/top-ups?count=10000")
    assert plan(client)["remaining"] == 30_000
    clock.advance(berlin(4, 15) - clock.wall())
    assert plan(client)["remaining"] == 50_000 + 5000


def test_a_failed_call_costs_nothing(client: TestClient, page: dict[str, Any]) -> None:
    text_of(client)
    assert client.post("/translations?text=%3F").status_code == 503
    assert [each["remaining"] for each in client.get("/limits/me").json()["limits"]] == [49_999, 4999]
