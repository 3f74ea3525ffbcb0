"""RateLimit: a dependency that limits the routes it stands on, with nothing else to set up."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from inspect import Parameter, Signature
from typing import Any
from uuid import UUID

from fastapi import HTTPException, Response, params
from fastapi.exception_handlers import http_exception_handler
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.fastapi.route_names import route_template
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.inbound.guard import KEY_FUNCTION, RequestGuard
from asgi_ratelimit.inbound.headers import HeaderStyle, check_style
from asgi_ratelimit.inbound.holding import ClientGone, Gone
from asgi_ratelimit.inbound.keys import by_user_or_ip
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import CostSource, KeyFunction, LimitSource
from asgi_ratelimit.inbound.plain_default import NoPlainDefault
from asgi_ratelimit.inbound.request_state import RequestState, merge_headers, state_of
from asgi_ratelimit.inbound.responses import VIA, LimitedResponse, UnavailableResponse
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimit", "rate_limit"]

logger = logging.getLogger("asgi_ratelimit")

_STORE = "ratelimit_store"  # its name in `app.state`, in an app without the middleware
_MOST_ROUTES = 4096
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class RateLimit(NoPlainDefault):
    """A dependency: `dependencies=[Depends(RateLimit("5/5s"))]`, or `Annotated[Decision, Depends(...)]`.

    limit: as for RateLimitMiddleware; "5/5s" by default
    key: a function of the connection, or another dependency (`key=Depends(current_user)`) that returns a str, int or
        UUID, or an object or dict with one of these as `identity`, `id` or `sub`
    cost: a whole number, or a function of the connection
    per: path parameters that have buckets of their own, as Discord's major parameters do
    name: routes with the same name share their buckets; the path template by default
    store: its own, else the middleware's, else one in `app.state`
    enforce: False is shadow mode: requests are counted and reported, but never refused
    max_wait: seconds for which a request may be held instead of refused
    headers: "discord", "ietf", "both" or None

    There is one bucket per path template and key. A refusal raises RateLimited. It is answered with Discord's 429
    unless the app has a handler of its own for RateLimited, 429 or HTTPException. Raises ValueError if an option is out
    of range.
    """

    @explains_foreign_options
    def __init__(
        self,
        limit: LimitSource = "5/5s",
        *,
        key: KeyFunction | params.Depends = by_user_or_ip,
        cost: CostSource = 1,
        per: Iterable[str] = (),
        name: str | None = None,
        store: Store | None = None,
        enforce: bool = True,
        max_wait: float = 0.0,
        headers: HeaderStyle | None = "discord",
    ) -> None:
        if isinstance(per, str):
            raise ValueError(f'per is a list of path parameters such as ("channel_id",), not the string {per!r}')
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f'the name of a limit is a string such as "search", not {name!r}')
        check_store(store)
        depends = key if isinstance(key, params.Depends) else None
        key_function = by_user_or_ip if isinstance(key, params.Depends) else key
        self._warn_once = WarnOnce()
        self._guard = RequestGuard(limit, key_function, cost, self._warn_once, max_wait=max_wait, enforce=enforce)
        self._per, self._name, self._own_store = tuple(per), name, store
        self._style = check_style(headers)
        self._limiters: OrderedDict[tuple[int, str], LimiterCache] = OrderedDict()
        self.__signature__ = _signature(depends)
        self._guard.diagnostics.check_call_site(
            "its buckets may be new each time; make the RateLimit once, beside the route"
        )

    async def __call__(self, conn: HTTPConnection, response: Response, key: object = KEY_FUNCTION) -> Decision | None:
        """Let the request pass, or raise RateLimited. None if a limit function returned None."""
        state = state_of(conn.scope)
        limiters = self._limiters_for(conn, state)
        try:
            decision = await self._guard.check(
                conn.scope,
                limiters,
                state,
                conn=conn,
                key=key,
                per=self._resource(conn),
                gone=_watch(conn) if self._guard.may_wait else None,
            )
        except ClientGone:
            raise HTTPException(499, "The client has left.") from None  # nginx's status; no client reads it
        except StoreUnavailable as error:
            logger.debug("a request is answered with 503: %s", error)  # the store itself has logged the outage, once
            _use_own_responses(conn, _Unavailable)
            raise _Unavailable from error
        if decision is None:
            return None
        wall = limiters.store.clock.wall()
        if not decision.allowed and self._guard.enforce:
            _use_own_responses(conn, _Refused)
            raise _Refused(decision, _text([VIA, *state.headers(self._style, wall)]))
        if state.style is None and self._style is not None:
            others = response.raw_headers if len(state.decisions) == 1 else _foreign(response.raw_headers)
            response.raw_headers[:] = merge_headers(others, state.headers(self._style, wall))
        return decision

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The 429, for a route's `responses=`."""
        return {429: documented_429()}

    def _limiters_for(self, conn: HTTPConnection, state: RequestState) -> LimiterCache:
        store = state.store if self._own_store is None else self._own_store
        store = _store_of_app(conn) if store is None else store
        template = route_template(conn.scope)
        place = id(store), template  # a store need not be hashable; its LimiterCache keeps it alive
        limiters = self._limiters.get(place)
        if limiters is None:
            limiters = LimiterCache(
                store, self._name or template, self._guard.fixed, global_name=self._name or "routes"
            )
            if self._name:  # several limits of one route are no mistake
                limiters.introduce(self._warn_once)
            self._limiters[place] = limiters
            if len(self._limiters) > _MOST_ROUTES:
                self._limiters.popitem(last=False)
            self._guard.diagnostics.check_workers(store)
        return limiters

    def _resource(self, conn: HTTPConnection) -> str:
        if not self._per:
            return ""
        values = conn.scope.get("path_params", {})
        for name in self._per:
            if name not in values:
                self._guard.diagnostics.warn(
                    "ARL109", f"the path has no {{{name}}}; the resource is left out of the bucket"
                )
        texts = [_canonical(values.get(name, "")) for name in self._per]
        return texts[0] if len(texts) == 1 and texts[0] else "".join(f"{len(text)}:{text}" for text in texts)


def _watch(conn: HTTPConnection) -> Gone | None:
    """A function that returns when the client has left. None: a body may follow, which the endpoint has to receive."""
    if not isinstance(conn, Request) or any(name in _BODY_HEADERS for name, _ in conn.scope["headers"]):
        return None

    async def gone() -> None:
        await conn.body()  # empty; the request keeps it for the endpoint
        while (await conn.receive())["type"] != "http.disconnect":
            pass

    return gone


class _Refused(RateLimited, HTTPException):
    """A refusal. It is both, so that a handler for either of them, or for 429, gets it."""

    headers: dict[str, str]

    def __init__(self, decision: Decision, headers: dict[str, str]) -> None:
        HTTPException.__init__(self, 429, detail="You are being rate limited.", headers=headers)
        RateLimited.__init__(self, decision)


class _Unavailable(StoreUnavailable, HTTPException):
    """An outage that fails closed. It is both, so that a handler for either of them, or for 503, gets it."""

    def __init__(self) -> None:
        HTTPException.__init__(self, 503, detail="The rate limiter cannot answer.", headers={"retry-after": "1"})


def _use_own_responses(conn: HTTPConnection, kind: type[_Refused | _Unavailable]) -> None:
    """Answer this kind of exception ourselves, unless the app has a handler of its own for it."""
    handlers, status_handlers = conn.scope.get("starlette.exception_handlers", ({}, {}))
    handler = next((handlers[base] for base in kind.__mro__ if base in handlers), None)
    is_default = (
        handler is http_exception_handler or getattr(handler, "__func__", None) is ExceptionMiddleware.http_exception
    )
    if is_default and (429 if kind is _Refused else 503) not in status_handlers:
        handlers[kind] = _respond


async def _respond(conn: HTTPConnection, error: Exception) -> Response:
    if not isinstance(error, _Refused):
        return UnavailableResponse()
    response = LimitedResponse(error.decision)
    if state_of(conn.scope).style is None:  # else the middleware writes them
        ours = [(name.encode("ascii"), value.encode("ascii")) for name, value in (error.headers or {}).items()]
        response.raw_headers = merge_headers(response.raw_headers, [header for header in ours if header != VIA])
    return response


def _text(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("ascii") for name, value in headers}


def _foreign(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the headers of an earlier limit of the same request."""
    return [header for header in headers if not header[0].startswith((b"x-ratelimit-", b"ratelimit"))]


def _signature(depends: params.Depends | None) -> Signature:
    """The parameters that FastAPI injects."""
    names: list[tuple[str, Any, Any]] = [
        ("conn", HTTPConnection, Parameter.empty),
        ("response", Response, Parameter.empty),
    ]
    if depends is not None:
        names.append(("key", Any, depends))
    return Signature(
        [Parameter(n, Parameter.KEYWORD_ONLY, annotation=kind, default=default) for n, kind, default in names]
    )


def _store_of_app(conn: HTTPConnection) -> Store:
    state = conn.scope["app"].state
    store: Store | None = getattr(state, _STORE, None)
    if store is None:
        store = MemoryStore()
        setattr(state, _STORE, store)
    return store


def _canonical(value: object) -> str:
    """One spelling for each resource: FastAPI reads "007", "7.0" and "7" as one int, and a UUID in any form."""
    text = str(value)
    whole, _, zeros = text.strip().partition(".")
    for spelled in (text if zeros.strip("0") else whole, _hex(text)):
        try:
            return str(int(spelled))
        except ValueError:
            continue
    return _hex(text) or text


def _hex(text: str) -> str:
    """The 32 digits of a UUID, "" for anything else. One without letters may be a number as well."""
    try:
        return UUID(text).hex
    except ValueError:
        return ""


rate_limit = RateLimit()  # ready to use: 5 per 5 s
