"""The ASGI door: one middleware for every request and every WebSocket of an app."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from inspect import isawaitable

from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.headers import HeaderStyle, check_style
from asgi_ratelimit.inbound.holding import ClientGone, ReadAhead
from asgi_ratelimit.inbound.keys import by_user_or_ip
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import (
    ASGIApplication,
    CostSource,
    ExemptSource,
    KeyFunction,
    LimitedHandler,
    LimitSource,
)
from asgi_ratelimit.inbound.request_state import STATE, RequestState, app_path, give_back, merge_headers
from asgi_ratelimit.inbound.responses import LimitedResponse, UnavailableResponse, can_only_close
from asgi_ratelimit.inbound.websocket import LimitedSocket
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import LimitSpec, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.off_switch import OFF_SWITCH
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimitMiddleware"]

logger = logging.getLogger("asgi_ratelimit")


class RateLimitMiddleware:
    """Limits an ASGI app: `app.add_middleware(RateLimitMiddleware, limit="100/minute")`.

    limit: a string, a limit, a list of them (all or nothing), a function of the connection that returns one of
        these, None for no limit, or 0 to refuse everything
    key: a function of the connection that returns the key of a request
    cost: a whole number, or a function of the connection; a cost of 0 is not counted
    store: a MemoryStore of its own by default; the app's routes use it too
    name: the name of its buckets, "app"
    exempt: paths of the app in which `*` stands for any text, or a function of the connection
    refund: a function of the response's status; the charge is given back if it returns true
    enforce: False is shadow mode: requests are counted and reported, but never refused
    max_wait: seconds for which a request may be held instead of refused
    headers: "discord", "ietf", "both" or None
    on_limited: a function of the connection and the decision that returns the response to a refused request
    messages: a limit for the frames that one WebSocket may send

    All functions may be sync or async, except `refund`. An exception that they raise is passed on.
    Raises ValueError if an option is out of range.
    """

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
        refund: Callable[[int], bool] | None = None,
        enforce: bool = True,
        max_wait: float = 0.0,
        headers: HeaderStyle | None = "discord",
        on_limited: LimitedHandler | None = None,
        messages: LimitSpec | None = None,
    ) -> None:
        for option, function in (("refund", refund), ("on_limited", on_limited)):
            if function is not None and not callable(function):
                raise ValueError(f"{option} must be a function or None, not {function!r}")
        check_store(store)
        self.app = app
        self.store: Store = MemoryStore() if store is None else store
        warn_once = WarnOnce()
        self._guard = RequestGuard(limit, key, cost, warn_once, max_wait=max_wait, enforce=enforce)
        self._limiters = LimiterCache(self.store, name, self._guard.fixed)
        self._limiters.introduce(warn_once)
        self._diagnostics = self._guard.diagnostics
        self._may_wait = self._guard.may_wait
        self._exempt = exempt if callable(exempt) else _path_pattern(exempt)
        self._refund, self._style, self._on_limited = refund, check_style(headers), on_limited
        self._messages = None if messages is None else as_limits(messages)
        self._has_started = False
        self._diagnostics.check_call_site("its buckets are new each time and limit nothing; make it once, with the app")
        if limit is not None:
            self._diagnostics.check_cors(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_started:
            self._has_started = True
            self._diagnostics.check_workers(self.store)
        if scope["type"] not in ("http", "websocket"):
            if scope["type"] == "lifespan" and not isinstance(self.store, MemoryStore):
                receive, send = self._lifespan_channels(receive, send)
            await self.app(scope, receive, send)
            return
        state, receive, send = self._channels(scope, receive, send)
        may_be_exempt = self._exempt is not None or scope.get("method") == "OPTIONS"
        if self._guard.unlimited or (may_be_exempt and await self._is_exempt(scope)):
            await self.app(scope, receive, send)
            return
        had_user = "user" in scope
        ahead = ReadAhead(receive) if self._may_wait else None
        try:
            decision = await self._guard.check(scope, self._limiters, state, gone=ahead.gone if ahead else None)
        except ClientGone:
            return
        except StoreUnavailable as error:
            logger.debug("a request is answered with 503: %s", error)  # the store itself has logged the outage, once
            await UnavailableResponse()(scope, receive, send)
            return
        state.middleware_count = len(state.decisions)
        if ahead is not None:
            receive = ahead.receive
        if decision is not None and not decision.allowed and self._guard.enforce:
            await self._refuse(decision, scope, receive, send)
            return
        if self._refund is None or decision is None:
            await self.app(scope, receive, send)
        else:
            await self._pass_on(state.limiters[-1], decision, self._refund, scope, receive, send)
        if not had_user and "user" in scope and self._diagnostics.awaits_user and decision is not None:
            self._diagnostics.warn_of_late_user()

    def _channels(self, scope: Scope, receive: Receive, send: Send) -> tuple[RequestState, Receive, Send]:
        """The request's state, and its channels with the additions of this door."""
        state: RequestState | None = scope.get(STATE)
        if state is None:
            state = scope[STATE] = RequestState()
        state.store = self.store
        channels = receive, send
        if state.style is None and self._style is not None:
            state.style = style = self._style
            wall, noted = self.store.clock.wall, state

            async def write(message: Message) -> None:
                """Put the headers on the start of a response, or on an accepted WebSocket."""
                if message["type"] in _STARTS and noted.decisions:
                    ours = noted.headers(style, wall())
                    message = {**message, "headers": merge_headers(message.get("headers") or (), ours)}
                await send(message)

            channels = receive, write
        if self._messages is not None and scope["type"] == "websocket":
            socket = LimitedSocket(self._messages, self.store.clock, *channels, self._too_many_frames)
            channels = socket.receive, socket.send
        if type(scope.get("headers")) is not list:  # any iterable will do for ASGI, but it is read more than once
            scope["headers"] = list(scope.get("headers") or ())
        return state, *channels

    def _lifespan_channels(self, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """The channels of the app's lifespan. The store starts before the app does, and closes after it."""

        async def receive_after_start() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.store.start()
                except StoreUnavailable as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def send_after_close(message: Message) -> None:
            if message["type"] != "lifespan.startup.complete":
                await self.store.aclose()
            await send(message)

        return receive_after_start, send_after_close

    async def _pass_on(
        self,
        limiter: Limiter,
        decision: Decision,
        refund: Callable[[int], bool],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        status = 0

        async def send_and_refund(message: Message) -> None:
            nonlocal status
            if not status and (status := _status(message)) and refund(status):
                await give_back(limiter, decision)
            await send(message)

        try:
            await self.app(scope, receive, send_and_refund)
        except Exception:
            if not status and refund(500):
                await give_back(limiter, decision)
            raise

    async def _refuse(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        response: object = None
        if self._on_limited is not None and not can_only_close(scope):
            response = self._on_limited(HTTPConnection(scope), decision)
            if isawaitable(response):
                response = await response
            if not callable(response):
                self._diagnostics.warn(
                    "ARL204", f"it must return a Response, not {response!r:.80}; Discord's 429 is sent instead"
                )
        await (response if callable(response) else LimitedResponse(decision))(scope, receive, send)

    def _too_many_frames(self) -> bool:
        if OFF_SWITCH.is_off:
            return False
        if not self._guard.enforce:
            self._guard.tally(f"messages={self._messages}", self.store.clock)
        return self._guard.enforce

    async def _is_exempt(self, scope: Scope) -> bool:
        if scope.get("method") == "OPTIONS" and _is_preflight(scope):
            return True
        if callable(self._exempt):
            exempt = self._exempt(HTTPConnection(scope))
            return bool(await exempt if isawaitable(exempt) else exempt)
        return self._exempt is not None and self._exempt.fullmatch(app_path(scope)) is not None


# An instance that was passed to add_middleware is called with the app alone. Python's TypeError says so by this name.
RateLimitMiddleware.__call__.__qualname__ = "RateLimitMiddleware (write add_middleware(RateLimitMiddleware, limit=...))"


def _is_preflight(scope: Scope) -> bool:
    """A browser's question before a cross-origin request (Fetch standard, CORS-preflight request)."""
    names = {name for name, _ in scope.get("headers", ())}
    return b"origin" in names and b"access-control-request-method" in names


_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))


def _status(message: Message) -> int:
    """The status of a response that starts with this message, else 0. The accept of a WebSocket is its 101."""
    if message["type"] == "websocket.accept":
        return 101
    if message["type"] == "websocket.close":
        return 403  # before it was accepted, that is
    return int(message["status"]) if message["type"] in _STARTS else 0


def _path_pattern(paths: Iterable[str]) -> re.Pattern[str] | None:
    paths = tuple(paths) if not isinstance(paths, str) else (paths,)
    for path in paths:
        if not isinstance(path, str) or not path.startswith(("/", "*")):
            raise ValueError(f'an exempt path looks like "/health" or "/static/*", not {path!r}')
    return re.compile("|".join(re.escape(path).replace(r"\*", ".*") for path in paths), re.DOTALL) if paths else None
