"""The routes of the page about protection: slow exports, a door to hammer, a storm, and attempts to log in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from asgi_ratelimit import Limiter, by, by_ip, by_user_or_ip
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.load import server_load
from example_app.limits import BANS, EXPORTS, EXPORTS_OF_AN_ADDRESS, KNOCKS, STORMS
from example_app.log_ins import LogIns, Outcome, Place
from example_app.storm import PART_OF_A_STORM, Kind, Plan, Storm, work

__all__ = ["ACCOUNTS", "EXPORT_S", "router"]

EXPORT_S = 8.0
STEP_S = 0.2
ACCOUNTS = ("ada", "grace")  # that the page may attack; the operator's is not among them

LINES = "application/x-ndjson"
FRESH = {"Cache-Control": "no-store"}

router = APIRouter()


# Requests in flight

exports = RateLimit([EXPORTS, by(by_ip, EXPORTS_OF_AN_ADDRESS, name="address")])  # two keys, one decision


@router.get("/api/exports", dependencies=[Depends(exports)])
async def export(seconds: Annotated[float, Query(gt=0, le=EXPORT_S)] = EXPORT_S) -> StreamingResponse:
    """A slow answer. It holds one of the visitor's slots until its last line is sent, or the visitor has left."""
    return StreamingResponse(_export(seconds), media_type=LINES, headers=FRESH)


async def _export(seconds: float) -> AsyncIterator[str]:
    steps = max(1, round(seconds / STEP_S))
    for step in range(steps + 1):
        yield json.dumps({"done": step / steps}) + "\n"
        if step < steps:
            await asyncio.sleep(seconds / steps)


@router.get("/api/protection", include_in_schema=False)
async def state(request: Request, response: Response) -> dict[str, float]:
    """The slots of the visitor and of their address, and a ban in seconds; how busy the process is."""
    response.headers.update(FRESH)
    store, visitor = request.app.state.store, str(by_user_or_ip(request) or "")
    own = await Limiter(EXPORTS, store=store, name="/api/exports").peek(visitor)
    shared = await Limiter(EXPORTS_OF_AN_ADDRESS, store=store, name="/api/exports").peek(f"address:{by_ip(request)}")
    knocks = await Limiter(KNOCKS, store=store, name="/api/knock").peek(visitor)
    return {
        "in_flight": own.limit - own.remaining,
        "in_flight_of_address": shared.limit - shared.remaining,
        "banned_for": knocks.retry_after if knocks.reason == "blocked" else 0.0,
        "load": server_load(),
    }


# Bans


@router.post("/api/knock", dependencies=[Depends(RateLimit(KNOCKS, escalate=BANS))])
async def knock() -> dict[str, str]:
    """A door. It bans a visitor that goes on when refused."""
    return {"door": "open"}


# Overload


@router.get("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """Never shed, and never limited."""
    return {"status": "well"}


@router.get("/storm/{kind}", include_in_schema=False)
async def answer(request: Request, kind: Kind) -> dict[str, str]:
    """One request of a storm. No client can send one: only the page's own storms work this hard."""
    if PART_OF_A_STORM not in request.scope:
        raise HTTPException(404)
    await work()
    return {"kind": kind}


@router.post("/protection/storms", dependencies=[Depends(RateLimit(STORMS))], include_in_schema=False)
async def begin_storm(request: Request, plan: Plan) -> StreamingResponse:
    """A storm, reported on in the same response: so this comes from the worker that bears it."""
    storm = Storm(request.app, request.headers["host"], plan)
    return StreamingResponse(storm.lines(), media_type=LINES, headers=FRESH)


# Log-ins


class Try(BaseModel):
    """An attempt that a visitor has chosen."""

    account: Literal["ada", "grace"] = "ada"
    place: Place = "stranger"
    right: bool = False


@router.get("/protection/log-ins/{account}", include_in_schema=False)
async def look(request: Request, account: Literal["ada", "grace"], response: Response) -> dict[Place, Outcome]:
    """The state of each place of an account."""
    response.headers.update(FRESH)
    log_ins: LogIns = request.app.state.log_ins
    return await log_ins.look(account)


@router.post("/protection/log-ins", include_in_schema=False)
async def attempt(request: Request, wanted: Try) -> Outcome:
    """An attempt from a place of the page's, by the guard that the log-in itself has. Its answer is in the body."""
    log_ins: LogIns = request.app.state.log_ins
    return await log_ins.attempt_from(wanted.place, wanted.account, right=wanted.right)
