"""Shedding load, and a limit that depends on it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.load import LoadShedMiddleware, PriorityFunction, server_load


def by_path(conn: HTTPConnection) -> int:
    return 0 if conn.url.path.startswith("/checkout") else 2


async def by_request(request: Request) -> int:
    return 1 if request.method == "POST" else 3


def limit(conn: HTTPConnection) -> str:
    return "50/s" if server_load() > 0.8 else "100/s"


priorities: list[PriorityFunction] = [by_path, by_request]
store = MemoryStore()
app = Starlette(
    middleware=[
        Middleware(LoadShedMiddleware, priority=by_path, exempt=("/metrics",), store=store, name="shop"),
        Middleware(RateLimitMiddleware, limit=limit, store=store),
    ]
)
app.add_middleware(LoadShedMiddleware)
app.add_middleware(LoadShedMiddleware, priority=by_request, observers=[print], exempt=lambda conn: conn.user is None)
