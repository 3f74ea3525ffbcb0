"""GET /limits/me: the rest of each limit, for the caller."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response, params
from pydantic import BaseModel, Field
from starlette.types import Scope

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.fastapi.dependency import RateLimit
from asgi_ratelimit.fastapi.refusals import unavailable
from asgi_ratelimit.fastapi.wrapped import WrappedApp
from asgi_ratelimit.inbound.limited_app import LimitedApp
from asgi_ratelimit.inbound.own_limit import dependency_calls, every_route, layers
from asgi_ratelimit.inbound.request_state import state_of

__all__ = ["CallerLimits", "Usage", "usage_router"]

logger = logging.getLogger("asgi_ratelimit")


class Usage(BaseModel):
    """One limit, and its rest for the caller. Times are in seconds."""

    name: str = Field(description="The limiter: a path template, or a name such as app")
    rate: str = Field(description="The limit, such as 100/minute")
    scope: str = Field(description="Whose bucket it is: user, global (of all callers) or shared (of a resource)")
    unit: str | None = Field(None, description="Its unit, such as tokens; null: requests")
    limit: int = Field(description="How many the full bucket holds")
    remaining: int = Field(description="How many are left")
    reset_after: float = Field(description="Until the bucket is full again")
    retry_after: float = Field(description="Until the next call would be allowed; 0 if it is allowed now")
    over: bool = Field(False, description="Whether a soft limit, which refuses nothing, is used up")


class CallerLimits(BaseModel):
    """The rest of each limit, for the caller."""

    limits: list[Usage]


def usage_router(*, key: Any = None) -> APIRouter:
    """A router with `GET /me`: `app.include_router(usage_router(), prefix="/limits")`.

    key: `Depends(current_user)` if routes have limits with `key=Depends(current_user)`, which are left out without it

    It lists the limits of the middleware, then those of the app's routes, each with its rest for the caller. A
    limit with `per=` is listed if the query has its parameters, as in `/limits/me?channel_id=7`. Nothing is charged:
    the charge of a middleware comes back. Put the path into the middleware's `exempt=`, so that callers may also ask
    when they are limited. Raises ValueError if `key` is no dependency.
    """
    if key is not None and not isinstance(key, params.Depends):
        raise ValueError(f"key is a dependency such as key=Depends(current_user), not {key!r}")
    router, limits = APIRouter(), _FoundLimits()
    dependency = Depends(_no_user) if key is None else key

    @router.get("/me", name="limits_of_caller", summary="Your limits")
    async def limits_of_caller(request: Request, response: Response, user: Any = dependency) -> CallerLimits:
        """The rest of each limit. Asking costs nothing."""
        response.headers["Cache-Control"] = "no-store"
        try:
            decisions = [one async for one in _decisions(request, limits, user)]
        except StoreUnavailable as error:
            raise unavailable(request) from error
        return CallerLimits(limits=[_usage(part) for part in _each_bucket(decisions)])

    return router


_NOBODY = object()


def _no_user() -> object:
    return _NOBODY


class _FoundLimits:
    """The limits of an app's routes, each with its route. They are looked for once."""

    def __init__(self) -> None:
        self._app: object = None
        self._found: list[tuple[Any, RateLimit | WrappedApp]] = []

    def of(self, app: Any) -> list[tuple[Any, RateLimit | WrappedApp]]:
        if app is not self._app:
            self._found = [(route, limit) for route in every_route(app.routes) for limit in _limits_of(route)]
            self._app = app
        return self._found


def _limits_of(route: Any) -> Iterator[RateLimit | WrappedApp]:
    for one in (*layers(getattr(route, "app", None)), *dependency_calls(getattr(route, "dependant", None))):
        if isinstance(one, (RateLimit, WrappedApp)):
            yield one


async def _decisions(request: Request, limits: _FoundLimits, user: object) -> AsyncIterator[Decision]:
    """The decision of each limit: of this app's middleware, of its routes, then of middleware around the app."""
    state = state_of(request.scope)
    around = [decision.as_settled(0) for decision in state.decisions[: state.middleware_count]]
    await state.refund_middleware()
    for middleware in layers(request.app.middleware_stack):
        if isinstance(middleware, LimitedApp):
            decision = await middleware.peek(request.scope)
            if decision is not None:
                yield decision
    for route, limit in limits.of(request.app):
        decision = await _decision_of_route(request, route, limit, user)
        if decision is not None:
            yield decision
    for decision in around:
        yield decision


async def _decision_of_route(
    request: Request, route: Any, limit: RateLimit | WrappedApp, user: object
) -> Decision | None:
    """The decision about a call of this caller to another route; None if that would need more of the request."""
    wanted = limit.parameters if isinstance(limit, RateLimit) else ()
    if any(name not in request.query_params for name in wanted):
        return None
    scope = _scope_of_route(request.scope, route, {name: request.query_params[name] for name in wanted})
    try:
        if isinstance(limit, WrappedApp):
            return await limit.peek(scope)
        if not limit.needs_user:
            return await limit.peek(Request(scope))
        return None if user is _NOBODY else await limit.peek(Request(scope), user)
    except StoreUnavailable:
        raise
    except Exception:  # a function of the user's that needs more of the request than there is
        logger.debug("the limit of %s cannot be looked at from here", getattr(route, "path", route), exc_info=True)
        return None


def _scope_of_route(scope: Scope, route: Any, values: Mapping[str, str]) -> Scope:
    """The scope that a request of this caller to another route would have."""
    path = str(getattr(route, "path_format", getattr(route, "path", "/")))
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    methods = getattr(route, "methods", None) or {scope["method"]}
    child = {**scope, "route": route, "path_params": dict(values), "path": scope.get("root_path", "") + path}
    child["method"] = min(methods)
    child.pop("fastapi", None)
    return child


def _each_bucket(decisions: list[Decision]) -> list[Decision]:
    """The parts of all decisions, each bucket once."""
    buckets: dict[object, Decision] = {}
    for decision in decisions:
        for part in decision.parts:
            buckets.setdefault((part.bucket, part.bucket_key), part)
    return list(buckets.values())


def _usage(part: Decision) -> Usage:
    return Usage(
        name=part.policy.name,
        rate=str(part.policy.limit),
        scope=part.scope,
        unit=part.policy.limit.unit,
        limit=part.limit,
        remaining=part.remaining,
        reset_after=part.reset_after,
        retry_after=part.retry_after,
        over=bool(part.over),
    )
