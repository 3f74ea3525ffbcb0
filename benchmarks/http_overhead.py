"""The overhead of a limit per request. The app is called in process, as a server calls it, without sockets."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic_ns, time
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.harness import Score, Turn, compete, enter, ns_per_call

__all__ = ["BARE", "FLOOR", "OURS", "dependencies", "middlewares"]

BARE, FLOOR, OURS = "the bare app", "hand-written GCRA and five headers (the floor)", "**asgi_ratelimit**"
COUNT, PERIOD = 1_000_000, 60
CLIENTS = [f"93.184.{n >> 8}.{n & 255}" for n in range(1, 1001)]
HEADERS = [
    (b"host", b"testserver"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"DiscordBot (https://example.org, 1.0)"),
    (b"authorization", b"Bearer 0123456789abcdef"),
]


async def middlewares(rounds: int, calls: int) -> tuple[dict[str, Score], dict[str, int]]:
    """The overhead of a middleware in a Starlette app with one route."""
    return await _compare(MIDDLEWARES, rounds, calls)


async def dependencies(rounds: int, calls: int) -> tuple[dict[str, Score], dict[str, int]]:
    """The overhead of a dependency or decorator on a FastAPI route with one trivial dependency."""
    return await _compare(DEPENDENCIES, rounds, calls)


async def _compare(
    apps: dict[str, Callable[[], Awaitable[Any]]], rounds: int, calls: int
) -> tuple[dict[str, Score], dict[str, int]]:
    counted: dict[str, int] = {}

    async def build(name: str, make: Callable[[], Awaitable[Any]]) -> Turn:
        app = await make()
        counted[name] = _limit_headers(await _response_headers(app))

        async def turn() -> float:
            return await ns_per_call(_requests(app, calls), calls)

        return turn

    scores = await compete(await enter({name: partial(build, name, make) for name, make in apps.items()}), rounds)
    return scores, counted


# The server


def _scope(client: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": list(HEADERS),
        "client": (client, 50_000),
        "server": ("testserver", 80),
        "state": {},
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    pass


async def _requests(app: Any, calls: int) -> None:
    for client in itertools.islice(itertools.cycle(CLIENTS), calls):
        await app(_scope(client), _receive, _send)


async def _response_headers(app: Any) -> list[tuple[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(_scope(CLIENTS[0]), _receive, send)
    if sent[0]["status"] != 200:
        raise RuntimeError(f"it answered {sent[0]['status']}")
    return list(sent[0]["headers"])


def _limit_headers(headers: list[tuple[bytes, bytes]]) -> int:
    return sum("ratelimit" in name.decode().lower() or name.lower() == b"retry-after" for name, _ in headers)


# Starlette


def _starlette(*middleware: Middleware) -> Starlette:
    async def hello(request: Request) -> JSONResponse:
        return JSONResponse({"hello": "world"})

    return Starlette(routes=[Route("/", hello)], middleware=list(middleware))


class HandWritten:
    """The least that limits and says so: GCRA on a dict, five headers, no 429 worth the name."""

    def __init__(self) -> None:
        self.depth = PERIOD * 1_000_000
        self.interval = self.depth // COUNT
        self.full_at: dict[str, int] = {}

    def take(self, key: str) -> list[tuple[bytes, bytes]] | None:
        now = monotonic_ns() // 1000
        full_at = max(self.full_at.get(key, 0), now) + self.interval
        left = self.depth - (full_at - now)
        if left < 0:
            return None
        self.full_at[key] = full_at
        reset = (full_at - now) / 1e6
        return [
            (b"x-ratelimit-limit", b"%d" % COUNT),
            (b"x-ratelimit-remaining", b"%d" % (left // self.interval)),
            (b"x-ratelimit-reset", b"%.3f" % (time() + reset)),
            (b"x-ratelimit-reset-after", b"%.3f" % reset),
            (b"x-ratelimit-bucket", b"0123456789abcdef0123456789abcdef"),
        ]


class HandWrittenMiddleware:
    """The floor of a middleware."""

    def __init__(self, app: Any) -> None:
        self.app, self.limit = app, HandWritten()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = self.limit.take(scope["client"][0])
        if headers is None:
            await JSONResponse({}, 429)(scope, receive, send)
            return

        async def write(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self.app(scope, receive, write)


async def _bare_starlette() -> Any:
    return _starlette()


async def _hand_written_middleware() -> Any:
    return _starlette(Middleware(HandWrittenMiddleware))


async def _our_middleware() -> Any:
    from asgi_ratelimit import RateLimitMiddleware

    return _starlette(Middleware(RateLimitMiddleware, limit=f"{COUNT}/minute"))


async def _asgi_ratelimit_peer() -> Any:
    from ratelimit import RateLimitMiddleware, Rule
    from ratelimit.backends.simple import MemoryBackend

    async def by_address(scope: Any) -> tuple[str, str]:  # its own function refuses clients of a private network
        return scope["client"][0], "default"

    rules = {r"^/": [Rule(minute=COUNT)]}
    return _starlette(Middleware(RateLimitMiddleware, authenticate=by_address, backend=MemoryBackend(), config=rules))


async def _traffik_throttle(strategy: str) -> Any:
    from traffik import HTTPThrottle, strategies
    from traffik.backends.inmemory import InMemoryBackend

    backend: Any = InMemoryBackend()
    await backend.initialize()
    rule = getattr(strategies, strategy)()
    return HTTPThrottle(uid=strategy, rate=f"{COUNT}/min", strategy=rule, backend=backend)


async def _traffik_middleware(strategy: str) -> Any:
    from traffik.middleware import ThrottleMiddleware

    throttle = await _traffik_throttle(strategy)
    return _starlette(Middleware(ThrottleMiddleware, middleware_throttles=[throttle], backend=throttle.backend))


def _slowapi_limiter(**options: Any) -> Any:
    from slowapi import Limiter
    from slowapi.util import get_remote_address

    return Limiter(key_func=get_remote_address, headers_enabled=True, **options)


async def _slowapi_middleware(kind: str) -> Any:
    from slowapi import middleware

    app = _starlette(Middleware(getattr(middleware, kind)))
    app.state.limiter = _slowapi_limiter(default_limits=[f"{COUNT}/minute"])
    return app


MIDDLEWARES: dict[str, Callable[[], Awaitable[Any]]] = {
    BARE: _bare_starlette,
    FLOOR: _hand_written_middleware,
    OURS: _our_middleware,
    "asgi-ratelimit": _asgi_ratelimit_peer,
    "traffik, fixed window": partial(_traffik_middleware, "FixedWindowStrategy"),
    "traffik, token bucket": partial(_traffik_middleware, "TokenBucketStrategy"),
    "slowapi, ASGI middleware": partial(_slowapi_middleware, "SlowAPIASGIMiddleware"),
    "slowapi, BaseHTTP middleware": partial(_slowapi_middleware, "SlowAPIMiddleware"),
}


# FastAPI


def _fastapi(dependency: Callable[..., Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(dependency)])
    async def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app


async def _nothing() -> None:
    return None


async def _bare_fastapi() -> Any:
    return _fastapi(_nothing)


async def _hand_written_dependency() -> Any:
    limit = HandWritten()

    async def limited(conn: HTTPConnection, response: Response) -> None:
        headers = limit.take(conn.scope["client"][0])
        if headers is None:
            raise HTTPException(429)
        response.raw_headers.extend(headers)

    return _fastapi(limited)


async def _our_dependency() -> Any:
    from asgi_ratelimit.fastapi import RateLimit

    return _fastapi(RateLimit(f"{COUNT}/minute"))


async def _traffik_dependency(strategy: str) -> Any:
    return _fastapi(await _traffik_throttle(strategy))


async def _slowapi_decorator() -> Any:
    app, limiter = FastAPI(), _slowapi_limiter()
    app.state.limiter = limiter

    @app.get("/", dependencies=[Depends(_nothing)])
    @limiter.limit(f"{COUNT}/minute")  # type: ignore[untyped-decorator]
    async def hello(request: Request, response: Response) -> dict[str, str]:
        return {"hello": "world"}

    return app


async def _fastapi_limiter_dependency() -> Any:
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Limiter, Rate

    return _fastapi(RateLimiter(limiter=Limiter(Rate(COUNT, PERIOD * 1_000))))


DEPENDENCIES: dict[str, Callable[[], Awaitable[Any]]] = {
    BARE: _bare_fastapi,
    FLOOR: _hand_written_dependency,
    OURS: _our_dependency,
    "slowapi, decorator": _slowapi_decorator,
    "traffik, dependency, fixed window": partial(_traffik_dependency, "FixedWindowStrategy"),
    "traffik, dependency, token bucket": partial(_traffik_dependency, "TokenBucketStrategy"),
    "fastapi-limiter, dependency (one bucket for all)": _fastapi_limiter_dependency,
}
