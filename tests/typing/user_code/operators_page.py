"""The operator's page with every option, and what callers see of their limits."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.admin import router
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.fastapi import CallerLimits, RateLimit, Usage, usage_router
from asgi_ratelimit.observe import Stats

app = FastAPI()
stats = Stats()
store = MemoryStore(observers=[stats])
client = DiscordClient("token", store=store)
limit = RateLimit("5/5s", store=store)


def current_user(x_api_key: Annotated[str, Header()] = "anonymous") -> str:
    return x_api_key


def operator(user: Annotated[str, Depends(current_user)]) -> None:
    if user != "root":
        raise HTTPException(403)


def clients() -> list[DiscordClient]:
    return [client]


app.include_router(
    router(store=store, stats=stats, access=operator, discord=client, title="Limits", every=5), prefix="/operator"
)
app.include_router(router(store, stats, access=Depends(operator), discord=clients), prefix="/also")
app.include_router(usage_router(key=Depends(current_user)), prefix="/limits")


@app.get("/left")
async def left(request: Request) -> int:
    decision = await limit.peek(request)
    return decision.remaining if decision is not None else 0


def most_used(seen: CallerLimits) -> Usage:
    return min(seen.limits, key=lambda usage: usage.remaining)
