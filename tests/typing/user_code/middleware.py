"""The middleware with every option, and the functions that its options take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from asgi_ratelimit import (
    ClientIP,
    CostSource,
    Decision,
    Escalate,
    Estimate,
    ExemptSource,
    KeyFunction,
    LimitedHandler,
    LimitSource,
    MemoryStore,
    NetworkFile,
    RateLimitMiddleware,
    Served,
    TokenBucket,
    by,
    by_header,
    by_ip,
    by_user,
    by_user_or,
    by_user_or_ip,
)
from asgi_ratelimit.testing import ManualClock

behind_a_proxy = ClientIP(trusted_proxies=["10.0.0.0/8", "unix"], ipv6_prefix=56)
behind_two_proxies = ClientIP(hops=2)
behind_a_cdn = ClientIP(["10.0.0.0/8"], header="cf-connecting-ip")
ready_made: list[Callable[[HTTPConnection], str | Awaitable[str | None] | None]] = [
    by_ip,
    by_user,
    by_user_or_ip,
    by_header("x-api-key"),
    by_user_or(behind_a_proxy),
    behind_two_proxies,
    behind_a_cdn,
]


def by_tenant(conn: HTTPConnection) -> str:
    return conn.headers["x-tenant"]


def by_tenant_or_nobody(conn: HTTPConnection) -> str | None:
    return conn.headers.get("x-tenant")


async def by_session(conn: HTTPConnection) -> str | None:
    return conn.cookies.get("session")


def by_client_of_a_request(request: Request) -> str:
    return f"{request.method}:{request.client.host if request.client else ''}"


async def by_form(request: Request) -> str | None:
    return request.query_params.get("account")


def limit_of_a_request(request: Request) -> str:
    return "5/s" if request.method == "POST" else "50/s"


def cost_of_a_request(request: Request) -> int:
    return 2 if request.method == "POST" else 1


def is_get(request: Request) -> bool:
    return request.method == "GET"


def refusal_to_a_request(request: Request, decision: Decision) -> Response:
    return JSONResponse({"method": request.method}, 429)


def limit_by_tier(conn: HTTPConnection) -> str | None:
    return None if conn.headers.get("x-tier") == "staff" else "60/minute"


async def limits_by_tier(conn: HTTPConnection) -> list[str | TokenBucket] | TokenBucket | None:
    return ["10/s", TokenBucket("60/minute")] if conn.headers.get("x-tier") else None


def cost_of(conn: HTTPConnection) -> int:
    return 5 if conn.url.path == "/export" else 1


async def cost_later(conn: HTTPConnection) -> int:
    return len(conn.headers)


def is_exempt(conn: HTTPConnection) -> bool:
    return conn.url.path == "/health"


async def is_exempt_later(conn: HTTPConnection) -> bool:
    return is_exempt(conn)


async def failed(status: int) -> bool:
    return status >= 400


def used(served: Served) -> int:
    tokens = int(served.headers.get("x-tokens", 0))
    return tokens + served.body_bytes + round(served.seconds) + (served.status < 400) + len(served.scope["path"])


async def used_later(served: Served) -> int:
    return used(served)


def used_in_a_test() -> int:
    headers = Headers({"x-tokens": "12"})
    return used(Served(status=200, headers=headers, body_bytes=5, seconds=0.5, scope={"type": "http", "path": "/"}))


def refusal(conn: HTTPConnection, decision: Decision) -> Response:
    return JSONResponse({"again_in": decision.retry_after}, 429)


async def refusal_later(conn: HTTPConnection, decision: Decision) -> JSONResponse:
    return JSONResponse({"again_in": decision.retry_after}, 429)


app = Starlette(middleware=[Middleware(RateLimitMiddleware, limit="100/minute", key=by_tenant)])
app.add_middleware(
    RateLimitMiddleware,
    limit=["100/minute", TokenBucket("10/s")],
    key=by_user_or(by_session),
    cost=2,
    store=MemoryStore(),
    name="app",
    exempt=("/health", "/static/*"),
    only=("/api/**",),
    methods=["POST"],
    default=True,
    refund=failed,
    enforce=False,
    escalate=Escalate(after=20, within=60, block=(60, 600), memory=86_400),
    max_wait=2,
    headers="both",
    on_limited=refusal,
    messages="120/60s",
)
app.add_middleware(RateLimitMiddleware, limit=limit_by_tier, key=by_session, cost=cost_of, exempt=is_exempt)
app.add_middleware(RateLimitMiddleware, limit=limits_by_tier, cost=cost_later, exempt=is_exempt_later)
app.add_middleware(RateLimitMiddleware, limit=None, key=by_tenant_or_nobody, headers=None, messages=["9/s"])
app.add_middleware(RateLimitMiddleware, limit=lambda conn: "5/5s", key=lambda conn: "all", cost=lambda conn: 1)
app.add_middleware(RateLimitMiddleware, limit=TokenBucket("5/5s"), on_limited=refusal_later, headers="ietf")
app.add_middleware(
    RateLimitMiddleware,
    limit=limit_of_a_request,
    key=by_client_of_a_request,
    cost=cost_of_a_request,
    exempt=behind_a_proxy.within("10.0.0.0/8", "2001:db8::/32"),
    only=is_get,
    on_limited=refusal_to_a_request,
)
app.add_middleware(RateLimitMiddleware, limit="9000/s", cost=Estimate(quantile=0.95, start=4000), settle=used)
app.add_middleware(RateLimitMiddleware, limit="9000/s", cost=Estimate(start=4000), settle=used_later)
app.add_middleware(RateLimitMiddleware, limit="5/s", key=by_user_or(by_client_of_a_request), only="/login")
app.add_middleware(RateLimitMiddleware, limit="5/s", key=by_form, exempt=behind_two_proxies.within("192.0.2.0/24"))
per_tenant = by(key=by_tenant_or_nobody, limit=["5/s", TokenBucket("9/minute")], name="tenant", optional=True)
app.add_middleware(RateLimitMiddleware, limit=["100/minute", by(by_session, "5/15 minutes"), per_tenant], key=by_ip)
app.add_middleware(RateLimitMiddleware, limit=by(by_user, "5/s"))


def limits_with_keys(conn: HTTPConnection) -> list[str | by]:
    return ["100/minute", per_tenant]


app.add_middleware(RateLimitMiddleware, limit=limits_with_keys)
wrapped = RateLimitMiddleware(app, limit="1000/hour", headers="discord", messages=TokenBucket("2/s"))

a_limit: LimitSource = limit_by_tier
a_key: KeyFunction = by_session
a_cost: CostSource = cost_later
a_learned_cost: CostSource = Estimate(start=10)
an_exemption: ExemptSource = ("/health", "/static/*")
exemptions: ExemptSource = ["/health", by_ip.within("10.0.0.0/8"), is_exempt, is_exempt_later]


def exempt_by_file(path: Path) -> ExemptSource:
    partners = NetworkFile(path)
    print(len(partners), "192.0.2.7" in partners)
    return ["/health", behind_a_proxy.within(partners, NetworkFile("more.txt", clock=ManualClock()), "10.0.0.0/8")]


def only_by_file() -> ExemptSource:
    return by_ip.within(NetworkFile("guests.txt"))


a_response: LimitedHandler = refusal_later
