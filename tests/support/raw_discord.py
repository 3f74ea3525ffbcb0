"""A server over a raw socket: each request is carried out before it is answered, as Discord does it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

VIA = "Via: 1.1 google\r\n"


@dataclass(frozen=True, slots=True)
class Received:
    """A request that has arrived, and so has been carried out."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `sent`: so many bytes of its body, then the connection is lost; None: all of them."""

    status: int = 200
    body: bytes = b'{"id": "1"}'
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost instead of an answer."""


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer comes."""


Outcome = Answer | Lost | Silence
Script = Callable[[Received], Outcome] | Callable[[Received], Awaitable[Outcome]]


class RawDiscord:
    """Serves on loopback, and remembers what has arrived."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.received: list[Received] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                request = await _read(reader)
                self.received.append(request)
                reply = self._script(request)
                answer = reply if isinstance(reply, Outcome) else await reply
                if isinstance(answer, Silence):
                    await reader.read()
                if not isinstance(answer, Answer):
                    break
                body = answer.body if answer.sent is None else answer.body[: answer.sent]
                writer.write(_head(answer) + body)
                await writer.drain()
                if answer.sent is not None:
                    break
        writer.close()


@asynccontextmanager
async def raw_discord(script: Script) -> AsyncIterator[RawDiscord]:
    discord = RawDiscord(script)
    server = await asyncio.start_server(discord.serve, "127.0.0.1", 0)
    discord.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v10"
    try:
        yield discord
    finally:
        server.close()


async def _read(reader: asyncio.StreamReader) -> Received:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    return Received(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def _head(answer: Answer) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    length = f"Content-Type: application/json\r\nContent-Length: {len(answer.body)}\r\n"
    return f"HTTP/1.1 {answer.status} X\r\n{VIA}{more}{length if answer.status != 204 else ''}\r\n".encode()
