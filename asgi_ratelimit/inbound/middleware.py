"""The ASGI door: one middleware for every request and every WebSocket of an app."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

from asgi_ratelimit.escalation import Escalate
from asgi_ratelimit.events import Event, EventKind, observers_of
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.inbound.default_store import store_of_app
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.headers import HeaderStyle
from asgi_ratelimit.inbound.keyed_limits import LimitSource
from asgi_ratelimit.inbound.keys import by_user_or_ip
from asgi_ratelimit.inbound.lifespan import run_lifespan
from asgi_ratelimit.inbound.limited_app import LimitedApp
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import (
    ASGIApplication,
    CostSource,
    ExemptSource,
    KeyFunction,
    LimitedHandler,
)
from asgi_ratelimit.inbound.request_filter import request_filter
from asgi_ratelimit.inbound.request_state import RefundRule
from asgi_ratelimit.inbound.settling import SettleRule
from asgi_ratelimit.inbound.websocket import LimitedSocket
from asgi_ratelimit.limits import LimitSpec, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.off_switch import OFF_SWITCH
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware(LimitedApp):
    """Limits an ASGI app: `app.add_middleware(RateLimitMiddleware, limit="100/minute")`.

    limit: a string, a limit, a list of them (all or nothing), a function of the connection that returns one of
        these, None for no limit, or 0 to refuse everything. Limits of a list may have a key of their own, with `by`
    key: a function of the connection that returns the key of a request
    cost: a whole number, or a function of the connection; a cost of 0 is not counted
    store: by default the MemoryStore of the app that it is part of; the app's routes use it too
    name: the name of its buckets, "app"
    exempt: paths of the app that are not counted, or a function of the connection. `*` is one segment, `**` any number
        of them, and a `*` at the end is all below it
    only: the only paths that are counted, or a function; `exempt` makes exceptions from them
    methods: the HTTP methods that are counted, e.g. ("POST",); all by default
    default: whether a route with a RateLimit of its own, or `Depends(exempt)`, is left to that
    refund: a function of the response's status; the charge is given back if it returns true. It sees 500 for an
        exception and 504 for a request that is cancelled
    settle: a function of what was `Served` that returns the real cost of the request, once its response has ended.
        Its charge becomes that. If the function fails, the charge stays as it was
    enforce: False is shadow mode: requests are counted and reported, but never refused
    escalate: an Escalate: a key that gets many refusals is blocked, each time for longer
    max_wait: seconds for which a request may be held instead of refused
    headers: "discord", "ietf", "both" or None
    on_limited: a function of the connection and the decision that returns the response to a refused request
    messages: a limit for the frames that one WebSocket may send

    All functions may be sync or async. An exception that they raise is passed on, except for one of `settle`, which is
    logged. Raises ValueError if an option is out of range, or if there are both `refund` and `settle`.
    """

    store: Store

    @explains_foreign_options
    def __init__(
        self,
        app: ASGIApplication,
        *,
        limit: LimitSource,
        key: KeyFunction = by_user_or_ip,
        cost: CostSource = 1,
        store: Store | None = None,
        name: str = "app",
        exempt: ExemptSource = (),
        only: ExemptSource | None = None,
        methods: Iterable[str] = (),
        default: bool = False,
        refund: RefundRule | None = None,
        settle: SettleRule | None = None,
        enforce: bool = True,
        escalate: Escalate | None = None,
        max_wait: float = 0.0,
        headers: HeaderStyle | None = "discord",
        on_limited: LimitedHandler | None = None,
        messages: LimitSpec | None = None,
    ) -> None:
        check_store(store)
        warn_once = WarnOnce()
        guard = RequestGuard(limit, key, cost, warn_once, max_wait=max_wait, enforce=enforce, escalate=escalate)
        super().__init__(
            app,
            guard,
            store=MemoryStore() if store is None else store,
            request_filter=request_filter(exempt, only, methods, default=default, app=app),
            refund=refund,
            settle=settle,
            style=headers,
            on_limited=on_limited,
        )
        self._has_own_store = store is not None
        self._name, self._limiters = name, LimiterCache(self.store, name, guard.fixed, escalate=escalate)
        self._limiters.introduce(warn_once)
        guard.check_limiter(self._limiters.fixed)
        self._messages = None if messages is None else as_limits(messages)
        guard.diagnostics.check_call_site("its buckets are new each time and limit nothing; make it once, with the app")
        if limit is not None:
            guard.diagnostics.check_cors(app)

    def begin(self, scope: Scope) -> None:
        """Use the store of the app, unless there is another. A framework may build one middleware for each route."""
        shared = None if self._has_own_store else store_of_app(scope, lambda: self.store)
        if shared is not None and shared is not self.store:
            self.store = shared
            self._limiters = LimiterCache(shared, self._name, self._guard.fixed, escalate=self._guard.escalate)
        self._guard.diagnostics.check_workers(self.store)

    async def pass_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and type(self.store) is not MemoryStore:
            await run_lifespan(self.app, self.store, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def watch_frames(self, receive: Receive, send: Send) -> tuple[Receive, Send]:
        if self._messages is None:
            return receive, send
        socket = LimitedSocket(self._messages, self.store.clock, receive, send, self._too_many_frames)
        return socket.receive, socket.send

    def _too_many_frames(self) -> bool:
        if OFF_SWITCH.is_off:
            return False
        if not self._guard.enforce:
            self._guard.tally(f"messages={self._messages}", self.store.clock)
        kind: EventKind = "limited" if self._guard.enforce else "shadow"
        observers_of(self.store).emit(Event(kind, f"{self._name}:messages"))
        return self._guard.enforce


# An instance that was passed to add_middleware is called with the app alone. Python's TypeError says so by this name.
LimitedApp.__call__.__qualname__ = "RateLimitMiddleware (write add_middleware(RateLimitMiddleware, limit=...))"
