"""The app that other servers serve: it answers with the events of its own life, and writes them down at its end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ratelimit import RateLimitMiddleware
from asgi_ratelimit.clock import SystemClock
from tests.frameworks.event_store import EventStore

events: list[str] = []


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    events.append("app started")
    yield
    events.append("app stopped")


class WritingStore(EventStore):
    """Closed last, so it writes everything down. One of its verbs fails if the environment says so."""

    async def start(self) -> None:
        if os.environ.get("FAILS") == "start":
            raise RuntimeError("no credentials today")
        await super().start()

    async def aclose(self) -> None:
        await super().aclose()
        Path(os.environ["EVENTS"]).write_text("\n".join(events))  # noqa: ASYNC240 - nothing else runs any more
        if os.environ.get("FAILS") == "aclose":
            raise RuntimeError("no good-bye today")


async def show(request: Request) -> JSONResponse:
    return JSONResponse(events)


limited = Middleware(RateLimitMiddleware, limit="5/hour", store=WritingStore(SystemClock(), events))
app = Starlette(routes=[Route("/", show)], lifespan=lifespan, middleware=[limited])
