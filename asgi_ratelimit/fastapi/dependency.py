"""The FastAPI door: a dependency that limits the routes it stands on, with nothing else to set up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from typing import Any
from uuid import UUID

from fastapi import HTTPException, Response, params
from fastapi.exception_handlers import http_exception_handler
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection

from asgi_ratelimit.call_site import inside_a_request
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.fastapi.route_names import route_template
from asgi_ratelimit.inbound.guard import ASK, Gate, Limiters
from asgi_ratelimit.inbound.headers import HeaderStyle, checked_style
from asgi_ratelimit.inbound.keys import KeyFunction, by_user_or_ip
from asgi_ratelimit.inbound.request_state import Ledger, ledger_of, merged
from asgi_ratelimit.inbound.responses import VIA, LimitedResponse
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimit", "rate_limit"]

_STORE = "ratelimit_store"  # where an app without the middleware keeps its store, in app.state
_MOST_ROUTES = 4096


class RateLimit:
    """A dependency: `dependencies=[Depends(RateLimit("5/5s"))]`, or `Annotated[Decision, Depends(...)]`.

    One bucket per path template and key; `per` adds path parameters, as Discord's major parameters do; routes
    with the same `name` share. `key` is a function of the connection, or another dependency
    (`key=Depends(current_user)`) that gives a str, int or UUID, or an object or dict with one of those as
    `identity`, `id` or `sub`. `store` is its own, else the middleware's, else one in `app.state`. Other options as for
    RateLimitMiddleware. A refusal raises RateLimited, answered with Discord's 429 unless the app has a handler
    of its own for RateLimited, 429 or HTTPException.
    """

    def __init__(
        self,
        limit: Any = "5/5s",
        *,
        key: KeyFunction | params.Depends = by_user_or_ip,
        cost: int | Callable[[HTTPConnection], Any] = 1,
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
        self._notices = WarnOnce()
        depends = key if isinstance(key, params.Depends) else None
        self._gate = Gate(limit, by_user_or_ip if depends else key, cost, max_wait, self._notices)  # type: ignore[arg-type]
        self._per, self._name, self._own_store = tuple(per), name, store
        self._enforce, self._style = enforce, checked_style(headers)
        self._limiters: OrderedDict[tuple[Store, str], Limiters] = OrderedDict()
        self.__signature__ = _signature(depends)
        if inside_a_request():
            self._notices.warn("ARL106", "its buckets may be new each time; make the RateLimit once, beside the route")

    async def __call__(self, conn: HTTPConnection, response: Response, key: Any = ASK) -> Decision | None:
        """Let the request pass, or raise RateLimited. None where a limit function said there is no limit."""
        ledger = ledger_of(conn.scope)
        limiters = self._limiters_for(conn, ledger)
        try:
            decided = await self._gate.decide(conn.scope, limiters, conn=conn, key=key, per=self._resource(conn))
        except StoreUnavailable as error:
            raise HTTPException(503, "The rate limiter cannot answer.", {"retry-after": "1"}) from error
        if decided is None:
            return None
        decision, limiter = decided
        if not ledger.add(decision, enforced=self._enforce):
            self._gate.warn_of_second_pass(limiter)
        if not decision.allowed:
            if self._enforce:
                raise self._refusal(conn, decision, ledger, limiter)
            self._gate.tally(repr(limiter), limiter.store.clock)
        if ledger.style is None and self._style is not None:
            ours = ledger.headers(self._style, limiter.store.clock.wall())
            others = response.raw_headers if len(ledger.decisions) == 1 else _foreign(response.raw_headers)
            response.raw_headers[:] = merged(others, ours)
        return decision

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The 429, for a route's `responses=`."""
        return {429: documented_429()}

    def _limiters_for(self, conn: HTTPConnection, ledger: Ledger) -> Limiters:
        store = ledger.store if self._own_store is None else self._own_store
        store = _store_of_app(conn) if store is None else store
        template = route_template(conn.scope)
        limiters = self._limiters.get((store, template))
        if limiters is None:
            limiters = Limiters(store, self._name or template, self._gate.fixed, global_name=self._name or "routes")
            if self._name:  # several limits of one route are no mistake
                limiters.introduce(self._notices)
            self._limiters[store, template] = limiters
            if len(self._limiters) > _MOST_ROUTES:
                self._limiters.popitem(last=False)
            self._gate.warn_of_workers(store)
        return limiters

    def _resource(self, conn: HTTPConnection) -> str:
        if not self._per:
            return ""
        found = conn.scope.get("path_params", {})
        for name in self._per:
            if name not in found:
                self._notices.warn("ARL109", f"the path has no {{{name}}}; the resource is left out of the bucket")
        texts = [_canonical(found.get(name, "")) for name in self._per]
        return texts[0] if len(texts) == 1 and texts[0] else "".join(f"{len(text)}:{text}" for text in texts)

    def _refusal(self, conn: HTTPConnection, decision: Decision, ledger: Ledger, limiter: Limiter) -> HTTPException:
        _answer_in_discords_words(conn)
        written = ledger.headers(self._style, limiter.store.clock.wall())
        return _Refused(decision, {name.decode("ascii"): value.decode("ascii") for name, value in [VIA, *written]})


class _Refused(RateLimited, HTTPException):
    """What a refusal raises: both, so that a handler for either of them, or for 429, gets it."""

    def __init__(self, decision: Decision, headers: dict[str, str]) -> None:
        HTTPException.__init__(self, 429, detail="You are being rate limited.", headers=headers)
        RateLimited.__init__(self, decision)


def _answer_in_discords_words(conn: HTTPConnection) -> None:
    """See to it that the app answers a refusal, unless it has a handler of its own for it."""
    handlers, status_handlers = conn.scope.get("starlette.exception_handlers", ({}, {}))
    found = next((handlers[kind] for kind in _Refused.__mro__ if kind in handlers), None)
    default = found is http_exception_handler or getattr(found, "__func__", None) is ExceptionMiddleware.http_exception
    if default and 429 not in status_handlers:
        handlers[_Refused] = _respond


async def _respond(conn: HTTPConnection, refused: Exception) -> Response:
    assert isinstance(refused, _Refused)
    response = LimitedResponse(refused.decision)
    if ledger_of(conn.scope).style is None:  # else the middleware writes them
        ours = [(name.encode("ascii"), value.encode("ascii")) for name, value in (refused.headers or {}).items()]
        response.raw_headers = merged(response.raw_headers, [header for header in ours if header != VIA])
    return response


def _foreign(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without what an earlier limit of the same request has written."""
    return [header for header in headers if not header[0].startswith((b"x-ratelimit-", b"ratelimit"))]


def _signature(depends: params.Depends | None) -> Signature:
    """What FastAPI injects."""
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
