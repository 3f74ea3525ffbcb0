"""Other sites and the example app: it is in no frame, answers to its own names, and obeys its own pages only."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from asgi_ratelimit import MemoryStore
from example_app.main import create_app
from tests.support.signing import PING, PONG, PUBLIC_KEY, encoded, signature_of

ELSEWHERE = "http://elsewhere.example"
BURST = {"messages": 1, "channels": 1}


@pytest.mark.parametrize("path", ["/", "/discord", "/login", "/static/style.css", "/api/gauges", "/nowhere"])
def test_nothing_may_be_framed_or_taken_for_another_type(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example:8000", "", "[::1", "testserver@x"])
def test_a_request_to_another_name_reaches_nothing(client: TestClient, host: str) -> None:
    refused = client.post("/discord/bursts", json=BURST, headers={"Host": host})
    assert refused.status_code == 400
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert client.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_without_a_setting_the_names_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.delenv("ALLOWED_HOSTS")
    with TestClient(create_app(MemoryStore())) as client:
        assert client.get("/login", headers={"Host": host}).status_code == 200
        assert client.get("/login").status_code == 400


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://testserver:81", "http://[", "testserver"])
@pytest.mark.parametrize("path", ["/discord/bursts", "/discord/tests", "/login", "/logout"])
def test_a_page_of_another_site_may_not_post(client: TestClient, path: str, origin: str) -> None:
    assert client.post(path, json=BURST, headers={"Origin": origin}).status_code == 403


def test_a_page_of_its_own_may_post(client: TestClient) -> None:
    origin = {"Origin": "http://testserver"}
    assert client.post("/logout", headers=origin, follow_redirects=False).status_code == 303
    assert client.get("/api/search", headers={"Origin": ELSEWHERE}).status_code == 200  # it cannot read the answer


@pytest.mark.parametrize("headers", [{"Origin": ELSEWHERE}, {"Origin": "null"}, {"Host": "elsewhere.example"}])
def test_a_websocket_of_another_site_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/echo", headers=headers):
        pass


def test_a_websocket_of_its_own_is_open(client: TestClient) -> None:
    with client.websocket_connect("/api/echo", headers={"Origin": "http://testserver"}) as socket:
        socket.send_text("frame")
        assert socket.receive_text() == "frame"


def test_discord_may_post_interactions_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_PUBLIC_KEY", PUBLIC_KEY)
    store = MemoryStore()
    body = encoded(PING)
    headers = {**signature_of(body, int(store.clock.wall())), "Host": "bot.example"}
    with TestClient(create_app(store)) as client:
        answer = client.post("/discord/interactions", content=body, headers=headers)
    assert answer.json() == PONG


def test_a_browser_shows_it_in_no_frame(page: Page) -> None:
    page.goto("/login")
    page.evaluate(
        """() => new Promise((done) => {
            const frame = Object.assign(document.createElement("iframe"), { src: "/", name: "inner", onload: done });
            document.body.append(frame);
        })"""
    )
    frame = page.frame("inner")
    assert frame is not None
    assert frame.url.startswith("chrome-error:")
