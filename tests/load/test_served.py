"""Real servers under more load than their app can bear. Nothing here depends on time: only on who is served."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.support.asgi_servers import ServerProcess, served, wait_for

APP = "tests.load.served:app"
COMMANDS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}
CLIENTS, EACH = 80, 4  # requests


@pytest.mark.parametrize("server", COMMANDS)
def test_overload_leads_to_503s_and_health_checks_are_answered(server: str, tmp_path: Path) -> None:
    with served(COMMANDS[server], tmp_path / "log") as process, ThreadPoolExecutor(CLIENTS + 1) as pool:
        wait_for(process)
        is_over = Event()
        health = pool.submit(_check_health, process, is_over)
        answers: list[tuple[int, str, bytes]] = []
        for _ in range(20):  # a busy machine may be too slow to send more than the app can serve
            answers += [answer for client in pool.map(lambda _: _ask(process), range(CLIENTS)) for answer in client]
            if any(answer[0] == 503 for answer in answers):
                break
        is_over.set()
        assert Counter(answer[0] for answer in answers).keys() == {200, 503}
        for status, retry_after, body in answers:
            if status == 503:
                assert 1 <= int(retry_after) <= 5
                assert json.loads(body) == {
                    "message": "The server is overloaded.",
                    "retry_after": float(retry_after),
                }
            else:
                assert body == b"done"
        assert set(health.result()) == {200}
        response, body = process.get("/stream", {"x-class": "0"})
        assert (response.status, body) == (200, b"abc")
    assert "Traceback" not in process.output


def _ask(process: ServerProcess) -> list[tuple[int, str, bytes]]:
    answers = []
    for _ in range(EACH):
        response, body = process.get("/", {"x-class": "3"})
        answers.append((response.status, response.headers.get("retry-after", ""), body))
    return answers


def _check_health(process: ServerProcess, is_over: Event) -> list[int]:
    statuses = [process.get("/health")[0].status]
    while not is_over.is_set():
        statuses.append(process.get("/health")[0].status)
    return statuses
