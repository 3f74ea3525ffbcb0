"""The routes of the operator's page."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from asgi_ratelimit.admin.access import Access, behind, check_origin
from asgi_ratelimit.admin.feed import EventStream, Feed
from asgi_ratelimit.admin.limiters import LimitersInUse
from asgi_ratelimit.admin.view import DiscordSource, LimiterCount, check_discord
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.store import Store, check_store

__all__ = ["router"]

Options = ParamSpec("Options")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HERE = Path(__file__).parent
_LONGEST_BODY = 16_384

_pages = Jinja2Templates(_HERE / "templates")
_files = StaticFiles(directory=_HERE / "static")


def _explains_access(make: Callable[Options, APIRouter]) -> Callable[Options, APIRouter]:
    """The same function. Without `access` it raises ValueError, as for a wrong one, and no TypeError."""

    @wraps(make)
    def explaining(*arguments: Options.args, **options: Options.kwargs) -> APIRouter:
        behind(options.get("access"))
        return make(*arguments, **options)

    return explaining


@_explains_access
def router(
    store: Store,
    stats: LimiterCount,
    *,
    access: Access,
    discord: DiscordSource | None = None,
    title: str = "Rate limits",
    every: float = 2.0,
) -> APIRouter:
    """The operator's page: `app.include_router(router(store, stats, access=operator), prefix="/operator")`.

    store: the store of the limiters. All of this process that use it are shown, and may be acted on
    stats: a Stats that observes the store: `MemoryStore(observers=[stats])`
    access: a dependency that lets in operators only. It refuses others with an exception, e.g. HTTPException(403), or
        by returning False. None lets in. Every route is behind it: the page, its files, its event stream and its verbs
    discord: a DiscordClient, or several, or a function that returns them: the page shows which calls wait
    title: of the page
    every: seconds between two looks at the counts

    A changing request of another site's page is refused. Raises ValueError if an option is out of range.
    """
    check_store(store)
    if not (hasattr(stats, "snapshot") and hasattr(stats, "share")):
        raise ValueError(f"stats is a Stats, as in MemoryStore(observers=[stats := Stats()]), not {stats!r:.80}")
    if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0.1 <= every < math.inf:
        raise ValueError(f"every is a number of seconds from 0.1, e.g. every=2, not {every!r}")
    if discord is not None:
        check_discord(discord)
    limiters = LimitersInUse(store)
    routes = APIRouter(dependencies=[behind(access)], include_in_schema=False)
    _add_page(routes, Feed(store, stats, limiters, discord, every), title)
    _add_verbs(routes, limiters)
    return routes


def _add_page(routes: APIRouter, feed: Feed, title: str) -> None:
    @routes.get("/")
    async def page(request: Request) -> Response:
        return _pages.TemplateResponse(request, "page.html", {"title": title}, headers=HEADERS)

    @routes.get("/static/{path:path}")
    async def file(request: Request, path: str) -> Response:
        response = await _files.get_response(path, request.scope)
        response.headers.update(HEADERS | {"Cache-Control": "no-cache"})
        return response

    @routes.get("/state")
    async def state() -> Response:
        """The page as JSON, for programs."""
        return _json(await feed.state())

    @routes.get("/events")
    async def events() -> Response:
        return EventStream(feed.stream(), headers=HEADERS)


class Wanted(BaseModel):
    """What a verb is about. `per` is the resource of a limit with per= parameters."""

    limiter: Annotated[str, Field(min_length=1, max_length=1_000)]
    key: Annotated[str, Field(max_length=4_000)]
    per: Annotated[str, Field(max_length=4_000)] = ""
    seconds: Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)] = 0


def _add_verbs(routes: APIRouter, limiters: LimitersInUse) -> None:
    """They are all POST with a body, so that no key is in a URL, and none in an access log."""

    async def answer(request: Request, verb: Callable[[Wanted], Any]) -> Response:
        wanted = await _wanted(request)
        try:
            await verb(wanted)
            parts = await limiters.look_up(wanted.limiter, wanted.key, wanted.per)
        except StoreUnavailable as error:
            raise HTTPException(503, "The store does not answer. Try again once it is back.") from error
        except ValueError as error:
            raise HTTPException(404, str(error)) from None
        return _json({"digest": limiters.digest(wanted.limiter, wanted.key), "parts": parts})

    verbs = APIRouter(dependencies=[Depends(check_origin)])

    @verbs.post("/look-up")
    async def look_up(request: Request) -> Response:
        return await answer(request, _nothing)

    @verbs.post("/reset")
    async def reset(request: Request) -> Response:
        return await answer(request, lambda wanted: limiters.reset(wanted.limiter, wanted.key, wanted.per))

    @verbs.post("/block")
    async def block(request: Request) -> Response:
        return await answer(request, lambda wanted: limiters.block(wanted.limiter, wanted.key, wanted.seconds))

    routes.include_router(verbs)


async def _nothing(wanted: Wanted) -> None:
    """Only look."""


async def _wanted(request: Request) -> Wanted:
    """The body of a request, which is read once the caller has been let in."""
    try:
        return Wanted.model_validate_json(await _body(request))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()]
        raise HTTPException(422, "; ".join(wrong)) from None


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LONGEST_BODY:
                raise HTTPException(413, "The body is too long.")
    except ClientDisconnect:
        raise HTTPException(400, "The body did not come to its end.") from None
    return body


def _json(content: object) -> JSONResponse:
    return JSONResponse(content, headers=HEADERS)
