"""The pages: the dashboard, the bot's, and a log-in without passwords."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates

from asgi_ratelimit import by_ip
from example_app import bot, burst, signer
from example_app.limits import (
    BURSTS,
    BY_TIER,
    EVERYBODY,
    FRAMES,
    INTERACTIONS,
    MESSAGES,
    PICTURES,
    REPORTS_BY_TIER,
    SEARCH,
    in_words,
)
from example_app.routes import CHANNELS
from example_app.store import described, is_shared
from example_app.users import MEMBERS, SESSION_KEY, tier_of

__all__ = ["router"]

HEADERS = {"Cache-Control": "no-store"}

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(Path(__file__).parent / "templates")
templates.env.filters |= {"class_name": lambda thing: type(thing).__name__, "described": described}
templates.env.filters["words"] = in_words
templates.env.tests["shared"] = is_shared
templates.env.globals |= {
    "bursts": BURSTS,
    "by_tier": BY_TIER,
    "everybody": EVERYBODY,
    "frames": FRAMES,
    "interactions": INTERACTIONS,
    "messages": MESSAGES,
    "pictures": PICTURES,
    "reports_by_tier": REPORTS_BY_TIER,
    "search": SEARCH,
    "channels": CHANNELS,
    "members": MEMBERS,
}


@router.get("/")
async def dashboard(request: Request) -> Response:
    return _page(request, "dashboard.html", address=by_ip(request))


@router.get("/discord")
async def discord_page(request: Request) -> Response:
    channel, can_sign = bot.real_channel(), request.app.state.signer is not None
    return _page(request, "discord.html", bot=bot, burst=burst, signer=signer, real_channel=channel, can_sign=can_sign)


@router.get("/login")
async def login_page(request: Request) -> Response:
    return _page(request, "login.html")


@router.post("/login")
async def log_in(request: Request, member: Annotated[str, Form()]) -> Response:
    if member not in MEMBERS:
        raise HTTPException(404, f"There are only {', '.join(MEMBERS)} here.")
    request.session.clear()
    request.session[SESSION_KEY] = member
    return RedirectResponse("/", 303)


@router.post("/logout")
async def log_out(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/", 303)


def _page(request: Request, template: str, **context: object) -> Response:
    store = request.app.state.store
    context |= {"user": request.user, "tier": tier_of(request), "store": store, "worker": os.getpid()}
    return templates.TemplateResponse(request, template, context, headers=HEADERS)
