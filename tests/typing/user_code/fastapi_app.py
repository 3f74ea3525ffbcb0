"""The dependency with every option, in an app with endpoints of every kind."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, Request, WebSocket
from fastapi.responses import HTMLResponse
from starlette.requests import HTTPConnection

from asgi_ratelimit import Decision, Escalate, Estimate, MemoryStore, RateLimited, TokenBucket, by, by_ip
from asgi_ratelimit.fastapi import RateLimit, document_limits, exempt, rate_limit

app = FastAPI()
router = APIRouter(prefix="/v1")


def current_user(x_api_key: Annotated[str, Header()] = "anonymous") -> str:
    return x_api_key


def current_account() -> UUID:
    return uuid4()


async def by_cookie(conn: HTTPConnection) -> str | None:
    return conn.cookies.get("session")


def cost_of(conn: HTTPConnection) -> int:
    return 2 if "export" in conn.query_params else 1


def limit_of(conn: HTTPConnection) -> str | TokenBucket | None:
    return TokenBucket("5/5s") if conn.cookies else "1/s"


def by_method(request: Request) -> str:
    return request.method


def is_server_error(status: int) -> bool:
    return status >= 500


def wait_page(request: Request, decision: Decision) -> HTMLResponse:
    return HTMLResponse(f"wait {decision.retry_after} s", status_code=429)


every_option = RateLimit(
    ["5/5s", TokenBucket("100/minute")],
    key=Depends(current_user),
    cost=cost_of,
    per=("channel_id",),
    name="messages",
    store=MemoryStore(),
    exempt=("/health",),
    only=("/channels/*",),
    methods=("POST",),
    refund=is_server_error,
    enforce=True,
    escalate=Escalate(after=20, within=60.0, block=[60, 600.0]),
    max_wait=1.0,
    headers="both",
    on_limited=wait_page,
)
by_default = RateLimit()
by_address = RateLimit(limit="5/5s", key=by_ip, cost=2, per=["channel_id"], headers=None)
by_function = RateLimit(limit_of, key=by_cookie)
by_request = RateLimit("5/5s", key=by_method)
by_email = RateLimit("5/hour", per={"email": str.casefold})
by_tokens = RateLimit(TokenBucket("9000/minute", unit="tokens"), cost=Estimate(quantile=0.9, start=4000))
by_account = RateLimit(TokenBucket("5/5s"), key=Depends(current_account))
by_both = RateLimit(["9/s", by(Depends(current_account), "5/5s")])


@app.get("/health", dependencies=[Depends(exempt)])
def health() -> str:
    return "ok"


app.mount("/wrapped", by_default.wrap(FastAPI()))


@app.get("/search", dependencies=[Depends(by_default)], responses=by_default.responses)
async def search(quota: Annotated[Decision, Depends(rate_limit)]) -> float:
    return quota.reset_after


@app.get("/chat")
async def chat(quota: Annotated[Decision, Depends(by_tokens)], tasks: BackgroundTasks) -> int:
    await by_tokens.settle(quota, 1200)
    tasks.add_task(by_tokens.refund, quota)
    return len(quota.over)


@app.get("/unlimited/{tier}")
def perhaps_unlimited(quota: Annotated[Decision | None, Depends(by_function)]) -> int:
    return quota.remaining if quota else 0


@router.post(
    "/channels/{channel_id}/messages", dependencies=[Depends(every_option), Depends(by_account), Depends(by_both)]
)
def send(channel_id: int) -> dict[str, int]:
    return {"channel": channel_id}


@router.websocket("/channels/{channel_id}")
async def listen(websocket: WebSocket, quota: Annotated[Decision, Depends(by_address)]) -> None:
    await websocket.accept()
    await websocket.send_text(str(quota.remaining))


@app.exception_handler(RateLimited)
async def slow_down(request: Request, refused: Exception) -> HTMLResponse:
    again = refused.retry_after if isinstance(refused, RateLimited) else 1.0
    return HTMLResponse(f"<p>{request.url.path}: again in {again:.1f} s, please.</p>", status_code=429)


app.include_router(router)
document_limits(app)
