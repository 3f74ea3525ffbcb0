"""Plans from a database: they are cached, and a change of the plan keeps what was used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient

from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage
from tests.support.servers import Server

BERLIN = ZoneInfo("Europe/Berlin")

Sell = Callable[[str, str], None]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "app.db"
    monkeypatch.setenv("DATABASE", str(path))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE users (name TEXT PRIMARY KEY, plan TEXT)")
    return path


@pytest.fixture
def sell(database: Path) -> Sell:
    def sell(user: str, plan: str) -> None:
        with closing(sqlite3.connect(database)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", [user, plan])

    return sell


@pytest.fixture
def page(database: Path, run_page: RunPage) -> dict[str, Any]:
    return run_page("plans")


@pytest.fixture
def client(page: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(page["app"], headers={"x-user": "ada"}) as client:
        yield client


def search(client: TestClient, count: int) -> tuple[int, int]:
    """Make so many calls that pass, and return what is left of the minute and of the day."""
    for _ in range(count):
        answer = client.get("/search")
        assert answer.status_code == 200
    minute, day = (int(part.split("r=")[1].split(";")[0]) for part in answer.headers["ratelimit"].split(","))
    return minute, day


def test_a_user_who_is_not_in_the_database_is_free(client: TestClient) -> None:
    assert search(client, 20) == (0, 80)
    assert client.get("/search").status_code == 429


def test_a_plan_is_read_once_a_minute(client: TestClient, sell: Sell, clock: ManualClock) -> None:
    assert search(client, 1) == (19, 99)
    sell("ada", "pro")
    clock.advance(59.999)
    assert search(client, 1) == (19, 98)
    clock.advance(0.001)
    assert search(client, 1) == (200 - 10 - 1, 2000 - 3)  # one of 20 is as much as ten of 200


def test_an_upgrade_keeps_what_was_used(client: TestClient, page: dict[str, Any], sell: Sell) -> None:
    assert search(client, 10) == (10, 90)
    sell("ada", "pro")
    page["plans"].forget("ada")
    assert search(client, 1) == (99, 2000 - 11)


def test_a_downgrade_keeps_what_was_used_until_tomorrow(client: TestClient, sell: Sell, clock: ManualClock) -> None:
    sell("ada", "pro")
    assert search(client, 150) == (50, 1850)
    sell("ada", "free")
    assert search(client, 1) == (49, 1849)  # for up to a minute
    clock.advance(60)
    refused = client.get("/search")
    assert refused.status_code == 429
    now = datetime.fromtimestamp(clock.wall(), BERLIN)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), BERLIN).timestamp()
    assert refused.json()["retry_after"] == midnight - clock.wall()
    clock.advance(midnight - clock.wall())
    assert search(client, 1) == (19, 99)


def test_a_user_who_toggles_gets_no_more_than_the_larger_plan(
    client: TestClient, page: dict[str, Any], sell: Sell
) -> None:
    passed = []
    for number in range(80):
        sell("ada", ("pro", "free")[number % 2])
        page["plans"].forget("ada")
        passed.append(client.get("/search").status_code == 200)
    # A call as "pro" takes 1 of 200, one as "free" 10 of them: 18 of each, and two more as "pro".
    assert [sum(passed[::2]), sum(passed[1::2])] == [20, 18]


def test_a_plan_without_limits_is_refused(client: TestClient, sell: Sell) -> None:
    sell("ada", "suspended")
    assert client.get("/search").status_code == 429


def test_the_last_known_plan_holds_while_the_database_is_down(
    client: TestClient, database: Path, sell: Sell, clock: ManualClock
) -> None:
    sell("ada", "pro")
    assert search(client, 1) == (199, 1999)
    database.unlink()
    clock.advance(60)
    assert search(client, 1) == (199, 1998)
    assert client.get("/search", headers={"x-user": "bob"}).headers["x-ratelimit-remaining"] == "19"


def test_a_new_process_goes_on_with_what_was_used(
    run_page: RunPage, redis: Server, database: Path, sell: Sell, clock: ManualClock
) -> None:
    def store() -> RedisStore:
        return RedisStore(f"redis://{redis.host}:{redis.port}", prefix="plans", clock=clock)

    with TestClient(run_page("plans", store)["app"], headers={"x-user": "ada"}) as client:
        assert search(client, 10) == (10, 90)
    sell("ada", "pro")
    with TestClient(run_page("plans", store)["app"], headers={"x-user": "ada"}) as client:
        assert search(client, 1) == (99, 2000 - 11)
