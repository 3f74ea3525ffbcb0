"""The bot's routes: bursts that go out to Discord, and interactions that come in from there."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from asgi_ratelimit import Limiter
from asgi_ratelimit.discord import InteractionLimit
from asgi_ratelimit.fastapi import RateLimit
from example_app.bot import Bots
from example_app.burst import Burst, Plan
from example_app.limits import BURSTS, INTERACTIONS
from example_app.signer import USERS, Case, Signer, User, public_key_for

__all__ = ["guard_interactions", "router"]

router = APIRouter(prefix="/discord", include_in_schema=False)


def guard_interactions(app: FastAPI) -> None:
    """Have the app's interactions verified with Discord's key for it, or with that of a signer of its own."""
    signer = Signer()
    public_key, is_own = public_key_for(signer)
    app.state.interaction_limit = InteractionLimit(public_key, INTERACTIONS, key="user")
    app.state.signer = signer if is_own else None


async def verified(request: Request) -> dict[str, Any]:
    """The interaction, if the app's InteractionLimit lets it in. Its public key is set when the app is made."""
    limit: InteractionLimit = request.app.state.interaction_limit
    return await limit(request)


# Out


@router.post("/bursts", dependencies=[Depends(RateLimit(BURSTS))])
async def send_burst(request: Request, plan: Plan) -> StreamingResponse:
    """Send a burst and report on it in the same response, which so comes from the worker that sends it."""
    bots: Bots = request.state.bots
    if bots.real_channel is not None and not plan.confirmed:
        raise HTTPException(409, "These messages would go to a real channel: that has to be confirmed.")
    lines = Burst(bots, plan).lines()
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


# In


@router.post("/interactions")
async def interact(interaction: Annotated[dict[str, Any], Depends(verified)]) -> dict[str, Any]:
    """Discord posts here. The limit has already answered PINGs, unsigned requests and users that are too fast."""
    if interaction["type"] == 4:
        ports = [{"name": port, "value": port} for port in ("Bergen", "Brest", "Bristol")]
        return {"type": 8, "data": {"choices": ports}}
    reply = "Refreshed: the tide is still rising." if interaction["type"] == 3 else "The tide is rising."
    return {"type": 4, "data": {"content": reply}}


class Wanted(BaseModel):
    """A test interaction that a visitor has chosen."""

    case: Case = "command"
    user: User = "ada"


@router.post("/tests")
async def deliver(request: Request, wanted: Wanted) -> dict[str, object]:
    """Has the signer post an interaction to this very app, and shows both sides of it."""
    signer: Signer | None = request.app.state.signer
    if signer is None:
        raise HTTPException(409, "Only Discord can sign for this app: DISCORD_PUBLIC_KEY is set.")
    store = request.app.state.store
    path = str(request.app.url_path_for("interact"))
    delivery = await signer.deliver(request.app, path, wanted.case, wanted.user, store.clock.wall())
    left = await Limiter(INTERACTIONS, store=store, name="interactions").peek(f"user:{USERS[wanted.user]}")
    return {
        "sent": {"headers": delivery.headers, "body": delivery.body},
        "answer": {"status": delivery.answer.status_code, "body": delivery.answer.json()},
        "left": {
            "remaining": left.remaining,
            "limit": left.limit,
            "reset_after": left.reset_after,
            "rate": INTERACTIONS.count / INTERACTIONS.period,
        },
    }
