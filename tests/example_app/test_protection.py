"""The page about protection over HTTP: slots, a storm, and attempts to log in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock
from example_app.main import create_app
from tests.example_app.conftest import credentials
from tests.support.servers import wait_until


@pytest.fixture
def visitor(address: str) -> Iterator[httpx.Client]:
    """A visitor of the app as uvicorn serves it. Its streams may be closed."""
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as visitor:
        yield visitor


def in_flight(visitor: httpx.Client, name: str = "in_flight") -> int:
    return int(visitor.get("/api/protection").json()[name])


# In flight


def test_a_visitor_has_two_slots_and_closing_frees_one(visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/api/exports") as first, visitor.stream("GET", "/api/exports") as second:
        assert (first.status_code, second.status_code, in_flight(visitor)) == (200, 200, 2)
        refused = visitor.get("/api/exports")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        second.close()
        wait_until(lambda: in_flight(visitor) == 1, "the slot is free")
        assert visitor.get("/api/exports", params={"seconds": 0.01}).status_code == 200


def test_an_address_has_three_slots_for_all_its_users(visitor: httpx.Client, address: str) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(httpx.Client(base_url=address, trust_env=False, timeout=30))
        visitor.post("/login", data=credentials("ada"))
        other.post("/login", data=credentials("grace"))
        for user in (visitor, visitor, other):
            assert stack.enter_context(user.stream("GET", "/api/exports")).status_code == 200
        refused = other.get("/api/exports")
        assert (refused.status_code, refused.headers["x-ratelimit-limit"]) == (429, "3")
        assert (in_flight(other), in_flight(other, "in_flight_of_address")) == (1, 3)


def test_an_export_counts_up_to_its_end(client: TestClient) -> None:
    answer = client.get("/api/exports", params={"seconds": 0.01})
    assert [json.loads(line)["done"] for line in answer.text.splitlines()] == [0, 1]
    assert client.get("/api/protection").json()["in_flight"] == 0


@pytest.mark.parametrize("seconds", [0, 60])
def test_an_export_has_a_longest_time(client: TestClient, seconds: float) -> None:
    assert client.get("/api/exports", params={"seconds": seconds}).status_code == 422


# Bans


def test_a_visitor_who_hammers_is_banned_for_longer_each_time(client: TestClient, clock: ManualClock) -> None:
    for seconds in (8, 20, 60, 60):
        assert {client.post("/api/knock").status_code for _ in range(3)} == {200}
        refused = [client.post("/api/knock") for _ in range(9)]
        assert [answer.json()["retry_after"] > 2 for answer in refused] == [False] * 8 + [True]
        assert client.get("/api/protection").json()["banned_for"] == seconds
        assert client.get("/login").status_code == 200  # it is that door alone
        clock.advance(seconds)
        assert client.get("/api/protection").json()["banned_for"] == 0


def test_a_visitor_who_waits_is_not_banned(client: TestClient, clock: ManualClock) -> None:
    for _ in range(10):
        assert {client.post("/api/knock").status_code for _ in range(3)} == {200}
        assert client.post("/api/knock").status_code == 429
        clock.advance(5)


# Overload


def storm(client: TestClient, **plan: float) -> list[dict[str, Any]]:
    answer = client.post("/protection/storms", json=plan)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_storm_is_reported_on_by_class() -> None:
    with TestClient(create_app(MemoryStore())) as client:
        lines = storm(client, flood=3, seconds=0.2)
        shed = {one["name"]: one["shed"] for one in operators_view(client)}.get("load", 0)
    assert [line["kind"] for line in lines] == ["look"] * (len(lines) - 1) + ["end"]
    end = lines[-1]
    assert sum(one["served"] for one in end["classes"]) > 0
    assert all(one["ms"] is None or one["ms"] >= 14 for one in end["classes"])
    assert end["health"]["answered"] == end["health"]["asked"] > 0
    assert sum(one["shed"] for one in end["classes"]) == shed


def operators_view(client: TestClient) -> list[dict[str, Any]]:
    client.post("/login", data=credentials("margaret"))
    limiters: list[dict[str, Any]] = client.get("/operator/state").json()["limiters"]
    return limiters


def test_one_storm_at_a_time_and_it_ends_with_its_reader(visitor: httpx.Client) -> None:
    with visitor.stream("POST", "/protection/storms", json={"flood": 0.5}) as running:
        assert running.status_code == 200
        refused = visitor.post("/protection/storms", json={"flood": 0.5})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    wait_until(lambda: visitor.post("/protection/storms", json={"seconds": 0.01}).status_code == 200, "it has ended")


@pytest.mark.parametrize("plan", [{"flood": 4}, {"flood": 0}, {"seconds": 6}, {"seconds": -1}, {"flood": "NaN"}])
def test_a_storm_is_bounded(client: TestClient, plan: dict[str, object]) -> None:
    assert client.post("/protection/storms", json=plan).status_code == 422


@pytest.mark.parametrize("kind", ["payments", "pages", "suggestions"])
def test_no_client_can_send_a_request_of_a_storm(client: TestClient, kind: str) -> None:
    assert client.get(f"/storm/{kind}").status_code == 404


def test_health_checks_and_looks_are_never_limited(client: TestClient) -> None:
    while client.get("/nowhere").status_code != 429:
        pass
    assert client.get("/health").json() == {"status": "well"}
    assert client.get("/api/protection").status_code == 200


# Log-ins


def attempt(client: TestClient, *, right: bool = False, **more: str) -> tuple[int, int, float]:
    outcome = client.post("/protection/log-ins", json={"right": right, **more}).json()
    return outcome["status"], outcome["left"], outcome["blocked_for"]


def test_guessing_closes_an_account_to_strangers_and_not_to_its_phone(client: TestClient, clock: ManualClock) -> None:
    assert [attempt(client) for _ in range(5)] == [*((401, left, 0) for left in (4, 3, 2, 1)), (401, 0, 10)]
    assert attempt(client) == attempt(client, right=True) == (429, 0, 10)
    assert attempt(client, right=True, place="phone") == (200, 5, 0)
    assert attempt(client, account="grace") == (401, 4, 0)
    clock.advance(10)
    assert [attempt(client) for _ in range(5)][-1] == (401, 0, 30)
    clock.advance(30)
    assert attempt(client, right=True) == (200, 5, 0)
    assert [attempt(client) for _ in range(5)][-1] == (401, 0, 90)


def test_the_phone_has_a_bucket_of_its_own(client: TestClient) -> None:
    assert [attempt(client, place="phone")[0] for _ in range(6)] == [401] * 5 + [429]
    places = client.get("/protection/log-ins/ada").json()
    assert (places["stranger"]["left"], places["phone"]["left"], places["phone"]["blocked_for"]) == (5, 0, 10)


def test_looking_at_an_account_charges_nothing(client: TestClient) -> None:
    before = client.get("/protection/log-ins/ada").json()
    assert client.get("/protection/log-ins/ada").json() == before
    assert [place["left"] for place in before.values()] == [5, 5]


def test_the_operators_account_is_not_to_be_attacked(client: TestClient) -> None:
    assert client.post("/protection/log-ins", json={"account": "margaret"}).status_code == 422
    assert client.get("/protection/log-ins/margaret").status_code == 422


def test_the_log_in_itself_has_the_same_guard(app: FastAPI, client: TestClient) -> None:
    client.post("/login", data=credentials("ada"))  # so that the account knows this address and this device
    with TestClient(app, client=("192.0.2.9", 1)) as other:
        wrong = [other.post("/login", data={"member": " ADA", "password": f"{guess}"}) for guess in range(6)]
        assert [answer.status_code for answer in wrong] == [401] * 5 + [429]
        assert "The name or the password is wrong." in wrong[0].text
        assert "Too many wrong passwords. Try again in 10 s." in wrong[-1].text
        assert wrong[-1].headers["retry-after"] == "10"
        assert other.post("/login", data=credentials("ada")).status_code == 429
        other.cookies.update({"device": client.cookies["device"]})
        assert other.post("/login", data=credentials("ada"), follow_redirects=False).status_code == 303
    assert client.post("/login", data=credentials("ada"), follow_redirects=False).status_code == 303


def test_wrong_names_and_wrong_passwords_get_the_same_answer(client: TestClient) -> None:
    pages = [client.post("/login", data={"member": name, "password": "x"}) for name in ("ada", "mallory")]
    assert pages[0].status_code == pages[1].status_code == 401
    assert pages[0].text == pages[1].text
