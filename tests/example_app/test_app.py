"""The example app over plain HTTP, on a clock that stands still: the limits of each visitor, and the free pages."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from example_app.main import create_app
from example_app.store import described, open_store
from tests.example_app.conftest import credentials

CALLS = {
    "search": ("GET", "/api/search"),
    "messages-general": ("POST", "/api/channels/general/messages"),
    "messages-random": ("POST", "/api/channels/random/messages"),
    "pictures": ("GET", "/api/pictures"),
    "reports": ("GET", "/api/reports"),
}


def log_in(client: TestClient, member: str) -> None:
    response = client.post("/login", data=credentials(member), follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")


def read(client: TestClient, gauge: str) -> dict[str, Any]:
    readings: dict[str, dict[str, Any]] = client.get("/api/gauges").json()
    return readings[gauge]


# Visitors and users


def test_a_stranger_is_limited_by_address(client: TestClient) -> None:
    page = client.get("/")
    assert "Hello, whoever you are." in page.text
    assert '<span class="address">testclient</span>' in page.text
    assert page.headers["x-ratelimit-limit"] == "60"


@pytest.mark.parametrize(
    ("member", "name", "whole_app", "reports"), [("ada", "Ada", 120, 6), ("grace", "Grace", 600, 12)]
)
def test_each_tier_has_its_limits(client: TestClient, member: str, name: str, whole_app: int, reports: int) -> None:
    log_in(client, member)
    page = client.get("/")
    assert f"Hello, {name}." in page.text
    assert page.headers["x-ratelimit-limit"] == str(whole_app)
    assert read(client, "app")["limit"] == whole_app
    assert client.get("/api/reports").headers["x-ratelimit-limit"] == str(reports)
    assert [client.get("/api/reports").status_code for _ in range(reports)] == [200] * (reports - 1) + [429]


def test_each_member_has_a_bucket_of_their_own(app: FastAPI, client: TestClient) -> None:
    log_in(client, "ada")
    assert [client.get("/api/search").status_code for _ in range(6)] == [200] * 5 + [429]
    with TestClient(app) as other:
        log_in(other, "grace")
        assert other.get("/api/search").status_code == 200


def test_logging_out_makes_one_a_stranger_again(client: TestClient) -> None:
    log_in(client, "grace")
    assert client.post("/logout", follow_redirects=False).status_code == 303
    assert read(client, "app")["limit"] == 60


def test_no_other_user_can_log_in(client: TestClient) -> None:
    assert client.post("/login", data={"member": "mallory", "password": "analytical engine"}).status_code == 401
    assert client.post("/login", data={"member": "ada"}).status_code == 422
    assert client.post("/login").status_code == 422
    assert read(client, "app")["limit"] == 60


def test_a_session_is_signed_with_the_secret_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SECRET", "kept")
    with TestClient(create_app()) as client:
        log_in(client, "grace")
        cookie = client.cookies["session"]
    for secret, limit in (("kept", 600), ("", 60), ("another", 60)):
        monkeypatch.setenv("SESSION_SECRET", secret)
        with TestClient(create_app(), cookies={"session": cookie}) as later:
            assert read(later, "app")["limit"] == limit


def test_the_cookie_stays_on_this_site_and_away_from_scripts(client: TestClient) -> None:
    response = client.post("/login", data=credentials("ada"), follow_redirects=False)
    cookies = response.headers.get_list("set-cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {"session", "device"}
    for flags in map(str.lower, cookies):
        assert "samesite=lax" in flags
        assert "httponly" in flags


# Free pages


def test_looking_at_the_gauges_charges_nothing(client: TestClient) -> None:
    before = client.get("/api/gauges")
    for _ in range(100):
        assert client.get("/api/gauges").json() == before.json()
    assert {reading["remaining"] == reading["limit"] for reading in before.json().values()} == {True}
    assert "x-ratelimit-limit" not in before.headers


def test_static_files_are_free(client: TestClient) -> None:
    for name in ("style.css", "dashboard.js", "drop.svg"):
        assert client.get(f"/static/{name}").status_code == 200
    assert read(client, "app")["remaining"] == 60


# A gauge shows the bucket that the route charges


@pytest.mark.parametrize("gauge", CALLS)
def test_a_call_moves_its_own_gauge_and_no_other_routes(client: TestClient, gauge: str) -> None:
    before = client.get("/api/gauges").json()
    answer = client.request(*CALLS[gauge])
    assert answer.status_code == 200
    after = client.get("/api/gauges").json()
    assert after[gauge]["bucket"] == answer.headers["x-ratelimit-bucket"]
    assert after[gauge]["remaining"] == int(answer.headers["x-ratelimit-remaining"]) == before[gauge]["remaining"] - 1
    assert after[gauge]["reset_after"] == float(answer.headers["x-ratelimit-reset-after"])
    assert {name for name in before if before[name] != after[name]} == {gauge, "app", "everybody"}


def test_a_gauge_shows_when_the_next_call_is_allowed(client: TestClient, clock: ManualClock) -> None:
    assert [client.get("/api/search").status_code for _ in range(5)] == [200] * 5
    assert read(client, "search")["retry_after"] == 1.0
    refusal = client.get("/api/search")
    assert refusal.status_code == 429
    assert refusal.json() == {"message": "You are being rate limited.", "retry_after": 1.0, "global": False}
    clock.advance(1.0)
    assert read(client, "search")["retry_after"] == 0.0
    assert client.get("/api/search").status_code == 200


def test_the_limit_for_everybody_counts_all_visitors(app: FastAPI, client: TestClient) -> None:
    with TestClient(app) as other:
        log_in(other, "grace")  # charged to the stranger that she still is
        other.get("/login")
    readings = client.get("/api/gauges").json()
    assert (readings["everybody"]["remaining"], readings["everybody"]["limit"]) == (898, 900)
    assert readings["app"]["remaining"] == 59


def test_the_whole_app_is_limited(client: TestClient) -> None:
    assert {client.get("/login").status_code for _ in range(60)} == {200}
    assert client.get("/").status_code == 429
    assert client.get("/api/search").status_code == 429
    assert client.get("/nowhere").status_code == 429
    assert read(client, "app")["retry_after"] == 1.0
    assert read(client, "search")["remaining"] == 5


def test_a_socket_is_closed_for_one_frame_too_many(client: TestClient) -> None:
    with client.websocket_connect("/api/echo") as socket:
        for number in range(12):
            socket.send_text(f"frame {number}")
            assert socket.receive_text() == f"frame {number}"
        socket.send_text("one too many")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (4008, "rate limited")
    assert read(client, "app")["remaining"] == 59


# Headers and messages


def test_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/protection", "/login"):
        page = client.get(path)
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        assert "://" not in page.text
    assert client.get("/docs").status_code == 404


def test_one_process_names_no_worker_and_keeps_its_connections(client: TestClient) -> None:
    page = client.get("/")
    assert ">in memory, 1 process</span>" in page.text
    assert not {"x-worker", "connection"} & set(page.headers)


def test_the_store_is_the_redis_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(), MemoryStore)
    monkeypatch.setenv("RATELIMIT_REDIS_URL", "redis://127.0.0.1:1/0")
    store = open_store()
    assert isinstance(store, RedisStore)
    assert described(store) == "Redis, shared"
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert described(store) == "Redis, shared by 3 workers"


def test_the_openapi_document_names_the_429(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    limited = {path for path, operations in paths.items() for op in operations.values() if "429" in op["responses"]}
    assert limited == {
        "/api/search",
        "/api/channels/{channel_id}/messages",
        "/api/pictures",
        "/api/reports",
        "/api/exports",
        "/api/knock",
    }
