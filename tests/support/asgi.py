"""The smallest ASGI server: one scope in, the messages of its answer out, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT = ("203.0.113.7", 50_000)
DENIAL: dict[str, Any] = {
    "extensions": {"websocket.http.response": {}}
}  # a server that can refuse a handshake with a response

Pairs = Iterable[tuple[str, str]]


def http(
    path: str = "/", *, method: str = "GET", client: object = CLIENT, headers: Pairs = (), **more: Any
) -> dict[str, Any]:
    """The scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": client,
        "server": ("example.org", 80),
        **more,
    }


def websocket(path: str = "/ws", **more: Any) -> dict[str, Any]:
    """The scope of a WebSocket's handshake."""
    scope = http(path, **more)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


class Answer:
    """What came back."""

    def __init__(self, sent: Sequence[Message]) -> None:
        self.sent = list(sent)
        starts = [message for message in sent if message["type"].endswith("http.response.start")]
        assert len(starts) <= 1, f"the response was started {len(starts)} times"
        self.status = int(starts[0]["status"]) if starts else 0
        opened = starts or [message for message in sent if message["type"] == "websocket.accept"]
        raw = opened[0].get("headers", ()) if opened else ()
        self.headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
        self.chunks = [message.get("body", b"") for message in sent if message["type"].endswith("http.response.body")]

    def __getitem__(self, name: str) -> str:
        """The value of a header that must be there exactly once."""
        values: list[str] = [value for present, value in self.headers if present == name]
        assert len(values) == 1, f"{name} has {len(values)} values in {self.headers}"
        return values[0]

    def __contains__(self, name: str) -> bool:
        return any(present == name for present, _ in self.headers)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def about_limits(self) -> set[str]:
        """The names of the headers that speak of limits."""
        return {name for name, _ in self.headers if name.startswith(("x-ratelimit", "ratelimit", "retry-after"))}


class Exchange:
    """A request or a WebSocket in flight: feed it what its client sends, read what the app has sent."""

    def __init__(self, app: ASGIApp, scope: Scope, *incoming: Message) -> None:
        self.sent: list[Message] = []
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.feed(*incoming)
        self.task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._incoming.get, self._send)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.feed(GONE)  # as every server does once the response has ended; Quart 0.23 waits for it

    def feed(self, *messages: Message) -> None:
        for message in messages:
            self._incoming.put_nowait(message)

    @property
    def unread(self) -> int:
        """How many of the client's messages nobody has read."""
        return self._incoming.qsize()

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]

    async def settled(self) -> Self:
        """Return when nothing moves any more."""
        await settle()
        return self

    async def answer(self) -> Answer:
        """Return when the app has; whatever it raises is raised here."""
        async with asyncio.timeout(10):
            await self.task
        return Answer(self.sent)


async def settle() -> None:
    """Let every task run until it waits for something that only the test can do."""
    for _ in range(60):
        await asyncio.sleep(0)


def body(*chunks: bytes) -> list[Message]:
    """A request's body as the messages in which it arrives."""
    last = len(chunks) - 1
    return [{"type": "http.request", "body": chunk, "more_body": i < last} for i, chunk in enumerate(chunks)]


def frame(text: str) -> Message:
    return {"type": "websocket.receive", "text": text}


CONNECT: Message = {"type": "websocket.connect"}
GONE: Message = {"type": "http.disconnect"}
LEFT: Message = {"type": "websocket.disconnect", "code": 1001}


async def ask(app: ASGIApp, path: str = "/", **more: Any) -> Answer:
    """One request and its whole answer."""
    return await Exchange(app, http(path, **more), *body(b"")).answer()


async def statuses(app: ASGIApp, times: int, path: str = "/", **more: Any) -> list[int]:
    """The statuses of the same request sent several times."""
    return [(await ask(app, path, **more)).status for _ in range(times)]


async def handshake(app: ASGIApp, path: str = "/ws", **more: Any) -> Answer:
    """The answer to a WebSocket's handshake; the client leaves right after."""
    return await Exchange(app, websocket(path, **more), CONNECT, LEFT).answer()


async def respond(send: Send, status: int = 200, *chunks: bytes, headers: Pairs = ()) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that greets requests and echoes the frames of WebSockets."""
    if scope["type"] == "http":
        await respond(send, 200, b"hello")
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
