"""Other servers than uvicorn, as processes of their own: the refusal reaches a client, and the lifespan is kept."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.support.servers.server import free_port, wait_until

ROOT = Path(__file__).parents[2]
APP = "tests.frameworks.served:app"
SECONDS = 30.0
COMMANDS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "gunicorn": ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:{port}", APP),
    "gunicorn with uvicorn": ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}


@contextmanager
def served(command: tuple[str, ...], events: Path) -> Iterator[int]:
    """The port on which the server answers; it is ended as an operator would end it."""
    port = free_port()
    arguments = [part.format(port=port) for part in command]
    environment = {**os.environ, "EVENTS": str(events), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, f"{command[0]} listens", seconds=SECONDS)
        assert process.poll() is None, process.communicate()[0].decode()
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def get(port: int) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response, response.read()


@pytest.mark.parametrize("server", COMMANDS)
def test_the_refusal_reaches_a_client_and_the_lifespan_runs(server: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with served(COMMANDS[server], events) as port:
        for left in "43210":
            response, body = get(port)
            assert (response.status, json.loads(body)) == (200, ["store started", "app started"])
            assert response.headers["x-ratelimit-remaining"] == left
        refused, body = get(port)
        assert refused.status == 429
        assert json.loads(body)["message"] == "You are being rate limited."
        assert refused.headers.get_all("content-type") == ["application/json"]
        assert refused.headers.get_all("x-ratelimit-limit") == ["5"]
        assert refused.headers.get_all("x-ratelimit-scope") == ["user"]
        assert 700 <= int(refused.headers["retry-after"]) <= 720
        assert "1.1 asgi_ratelimit" in refused.headers["via"]
    assert events.read_text().splitlines() == ["store started", "app started", "app stopped", "store closed"]
