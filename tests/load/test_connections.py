"""Real servers in front of an app that sheds all that may be shed: connections go on, and no place is lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from itertools import cycle
from typing import BinaryIO

import pytest
from websockets.sync.client import connect

from tests.support.asgi_servers import ServerProcess, served, wait_for
from tests.support.servers.server import wait_until

APP = "tests.load.full_app:app"
COMMANDS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}
ROUNDS = 300  # of clients that leave
SHED = {"x-class": "3"}
IMPORTANT = {"x-class": "0"}


@pytest.fixture(scope="module", params=COMMANDS)
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(COMMANDS[request.param], tmp_path_factory.mktemp("load") / "log") as process:
        wait_for(process)
        yield process
        assert "Traceback" not in process.output, process.output[-3000:]


def raw(method: str, path: str, one: int, body: bytes = b"", more: str = "") -> bytes:
    length = f"content-length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nhost: app\r\nx-class: {one}\r\n{more}{length}\r\n".encode() + body


def answer(file: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    status = int(file.readline().split()[1])
    headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(file.readline, b"\r\n"))
    if headers.get("transfer-encoding") == "chunked":
        return status, headers, b"".join(chunks(file))
    return status, headers, file.read(int(headers.get("content-length", "0")))


def chunks(file: BinaryIO) -> Iterator[bytes]:
    while size := int(file.readline() or b"0", 16):
        yield file.read(size)
        file.readline()
    file.readline()


def test_a_body_that_is_being_sent_does_not_hide_the_503(process: ServerProcess) -> None:
    with closing(HTTPConnection("127.0.0.1", process.port, timeout=10)) as connection:
        connection.connect()
        connection.auto_open = 0  # it would hide that the server has closed the connection
        for _ in range(5):
            connection.request("POST", "/size", body=bytes(1 << 20), headers=SHED)
            response = connection.getresponse()
            retry_after = json.loads(response.read())["retry_after"]
            assert (response.status, float(response.headers["retry-after"])) == (503, retry_after)
            assert 1 <= retry_after <= 5
            connection.request("POST", "/size", body=bytes(1 << 20), headers=IMPORTANT)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"1048576")


def test_a_client_that_waits_for_a_word_before_its_body_gets_the_503(process: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client, client.makefile("rb") as file:
        client.sendall(raw("POST", "/size", 3, more="expect: 100-continue\r\ncontent-length: 1048576\r\n"))
        status, headers, _ = answer(file)
        if status == 100:  # hypercorn says so before the app is called
            status, headers, _ = answer(file)
        assert (status, headers["connection"]) == (503, "close")
        assert not file.read(1)


def test_requests_that_do_not_wait_for_each_other_are_answered_in_order(process: ServerProcess) -> None:
    asked = [("GET", "/", 0), ("GET", "/", 3), ("GET", "/health", 3), ("POST", "/size", 3), ("POST", "/size", 0)]
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client, client.makefile("rb") as file:
        client.sendall(b"".join(raw(*one, b"abc" if one[0] == "POST" else b"") for one in 10 * asked))
        answers = [answer(file) for _ in 10 * asked]
    assert [status for status, _, _ in answers] == 10 * [200, 503, 200, 503, 200]
    assert answers[-1][2] == b"3"


def test_health_checks_and_exempt_paths_pass(process: ServerProcess) -> None:
    with closing(HTTPConnection("127.0.0.1", process.port, timeout=10)) as connection:
        for path in 50 * ["/health", "/internal/report"]:
            connection.request("GET", path, headers=SHED)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"hello")


def test_websockets_are_not_shed(process: ServerProcess) -> None:
    with connect(f"ws://127.0.0.1:{process.port}/echo", additional_headers=SHED, proxy=None) as client:
        client.send("word")
        assert client.recv() == "word"


def test_clients_that_leave_give_their_places_back(process: ServerProcess) -> None:
    paths = cycle([("GET", "/sleep", 0), ("GET", "/wait", 0), ("GET", "/events", 0), ("POST", "/size", 3)])
    for _ in range(ROUNDS // 20):
        clients = [socket.create_connection(("127.0.0.1", process.port), timeout=10) for _ in range(20)]
        for client, one in zip(clients, paths, strict=False):
            client.sendall(raw(*one, more="content-length: 9\r\n" if one[0] == "POST" else ""))
        for client in clients:
            client.close()
    wait_until(lambda: _in_flight(process) == 0, "no request is in flight", seconds=10)


def test_streams_are_not_in_flight_once_they_have_begun(process: ServerProcess) -> None:
    clients = [HTTPConnection("127.0.0.1", process.port, timeout=10) for _ in range(20)]
    for client in clients:
        client.request("GET", "/events", headers=IMPORTANT)
    streams = [client.getresponse() for client in clients]
    assert {stream.readline() for stream in streams} == {b"data: tick\n"}
    assert _in_flight(process) == 0
    for client in clients:
        client.close()


def _in_flight(process: ServerProcess) -> int:
    return int(process.get("/in-flight", IMPORTANT)[1])
