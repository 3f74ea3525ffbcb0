"""The operator's page, and who may see it."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI, HTTPException, Request

from asgi_ratelimit import admin
from asgi_ratelimit.discord import DiscordClient
from example_app.users import Member

__all__ = ["operator", "page_of"]


def operator(request: Request) -> None:
    """Lets in operators. It sends strangers to the log-in, and refuses other members."""
    if not request.user.is_authenticated:
        raise HTTPException(303, headers={"Location": "/login?to=operator"})
    if not isinstance(request.user, Member) or not request.user.is_operator:
        raise HTTPException(403, "This page is for operators.")


def page_of(app: FastAPI) -> APIRouter:
    """The page about the store of this app, and about its bots."""

    def clients() -> Iterable[DiscordClient]:
        return [bot.client for bot in {*app.state.bots.by_window.values()}]

    return admin.router(app.state.store, app.state.stats, access=operator, discord=clients)
