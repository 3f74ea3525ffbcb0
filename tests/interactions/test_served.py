"""Over a real socket: uvicorn serves a bot's endpoint, and Discord's validation of its URL is played through."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from asgi_ratelimit import RateLimitMiddleware
from asgi_ratelimit.interactions import body
from asgi_ratelimit.interactions.endpoint import InteractionLimit
from tests.inbound.test_served import PATIENCE, served
from tests.interactions.endpoints import REACHED, around_a_route, as_dependency
from tests.support.signing import PING, PONG, PUBLIC_KEY, URL, command, encoded, signature_of

FORGED = (("X-Signature-Ed25519", "ab" * 64), ("X-Signature-Timestamp", "1700000000"))  # well-formed


@pytest.fixture(scope="module", params=[as_dependency, around_a_route], ids=lambda build: build.__name__)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    limit = InteractionLimit(PUBLIC_KEY, "2/hour")
    with served(RateLimitMiddleware(request.param(limit), limit="9/hour", name="outer")) as port:
        yield port


def posted(port: int, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST", URL, body, {"Content-Type": "application/json", **headers})
        with connection.getresponse() as response:
            return response.status, json.loads(response.read())


def post(port: int, interaction: object, *, late: float = 0.0, signed_as: bytes | None = None) -> tuple[int, Any]:
    body = encoded(interaction)
    return posted(port, body, signature_of(signed_as or body, int(time.time() - late)))


def test_discords_validation_of_the_url_passes(port: int) -> None:
    assert post(port, PING) == (200, PONG)
    assert post(port, PING, signed_as=b"another body")[0] == 401
    assert posted(port, encoded(PING), {})[0] == 401
    assert post(port, PING, late=3600)[0] == 401
    assert [post(port, PING) for _ in range(10)] == [(200, PONG)] * 10


def test_a_limited_user_reads_a_countdown(port: int) -> None:
    answers = [post(port, command("5")) for _ in range(3)]
    assert answers[:2] == [(200, REACHED)] * 2
    status, said = answers[2]
    assert (status, said["type"], said["data"]["flags"]) == (200, 4, 64)
    until = int(said["data"]["content"].split("<t:")[1].split(":R>")[0])
    assert time.time() < until <= time.time() + 1801


def test_a_replay_is_401(port: int) -> None:
    body = encoded(command("6"))
    headers = signature_of(body, int(time.time()))
    assert [posted(port, body, headers)[0] for _ in range(3)] == [200, 401, 401]


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_413_before_it_has_all_been_sent(port: int, announced: bool) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.putrequest("POST", URL)
        for name, value in FORGED:
            connection.putheader(name, value)
        connection.putheader(*(("Content-Length", str(10**9)) if announced else ("Transfer-Encoding", "chunked")))
        connection.endheaders()
        if not announced:
            connection.send((b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 2)
        with connection.getresponse() as response:
            assert response.status == 413


def opened(port: int, headers: Iterable[tuple[str, str]]) -> socket.socket:
    """A connection whose request has begun: its headers, and a part of its body."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(f"POST {URL} HTTP/1.1\r\nHost: bot\r\nContent-Length: 999\r\n{lines}\r\n{{".encode())
    return connection


def answer_until_closed(connection: socket.socket) -> bytes:
    with closing(connection):
        return b"".join(iter(lambda: connection.recv(65536), b"")).splitlines()[0]


@pytest.mark.parametrize("headers", [(), FORGED], ids=["unsigned", "forged"])
def test_unfinished_bodies_do_not_pile_up(headers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MOST_SECONDS", 0.3)
    limit = InteractionLimit(PUBLIC_KEY, "2/hour", failures=None)
    with served(around_a_route(limit)) as port:
        connections = [opened(port, headers) for _ in range(150)]
        answers = {answer_until_closed(connection) for connection in connections}
    assert answers == {b"HTTP/1.1 408 Request Timeout" if headers else b"HTTP/1.1 401 Unauthorized"}


def test_interactions_in_many_threads_are_counted_exactly() -> None:
    app = FastAPI()

    @app.post(URL, dependencies=[Depends(InteractionLimit(PUBLIC_KEY, "5/hour"))])
    def interactions() -> Any:
        return REACHED

    answers: list[tuple[int, Any]] = []
    with served(app) as port:
        threads = [threading.Thread(target=lambda: answers.append(post(port, command("1")))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(answers) == 20
    assert sum(answer == (200, REACHED) for answer in answers) == 5
