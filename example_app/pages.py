"""The pages: the dashboard, the bot's, the one about protection, and the log-in."""

from __future__ import annotations

import math
import os
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Cookie, Form, Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates

from asgi_ratelimit import by_ip
from example_app import bot, burst, log_ins, protection, signer, storm
from example_app.limits import (
    BANS,
    BURSTS,
    BY_TIER,
    EVERYBODY,
    EXPORTS,
    EXPORTS_OF_AN_ADDRESS,
    FRAMES,
    INTERACTIONS,
    KNOCKS,
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
DEVICE_S = 365 * 86_400  # for which a browser remembers which device it is

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


@router.get("/protection")
async def protection_page(request: Request) -> Response:
    return _page(
        request, "protection.html", exports=EXPORTS, export_s=protection.EXPORT_S, log_ins=log_ins, storm=storm,
        bans=BANS,
        exports_of_an_address=EXPORTS_OF_AN_ADDRESS, knocks=KNOCKS,
        people=[MEMBERS[account] for account in protection.ACCOUNTS],
    )  # fmt: skip


@router.get("/login")
async def login_page(request: Request) -> Response:
    return _page(request, "login.html")


@router.post("/login")
async def log_in(
    request: Request,
    member: Annotated[str, Form()],
    password: Annotated[str, Form()],
    to: str = "",
    device: Annotated[str | None, Cookie()] = None,
) -> Response:
    """Log a member in. An operator that was sent here by the operator's page goes back to it."""
    device = device or secrets.token_urlsafe()
    guarded: log_ins.LogIns = request.app.state.log_ins
    outcome = await guarded.attempt(member, password, by_ip(request), device)
    found = log_ins.member_named(member)
    if outcome.status != 200 or found is None:
        return _refusal(request, outcome)
    request.session.clear()
    request.session[SESSION_KEY] = found.identity
    response = RedirectResponse("/operator/" if to == "operator" and found.is_operator else "/", 303)
    response.set_cookie("device", device, max_age=DEVICE_S, httponly=True, samesite="lax")
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/", 303)


def _refusal(request: Request, outcome: log_ins.Outcome) -> Response:
    """The log-in once more, with the reason. It is the same for an account that does not exist."""
    seconds = math.ceil(outcome.blocked_for)
    if outcome.status == 429:
        response = _page(request, "login.html", 429, notice=f"Too many wrong passwords. Try again in {seconds} s.")
        response.headers["Retry-After"] = str(seconds)
        return response
    return _page(request, "login.html", 401, notice="The name or the password is wrong.")


def _page(request: Request, template: str, status: int = 200, **context: object) -> Response:
    store = request.app.state.store
    context |= {"user": request.user, "tier": tier_of(request), "store": store, "worker": os.getpid()}
    return templates.TemplateResponse(request, template, context, status, headers=HEADERS)
