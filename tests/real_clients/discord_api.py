"""The few routes of Discord's API that the bots need, limited in one place, and a record of the requests."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Literal

import uvicorn
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit import RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.limits import Scope as BucketScope
from tests.support.loop_lag import measure_loop_lag

PREFIX = "/api/v10"
CAPACITY = PER_SECOND = 5

Door = Literal["middleware", "dependency"]


def limited_api(door: Door, scope: BucketScope) -> FastAPI:
    """Discord's routes behind a limit of 5 per second: on the whole app, or on the one route of users."""
    app = FastAPI()
    limit = TokenBucket(f"{PER_SECOND}/s", scope=scope)
    if door == "middleware":
        app.add_middleware(RateLimitMiddleware, limit=limit)

    @app.get(f"{PREFIX}/users/@me")
    async def the_bot() -> dict[str, Any]:
        return {**_user(1), "verified": True, "mfa_enabled": True, "locale": "en-US", "flags": 0, "bot": True}

    @app.get(f"{PREFIX}/oauth2/applications/@me")
    async def its_application() -> dict[str, Any]:
        application = {
            "id": "1",
            "name": "bot",
            "description": "",
            "summary": "",
            "icon": None,
            "verify_key": "",
            "owner": _user(2),
        }
        return {**application, "bot_public": True, "bot_require_code_grant": False}

    @app.get(f"{PREFIX}/users/{{user_id}}", dependencies=[Depends(RateLimit(limit))] if door == "dependency" else [])
    async def anybody(user_id: int) -> dict[str, Any]:
        return _user(user_id)

    return app


def _user(user_id: int) -> dict[str, Any]:
    return {"id": str(user_id), "username": f"user {user_id}", "discriminator": "0", "avatar": None}


@dataclass(slots=True)
class Exchange:
    """One request as the server saw it; its moments are seconds of time.monotonic."""

    path: str
    started: float
    answered: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def user(self) -> str:
        """The last part of the path: the number of a user, or "@me" while a bot logs in."""
        return self.path.rpartition("/")[2]

    @property
    def refused(self) -> bool:
        return self.status == 429

    @property
    def refusal(self) -> Any:
        """The body of a 429."""
        return json.loads(self.body)


class Recorded:
    """An app, and every exchange that it has had."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope["path"], time.monotonic())
        self.exchanges.append(exchange)

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.headers = {name.decode("ascii"): value.decode("ascii") for name, value in message["headers"]}
            exchange.body += message.get("body", b"")
            exchange.answered = time.monotonic()
            await send(message)

        await self._app(scope, receive, note)


class Drained:
    """An app whose bucket another client empties just before the first request for a user gets there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._full = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._full and scope["path"].rpartition("/")[2].isdecimal():
            self._full = False
            while not await self._refuses(dict(scope)):
                pass
        await self._app(scope, receive, send)

    async def _refuses(self, scope: Scope) -> bool:
        other = Recorded(self._app)
        await other(scope, _nothing, _nowhere)
        return other.exchanges[0].refused


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(message: Message) -> None:
    pass


class ByToken:
    """Many apps at one address: the bot's token says which one it is talking to."""

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization = dict(scope["headers"])[b"authorization"].decode("ascii")
        await self._apps[authorization.removeprefix("Bot ")](scope, receive, send)


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve the app by uvicorn on a free port of the loopback: the address, for as long as the block runs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)  # from here on the kernel keeps connections until uvicorn takes them
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False))
        thread = Thread(target=asyncio.run, args=(_serve(server, listening),))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    async with measure_loop_lag():
        await server.serve([listening])
