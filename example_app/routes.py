"""The limited routes: one for each kind of limit, and a WebSocket."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket

from asgi_ratelimit import Decision
from asgi_ratelimit.fastapi import RateLimit, rate_limit
from example_app.limits import MESSAGES, PICTURES, report_limit

__all__ = ["CHANNELS", "router"]

CHANNELS = ("general", "random")

router = APIRouter(prefix="/api")


@router.get("/search")
async def search(quota: Annotated[Decision, Depends(rate_limit)]) -> dict[str, object]:
    """The ready-made limit. The endpoint receives the remaining calls."""
    return {"found": ["bucket", "drip", "tide"], "left": quota.remaining}


@router.post("/channels/{channel_id}/messages", dependencies=[Depends(RateLimit(MESSAGES, per=("channel_id",)))])
async def post_message(channel_id: str) -> dict[str, str]:
    """Each channel has a window of its own, as Discord's major parameters have."""
    return {"channel": channel_id, "sent": "Hello!"}


@router.get("/pictures", dependencies=[Depends(RateLimit(PICTURES))])
async def picture() -> dict[str, str]:
    """Calls leave evenly spaced: the limit holds a burst back before it refuses any of it."""
    return {"picture": "sunrise.webp"}


@router.get("/reports", dependencies=[Depends(RateLimit(report_limit))])
def report() -> dict[str, str]:
    """Limited by tier; a sync endpoint is limited just the same."""
    return {"report": "Everything flows."}


@router.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    """Sends every frame back; the middleware's `messages=` counts them and closes the socket with 4008."""
    await socket.accept()
    async for frame in socket.iter_text():
        await socket.send_text(frame)
