"""RateLimit: a dependency that limits the routes it stands on, with nothing else to set up."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature, isfunction, signature
from typing import Any, get_args

from fastapi import Depends, HTTPException, Response, params
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.escalation import Escalate
from asgi_ratelimit.fastapi.bucket_names import Claim, bucket_name
from asgi_ratelimit.fastapi.refusals import refusal, unavailable
from asgi_ratelimit.fastapi.resources import PerSource, per_functions, resource_of
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.fastapi.wrapped import WrappedApp
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.inbound.client_ip import by_ip
from asgi_ratelimit.inbound.default_store import store_of_app
from asgi_ratelimit.inbound.guard import KEY_FUNCTION, NONE_RESOLVED, RequestGuard
from asgi_ratelimit.inbound.headers import HeaderStyle, check_style
from asgi_ratelimit.inbound.holding import ClientGone, Gone
from asgi_ratelimit.inbound.keyed_limits import LimitSource, by
from asgi_ratelimit.inbound.keys import by_user_or_ip
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import (
    ASGIApplication,
    CostSource,
    ExemptSource,
    KeyFunction,
    LimitedHandler,
    check_responders,
)
from asgi_ratelimit.inbound.plain_default import NoPlainDefault
from asgi_ratelimit.inbound.request_end import release_at_end
from asgi_ratelimit.inbound.request_filter import request_filter
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.request_state import STATE, RefundRule, RequestState, merge_headers, state_of
from asgi_ratelimit.inbound.route_names import route_template
from asgi_ratelimit.inbound.settling import Origin
from asgi_ratelimit.limiter import check_used
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimit", "rate_limit"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_ROUTES = 4096
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class RateLimit(NoPlainDefault):
    """A dependency: `dependencies=[Depends(RateLimit("5/5s"))]`, or `Annotated[Decision, Depends(...)]`.

    limit: as for RateLimitMiddleware; "5/5s" by default. The key of `by` may be another dependency
    key: a function of the connection, or another dependency (`key=Depends(current_user)`) that returns a str, int or
        UUID, or an object or dict with one of these as `identity`, `id` or `sub`; None counts a visitor by address
    cost: a whole number, a function of the connection, or an Estimate of what `settle` will say
    per: path parameters that have buckets of their own, as Discord's major parameters do. There is one bucket per value
        that the endpoint gets. A dict of functions gives several values one bucket: `per={"email": str.casefold}`
    name: routes with the same name share their buckets; the path template by default, with a number behind it for
        other limits of the same path that would share buckets
    store: its own, else the middleware's, else one in `app.state`
    exempt: paths of the app that are not counted, or a function of the connection
    only: the only paths that are counted, or a function
    methods: the HTTP methods that are counted, e.g. ("POST",); all by default
    refund: a function of the response's status; the charge is given back if it returns true. It needs a
        RateLimitMiddleware in the app, which sees the responses (`limit=None` will do)
    enforce: False is shadow mode: requests are counted and reported, but never refused
    escalate: an Escalate: a key that gets many refusals is blocked for this limit, each time for longer
    max_wait: seconds for which a request may be held instead of refused
    headers: "discord", "ietf", "both" or None
    on_limited: a function of the connection and the decision that returns the response to a refused request

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
        per: PerSource = (),
        name: str | None = None,
        store: Store | None = None,
        exempt: ExemptSource = (),
        only: ExemptSource | None = None,
        methods: Iterable[str] = (),
        refund: RefundRule | None = None,
        enforce: bool = True,
        escalate: Escalate | None = None,
        max_wait: float = 0.0,
        headers: HeaderStyle | None = "discord",
        on_limited: LimitedHandler | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f'the name of a limit is a string such as "search", not {name!r}')
        check_responders(refund, on_limited)
        check_store(store)
        _check_no_dependency(key)
        depends = key if isinstance(key, params.Depends) else None
        key_function = by_user_or_ip if isinstance(key, params.Depends) else key
        self._warn_once = WarnOnce()
        self._guard = RequestGuard(
            limit,
            key_function,
            cost,
            self._warn_once,
            max_wait=max_wait,
            enforce=enforce,
            escalate=escalate,
            visitors=by_ip.of if depends else None,
            resolves_keys=True,
        )
        self._depended = _dependencies(self._guard.sources or ())
        self._per, self._name, self._own_store = per_functions(per), name, store
        self._claim = Claim.of(limit, self._guard.fixed) if name is None and limit is not None else None
        self._spare_store: Store | None = None
        self._app_store: tuple[object, Store | None] = None, None  # the last app, and its store
        self._filter = request_filter(exempt, only, methods)
        self._refund, self._style, self._on_limited = refund, check_style(headers), on_limited
        self._limiters: OrderedDict[tuple[int, str], LimiterCache] = OrderedDict()
        self.__signature__ = _signature(depends, self._depended)
        self._depends_key = depends is not None
        self._guard.diagnostics.check_call_site(
            "its buckets may be new each time; make the RateLimit once, beside the route"
        )

    async def __call__(
        self, conn: HTTPConnection, response: Response, key: object = KEY_FUNCTION, **keys: object
    ) -> Decision | None:
        """Let the request pass, or raise RateLimited. None: nothing limits it."""
        scope, guard = conn.scope, self._guard
        state = scope.get(STATE)
        if state is None:
            state = scope[STATE] = RequestState()
        limiters = self._limiters_for(scope, state)
        if self._filter is not None and not await self._filter.counts(scope):
            limiters.report_exempt()
            return None
        per = self._resource(scope) if self._per else ""
        gone = _watch(conn) if guard.may_wait else None
        resolved = {source: keys[name] for name, source in self._depended.items()} if self._depended else NONE_RESOLVED
        try:
            decision = await guard.check(scope, limiters, state, per, gone, conn, key, resolved)
        except ClientGone:
            raise HTTPException(499, "The client has left.") from None  # nginx's status; no client reads it
        except StoreUnavailable as error:
            logger.debug("a request is answered with 503: %s", error)  # the store itself has logged the outage, once
            await state.undo()
            raise unavailable(conn) from error
        if decision is None:
            return None
        if not decision.allowed and guard.enforce:
            headers = state.headers(self._style, limiters.store.clock.wall())
            raise refusal(conn, decision, headers, self._on_limited, guard.diagnostics.warn_of_response)
        if state.slots and not state.is_watched:
            release_at_end(scope, state, guard.diagnostics.warn)
        limiter = state.limiter_of(decision)
        if limiter is not None:
            decision.origin = Origin(guard, limiter, state, scope)
        if self._refund is not None and decision.allowed:
            self._refund_by_status(state, decision, self._refund)
        if state.style is None and self._style is not None:
            headers, others = state.headers(self._style, limiters.store.clock.wall()), response.raw_headers
            if others:
                headers = merge_headers(others if len(state.charges) == 1 else _foreign(others), headers)
                others.clear()
            others += headers
        return decision

    async def settle(self, decision: Decision | None, used: int) -> None:
        """Make the charge of a decision the real cost of the request, once: less is given back, more is owed.

        In an endpoint, in a stream after its end, in a background task or later. `decision` is what `Depends(limit)`
        has returned; None, as of a request that nothing limits, and one that was charged nothing are left alone. A
        response that has not started reports its bucket so, if the app has a RateLimitMiddleware. Raises ValueError if
        `used` is no whole number from 0, or the decision is another limit's.
        """
        check_used(used)
        if decision is None or not decision.allowed:
            return
        origin = decision.origin
        if not isinstance(origin, Origin) or origin.guard is not self._guard:
            raise ValueError(
                f"{decision!r} is no decision of this RateLimit about a request: settle what Depends(limit) has "
                "returned to the endpoint, with the same limit"
            )
        if decision.is_charged:
            await origin.settle(decision, used)

    async def refund(self, decision: Decision | None) -> None:
        """Give back the charge of a decision: the request has cost nothing. The same as `settle(decision, 0)`."""
        await self.settle(decision, 0)

    async def peek(self, conn: HTTPConnection, key: object = KEY_FUNCTION) -> Decision | None:
        """The decision that this request would get here, without a charge. None: nothing limits it.

        `key` is the user of a limit with `key=Depends(...)`; without it that is a ValueError. Raises StoreUnavailable
        during an outage that fails closed.
        """
        if self._depends_key and key is KEY_FUNCTION:
            raise ValueError(
                "the key of this limit is a dependency: write peek(conn, user), with the user of the caller"
            )
        if self._depended:
            raise ValueError("some keys of this limit are dependencies, by(Depends(...)), which peek cannot resolve")
        if self._filter is not None and not await self._filter.counts(conn.scope):
            return None
        limiters = self._limiters_for(conn.scope, state_of(conn.scope))
        per = self._resource(conn.scope) if self._per else ""
        return await self._guard.peek(conn, limiters, per, key)

    @property
    def claim(self) -> Claim | None:
        """What it needs buckets for on a path; None: it has a name, or nothing to count."""
        return self._claim

    @property
    def unit(self) -> str | None:
        """The unit of its limits, if all of them have one unit."""
        units = {limit.unit for limit in self._guard.fixed or ()}
        return units.pop() if len(units) == 1 else None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The path parameters that have buckets of their own."""
        return tuple(self._per)

    @property
    def needs_user(self) -> bool:
        """Whether the key is a dependency, or one of the keys."""
        return self._depends_key or bool(self._depended)

    def wrap(self, app: ASGIApplication) -> WrappedApp:
        """The app behind this limit, which decides before a body is read. Routes of the same name share its buckets.

        `Middleware(search_limit.wrap)` is a middleware of one route or of one mounted app. Raises ValueError if `key=`
        is a dependency, as nothing resolves it there.
        """
        if self.needs_user:
            raise ValueError(
                "key=Depends(...) needs a route, as does by(Depends(...)); give it a function such as by_ip for wrap"
            )
        return WrappedApp(
            app,
            self._guard,
            limit=self,
            limiters_for=self._limiters_for,
            resource_of=self._resource if self._per else None,
            request_filter=self._filter,
            refund=self._refund,
            style=self._style,
            on_limited=self._on_limited,
        )

    def replaces_default(self, scope: Scope) -> bool:
        """Whether a `RateLimitMiddleware(default=True)` leaves the request to this limit."""
        return self._filter is None or self._filter.replaces_default(scope)

    def may_count(self, method: str, path: str) -> bool:
        """Whether requests of this method and path are counted, unless a function of the user's decides otherwise."""
        return self._filter is None or self._filter.may_count(method, path)

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The 429, for a route's `responses=`."""
        return {429: documented_429(self.unit)}

    def _limiters_for(self, scope: Scope, state: RequestState) -> LimiterCache:
        store = self._own_store
        if store is None:
            store = state.store
            if store is None:
                app, store = self._app_store
                if store is None or app is not scope.get("app"):
                    store = self._store_of_app(scope)
        template = route_template(scope) or "/"
        place = id(store), template  # a store need not be hashable; its LimiterCache keeps it alive
        limiters = self._limiters.get(place)
        if limiters is None:
            name = self._name or bucket_name(self, scope, template)
            limiters = LimiterCache(
                store,
                name,
                self._guard.fixed,
                global_name=self._name or "routes",
                escalate=self._guard.escalate,
            )
            if self._name:  # several limits of one route are no mistake
                limiters.introduce(self._warn_once)
            self._limiters[place] = limiters
            if len(self._limiters) > _MOST_ROUTES:
                self._limiters.popitem(last=False)
            self._guard.diagnostics.check_workers(store)
        return limiters

    def _store_of_app(self, scope: Scope) -> Store:
        """The store that the app keeps. Without any app in the scope, a wrapped one keeps it for itself."""
        store = store_of_app(scope)
        if store is None:
            if self._spare_store is None:
                self._spare_store = MemoryStore()
            return self._spare_store
        if "app" in scope:
            self._app_store = scope["app"], store
        return store

    def _resource(self, scope: Scope) -> str:
        return resource_of(scope, self._per, self._warn_of_parameter)

    def _warn_of_parameter(self, name: str) -> None:
        self._guard.diagnostics.warn("ARL109", f"the path has no {{{name}}}; the resource is left out of the bucket")

    def _refund_by_status(self, state: RequestState, decision: Decision, refund: RefundRule) -> None:
        if state.is_watched:
            state.refunds += ((decision, refund),)
        else:
            self._guard.diagnostics.warn(
                "ARL117", "nothing sees the status of the response; add RateLimitMiddleware(limit=None) to the app"
            )


def _check_no_dependency(key: object) -> None:
    """Raises ValueError for a dependency without its Depends: what it depends on would be missing."""
    marks = []
    if isfunction(key):
        try:
            parameters = signature(key, eval_str=True).parameters
        except Exception:  # an annotation for type checkers only
            parameters = signature(key).parameters
        marks = [mark for one in parameters.values() for mark in (one.default, *get_args(one.annotation))]
    if key is Depends or any(isinstance(mark, params.Depends | params.Param) for mark in marks):
        raise ValueError(f"a dependency as the key is written key=Depends(current_user), not {key!r}")


def _watch(conn: HTTPConnection) -> Gone | None:
    """A function that returns when the client has left. None: a body may follow, which the endpoint has to receive."""
    if not isinstance(conn, Request) or any(name in _BODY_HEADERS for name, _ in headers_of(conn.scope)):
        return None

    async def gone() -> None:
        await conn.body()  # empty; the request keeps it for the endpoint
        while (await conn.receive())["type"] != "http.disconnect":
            pass

    return gone


def _foreign(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the headers of an earlier limit of the same request."""
    return [header for header in headers if not header[0].startswith((b"x-ratelimit-", b"ratelimit"))]


def _dependencies(sources: Iterable[by | None]) -> dict[str, by]:
    """The keys that are dependencies, by the names of the parameters in which FastAPI injects them."""
    dependencies = dict.fromkeys(source for source in sources if source is not None and source.is_dependency)
    for source in dependencies:
        if not isinstance(source.key, params.Depends):
            raise ValueError(f"a dependency as a key is written by(Depends(account), ...), not {source!r}")
    return {f"key_{place}": source for place, source in enumerate(dependencies, start=1)}


def _signature(depends: params.Depends | None, others: Mapping[str, by]) -> Signature:
    """The parameters that FastAPI injects."""
    names: list[tuple[str, Any, Any]] = [
        ("conn", HTTPConnection, Parameter.empty),
        ("response", Response, Parameter.empty),
    ]
    if depends is not None:
        names.append(("key", Any, depends))
    names += [(name, Any, source.key) for name, source in others.items()]
    return Signature(
        [Parameter(n, Parameter.KEYWORD_ONLY, annotation=kind, default=default) for n, kind, default in names]
    )


rate_limit = RateLimit()  # ready to use: 5 per 5 s
