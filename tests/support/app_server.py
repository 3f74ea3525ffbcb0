"""An app server with a store in Redis: an app served by uvicorn, its clients, and its log."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Self

import uvicorn
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit import Limiter, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.inbound.request_state import STATE, RequestState
from asgi_ratelimit.redis import RedisStore, StoreEvent
from tests.support.servers import wait_until

PATIENCE = 10.0  # seconds after which something that must happen has not
WHOLE_APP, OWN = "80/day", "40/day"  # of the whole app, and of one of its routes
LOGGERS = ("asgi_ratelimit", "uvicorn.error", "asyncio")

ClientRequest = tuple[str, str]  # a path and a user


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a client. `reasons`: of each decision about its request."""

    path: str
    status: int
    headers: dict[str, str]
    sent_at: float
    seconds: float

    @property
    def reasons(self) -> set[str]:
        return set(filter(None, self.headers["reasons"].split(",")))


def statuses(answers: Iterable[Answer], path: str) -> Counter[int]:
    """How often a path was answered with each status."""
    return Counter(answer.status for answer in answers if answer.path == path)


def reasons(answers: Iterable[Answer]) -> set[str]:
    return {reason for answer in answers for reason in answer.reasons}


class AppServer:
    """An app with a limit on all of it and one on the route /own, served for as long as the block runs."""

    def __init__(self, url: str, *, limit: Any = WHOLE_APP, own: Any = OWN, **options: Any) -> None:
        self.events: list[StoreEvent] = []
        self.store = RedisStore(url, on_event=self.events.append, **options)
        self._app = _app(self.store, limit, own)
        self._log = _Log()
        self._runner = asyncio.Runner()

    @property
    def logged(self) -> list[str]:
        """The messages that the package has logged."""
        return [record.getMessage() for record in self._log.records if record.name == "asgi_ratelimit"]

    @property
    def failures(self) -> list[str]:
        """The messages that the server has logged."""
        return [record.getMessage() for record in self._log.records if record.name != "asgi_ratelimit"]

    def request(self, *requests: ClientRequest, meanwhile: Callable[[], object] | None = None) -> list[Answer]:
        """All of them at once, each over a connection of its own that stays open."""
        return self._runner.run(self._request_all(requests, meanwhile))

    def request_throughout(self, clients: int, meanwhile: Callable[[], object]) -> list[Answer]:
        """Each of the clients sends two requests a second until `meanwhile` returns."""
        return self._runner.run(self._request_repeatedly(clients, meanwhile))

    def wait_until_shared(self, path: str = "/", user: str = "recovery") -> None:
        """Return when Redis decides."""
        wait_until(lambda: self.request((path, user))[0].reasons in ({"ok"}, {"limited"}), "Redis decides again")

    def left(self, url: str, *users: str) -> list[int]:
        """The rest of each user's limit, as another process reads it from the server at this address."""
        return self._runner.run(_peek(url, users))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._log)
            stack.enter_context(self._runner)
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
            self._port = listening.getsockname()[1]
            stack.callback(self._serve(listening))
            self._session = self._runner.run(_new_session())
            stack.callback(lambda: self._runner.run(self._session.close()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _serve(self, listening: socket.socket) -> Callable[[], None]:
        """Start the server. Returns the function that ends it."""
        config = uvicorn.Config(self._app, lifespan="on", ws="none", log_config=None, log_level="warning")
        server = uvicorn.Server(config)
        thread = Thread(target=_run, args=(server, listening))
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "uvicorn does not end"

        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn has started")
        if not thread.is_alive():
            raise RuntimeError("; ".join(self.failures))
        return end

    async def _request_all(
        self, requests: Iterable[ClientRequest], meanwhile: Callable[[], object] | None
    ) -> list[Answer]:
        other = asyncio.create_task(asyncio.to_thread(meanwhile)) if meanwhile else None
        answers = await asyncio.gather(*(self._request(request) for request in requests))
        if other is not None:
            await other
        return answers

    async def _request_repeatedly(self, clients: int, meanwhile: Callable[[], object]) -> list[Answer]:
        answers: list[Answer] = []
        is_over = Event()

        async def request(number: int) -> None:
            await asyncio.sleep(number / clients / 2)
            while not is_over.is_set():
                answers.append(await self._request(("/", f"client {number}")))
                await asyncio.sleep(0.5)

        tasks = [asyncio.create_task(request(number)) for number in range(clients)]
        try:
            await asyncio.to_thread(meanwhile)
        finally:
            is_over.set()
            await asyncio.gather(*tasks)
        return answers

    async def _request(self, request: ClientRequest) -> Answer:
        path, user = request
        sent_at = time.monotonic()
        async with self._session.get(f"http://127.0.0.1:{self._port}{path}", headers={"user": user}) as response:
            await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(path, response.status, headers, sent_at, time.monotonic() - sent_at)


def _app(store: RedisStore, limit: Any, own: Any) -> ASGIApp:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=limit, key=_user, store=store)

    @app.get("/")
    async def everybody() -> str:
        return "come in"

    @app.get("/own", dependencies=[Depends(RateLimit(own, key=_user))])
    async def own_limit() -> str:
        return "come in"

    return _telling_reasons(app)


def _user(conn: HTTPConnection) -> str:
    return conn.headers["user"]


def _telling_reasons(app: ASGIApp) -> ASGIApp:
    """An app that says in a header why its limits decided as they did."""

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        async def write(message: Message) -> None:
            if message["type"] == "http.response.start":
                state: RequestState = scope[STATE]
                said = ",".join(decision.reason for decision in state.decisions).encode("ascii")
                message = {**message, "headers": [*message.get("headers", ()), (b"reasons", said)]}
            await send(message)

        await app(scope, receive, write)

    return tell


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    try:
        server.run([listening])
    except SystemExit:  # the cause is in the log
        return


async def _new_session() -> ClientSession:
    return ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(PATIENCE))


async def _peek(url: str, users: Iterable[str]) -> list[int]:
    async with RedisStore(url, timeout=PATIENCE, outage="closed") as store:
        limiter = Limiter(WHOLE_APP, store=store, name="app")
        return [(await limiter.peek(user)).remaining for user in users]


class _Log(logging.Handler):
    """The log while a block runs, independent of the loggers' settings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Self:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
