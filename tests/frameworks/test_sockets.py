"""Litestar, Quart, Django and BlackSheep behind the middleware, on real servers and sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.frameworks.streams import FIRST, LAST
from tests.support.asgi_servers import SECONDS, ServerProcess, served, wait_for

APP = "tests.frameworks.sockets_app:app"
SERVERS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "gunicorn": ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}
FRAMEWORKS = ("blacksheep", "django", "litestar", "quart")

Running = dict[str, ServerProcess]


def of(number: int) -> dict[str, str]:
    """The headers that a proxy adds for one of its clients. Each has a bucket."""
    return {"x-forwarded-for": f"198.51.100.{number}"}


@pytest.fixture(scope="module", params=SERVERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for each framework."""
    place = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack, ThreadPoolExecutor(len(FRAMEWORKS)) as threads:
        processes = {
            name: stack.enter_context(served(SERVERS[request.param], place / name, environment={"FRAMEWORK": name}))
            for name in FRAMEWORKS
        }
        list(threads.map(wait_for, processes.values()))
        yield processes


@pytest.fixture(params=FRAMEWORKS)
def server(request: pytest.FixtureRequest, running: Running) -> ServerProcess:
    return running[request.param]


def test_a_limit_holds_for_each_client_of_a_proxy_and_its_refusal_is_discords(server: ServerProcess) -> None:
    for left in "43210":
        response, body = server.get(headers=of(1))
        assert (response.status, body, response.headers["x-ratelimit-remaining"]) == (200, b"hello", left)
    refused, body = server.get(headers=of(1))
    assert refused.status == 429
    assert json.loads(body).keys() == {"message", "retry_after", "global"}
    assert refused.headers.get_all("content-type") == ["application/json"]
    assert refused.headers.get_all("x-ratelimit-remaining") == ["0"]
    assert refused.headers.get_all("x-ratelimit-scope") == ["user"]
    assert 700 <= int(refused.headers["retry-after"]) <= 720
    assert "1.1 asgi_ratelimit" in refused.headers["via"]
    assert server.get(headers=of(2))[0].status == 200


def test_all_routes_share_one_bucket_and_a_body_arrives(server: ServerProcess) -> None:
    remaining = []
    for path, method in (("/", "GET"), ("/echo", "POST"), ("/missing", "GET")):
        sent = b"abc" * 10_000 if method == "POST" else None
        response, body = server.request(method, path, headers={**of(3), "content-type": "text/plain"}, body=sent)
        remaining.append(response.headers["x-ratelimit-remaining"])
        assert sent is None or body == sent
    assert remaining == ["4", "3", "2"]


def test_a_stream_is_sent_as_it_is_made(server: ServerProcess) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.request("GET", "/stream", headers=of(4))
    response = connection.getresponse()
    assert response.read(len(FIRST)) == FIRST
    server.get("/release", headers=of(5))
    assert response.read() == LAST
    assert response.headers["x-ratelimit-remaining"] == "4"
    connection.close()


def test_a_websocket_is_counted_and_refused_before_it_opens(running: Running) -> None:
    for server in (process for name, process in running.items() if name != "django"):  # it has none
        address = f"ws://127.0.0.1:{server.port}/ws"
        with connect(address, additional_headers=of(6), proxy=None) as socket:
            socket.send("hello")
            assert socket.recv(timeout=SECONDS) == "hello"
        left = [server.get(headers=of(6))[0].headers["x-ratelimit-remaining"] for _ in range(4)]
        assert left == ["3", "2", "1", "0"]
        with pytest.raises(InvalidStatus) as refused:
            connect(address, additional_headers=of(6), proxy=None)
        assert refused.value.response.status_code in (403, 429)


@pytest.mark.parametrize("name", ["granian", "uvicorn"])
def test_the_middleware_that_litestar_builds_for_each_route_shares_one_bucket(name: str, tmp_path: Path) -> None:
    environment = {"FRAMEWORK": "litestar's own middleware"}
    with served(SERVERS[name], tmp_path / "log", environment=environment) as server:
        wait_for(server)
        paths = [("/", "GET"), ("/echo", "POST"), ("/release", "GET")] * 2
        statuses = [server.request(method, path, headers=of(1))[0].status for path, method in paths]
    assert statuses == [200] * 5 + [429]
