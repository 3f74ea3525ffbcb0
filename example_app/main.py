"""The app, put together: its routes, and the order of its middleware."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.staticfiles import StaticFiles

from asgi_ratelimit import RateLimitMiddleware
from asgi_ratelimit.fastapi import document_limits, usage_router
from asgi_ratelimit.load import LoadShedMiddleware
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.store import Store
from example_app import discord, gauges, operators, pages, protection, routes
from example_app.bot import Bots, open_bots
from example_app.limits import FRAMES, app_limit
from example_app.log_ins import LogIns
from example_app.safety import OwnSiteOnly, allowed_hosts
from example_app.store import is_shared, open_store
from example_app.storm import priority
from example_app.users import SessionBackend
from example_app.worker import NamesItsWorker

__all__ = ["app", "create_app"]

INTERACTIONS = "/discord/interactions"  # Discord may post there under any name: each request is signed
OPERATOR = ("/operator", "/operator/*")  # no flood keeps the operator out
LOOKS = ("/static/*", "/api/gauges", "/api/protection", "/limits/me", "/health")  # they cost next to nothing
STORM = "/storm/*"  # has a limit of its own where it begins
CALLS = ("/api/*", "/protection/*")  # cost little, and show the limits: a shed one would be in the way of counting
EXEMPT = (*LOOKS, *OPERATOR, INTERACTIONS, STORM)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Bots]]:
    """While the app runs its bots do, too: one set of them for each worker. The workers share their counts."""
    await app.state.log_ins.log_in_by_phone(*protection.ACCOUNTS)
    async with open_bots(app.state.store) as bots, app.state.stats.sharing(app.state.store):
        app.state.bots = bots
        yield {"bots": bots}


def create_app(store: Store | None = None) -> FastAPI:
    # The interactive docs would fetch their scripts from elsewhere.
    app = FastAPI(title="Rate limits, live", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.store = open_store() if store is None else store
    app.state.stats = Stats()
    app.state.store.observers.add(app.state.stats)
    # Without a secret of its own, each start logs all users out. Workers have to share one.
    secret = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
    app.state.log_ins = LogIns(app.state.store, secret)
    discord.guard_interactions(app)
    for room in (pages, routes, gauges, discord, protection):
        app.include_router(room.router)
    app.include_router(operators.page_of(app), prefix="/operator")
    app.include_router(usage_router(), prefix="/limits")
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    document_limits(app)

    # The middleware added last is outermost and runs first: it keeps other sites out. Then come overload,
    # session, user and limits.
    app.add_middleware(RateLimitMiddleware, limit=app_limit, store=app.state.store, exempt=EXEMPT, messages=FRAMES)
    app.add_middleware(AuthenticationMiddleware, backend=SessionBackend())
    app.add_middleware(SessionMiddleware, secret_key=secret, same_site="lax")
    app.add_middleware(LoadShedMiddleware, priority=priority, exempt=(*LOOKS, *CALLS), store=app.state.store)
    # Outside, as CORS would be: each response gets its headers, also one that is shed.
    app.add_middleware(OwnSiteOnly, hosts=allowed_hosts(), open_paths=(INTERACTIONS,))
    if is_shared(app.state.store):
        app.add_middleware(NamesItsWorker)
    return app


app = create_app()
