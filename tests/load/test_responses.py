"""The 503, and the body of the request that gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message

from asgi_ratelimit.load.responses import send_overloaded
from tests.support.virtual_loop import VirtualLoop

MIB = 1 << 20


class Client:
    """Sends these messages, and then nothing more. It notes what it got after how many of them."""

    def __init__(self, *messages: Message) -> None:
        self._messages: Iterator[Message] = iter(messages)
        self.read = 0
        self.got: list[tuple[int, Message]] = []

    async def receive(self) -> Message:
        message = next(self._messages, None)
        if message is None:
            await asyncio.Event().wait()
        self.read += 1
        return message or {}

    async def send(self, message: Message) -> None:
        self.got.append((self.read, message))

    @property
    def bodies(self) -> list[tuple[int, int, bool]]:
        return [(read, len(one["body"]), one["more_body"]) for read, one in self.got[1:]]


def part(size: int, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def answered(client: Client, method: str = "POST", *, headers: Any = (), version: str = "1.1") -> float:
    """The seconds until the answer is complete."""
    loop = VirtualLoop()
    scope = {"type": "http", "method": method, "headers": list(headers), "http_version": version}
    loop.run(send_overloaded(scope, client.receive, client.send, 2))
    return loop.clock.wall() - loop.started


def test_the_body_is_read_after_the_answer() -> None:
    client = Client(part(MIB // 2), part(MIB // 2, more=False), part(1))
    answered(client)
    assert client.bodies == [(0, 60, True), (2, 0, False)]
    status, headers = client.got[0][1]["status"], dict(client.got[0][1]["headers"])
    assert (status, headers[b"retry-after"]) == (503, b"2")
    assert b"content-length" not in headers  # with it, a server would end the answer and the connection


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_there_is_none_to_read(method: str) -> None:
    client = Client(part(0, more=False))
    answered(client, method)
    assert client.bodies == [(0, 60, False)]


def test_not_more_is_read_than_costs_little() -> None:
    client = Client(*[part(MIB) for _ in range(9)])
    answered(client)
    assert client.bodies[-1] == (2, 0, False)


def test_a_client_that_leaves_is_not_waited_for() -> None:
    client = Client(part(1), {"type": "http.disconnect"})
    assert answered(client) == 0.0


def test_a_slow_client_is_not_waited_for_very_long() -> None:
    client = Client(part(1))
    assert answered(client) == pytest.approx(2.0, abs=0.01)
    assert client.bodies[-1] == (1, 0, False)


@pytest.mark.parametrize(("version", "closes"), [("1.1", True), ("2", False)])
def test_a_client_that_waits_for_a_word_before_its_body(version: str, closes: bool) -> None:
    client = Client(part(0, more=False))
    answered(client, headers=[(b"host", b"app"), (b"expect", b"100-continue")], version=version)
    assert ((b"connection", b"close") in client.got[0][1]["headers"]) is closes
    assert client.bodies[0] == (0, 60, not closes)
