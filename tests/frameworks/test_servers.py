"""Other servers than uvicorn, as processes of their own: the refusal reaches a client, and the lifespan is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.asgi_servers import SECONDS, served, wait_for
from tests.support.servers.server import wait_until

APP = "tests.frameworks.served:app"
COMMANDS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "gunicorn": ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:{port}", APP),
    "gunicorn with uvicorn": ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}


@pytest.mark.parametrize("server", COMMANDS)
def test_the_refusal_reaches_a_client_and_the_lifespan_runs(server: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with served(COMMANDS[server], tmp_path / "log", environment={"EVENTS": str(events)}) as process:
        wait_for(process)
        for left in "43210":
            response, body = process.get()
            assert (response.status, json.loads(body)) == (200, ["store started", "app started"])
            assert response.headers["x-ratelimit-remaining"] == left
        refused, body = process.get()
        assert refused.status == 429
        assert json.loads(body)["message"] == "You are being rate limited."
        assert refused.headers.get_all("content-type") == ["application/json"]
        assert refused.headers.get_all("x-ratelimit-limit") == ["5"]
        assert refused.headers.get_all("x-ratelimit-scope") == ["user"]
        assert 700 <= int(refused.headers["retry-after"]) <= 720
        assert "1.1 asgi_ratelimit" in refused.headers["via"]
        process.terminate()
    assert events.read_text().splitlines() == ["store started", "app started", "app stopped", "store closed"]


@pytest.mark.parametrize("server", COMMANDS)
def test_an_app_is_not_served_without_its_own_start_if_the_store_does_not_start(server: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    environment = {"EVENTS": str(events), "FAILS": "start"}
    with served(COMMANDS[server], tmp_path / "log", environment=environment) as process:
        wait_until(lambda: "no credentials today" in process.output, f"{server} logs the reason", seconds=SECONDS)
        wait_until(lambda: process.has_ended or process.answers, f"{server} ends", seconds=SECONDS)
        assert not process.answers
    assert events.read_text().splitlines() == ["store closed"]


@pytest.mark.parametrize("server", COMMANDS)
def test_a_store_that_cannot_be_closed_does_not_disturb_the_end_of_the_app(server: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    environment = {"EVENTS": str(events), "FAILS": "aclose"}
    with served(COMMANDS[server], tmp_path / "log", environment=environment) as process:
        wait_for(process)
        assert process.get()[0].status == 200
        process.terminate()
    assert events.read_text().splitlines() == ["store started", "app started", "app stopped", "store closed"]
    assert "no good-bye today" in process.output
    assert "shutdown failed" not in process.output
