"""An ASGI app behind a limit: what the middleware and a wrapped route have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from inspect import isawaitable
from typing import Any

from starlette.types import Receive, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.headers import HeaderStyle, check_style
from asgi_ratelimit.inbound.holding import ClientGone, ReadAhead
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import ASGIApplication, LimitedHandler, check_responders, connection
from asgi_ratelimit.inbound.preflight import check_preflight, is_preflight
from asgi_ratelimit.inbound.reporting import reporting, reporting_of_socket
from asgi_ratelimit.inbound.request_filter import NOTHING, RequestFilter
from asgi_ratelimit.inbound.request_state import STATE, RefundRule, RequestState, state_of
from asgi_ratelimit.inbound.responses import LimitedResponse, UnavailableResponse, can_only_close
from asgi_ratelimit.inbound.settling import SettleRule, Settling
from asgi_ratelimit.store import Store

__all__ = ["LimitedApp"]

logger = logging.getLogger("asgi_ratelimit")


class LimitedApp:
    """Asks the guard about each request and WebSocket. Then it calls the app, or answers in its place.

    store: of every request; None: `store_for` it
    request_filter: which requests are counted; None: all
    refund: a function of the response's status; the charge is given back if it returns true
    settle: a function of what was served that returns the real cost of the request
    style: of the headers
    on_limited: a function of the connection and the decision that returns the response to a refused request
    """

    def __init__(
        self,
        app: ASGIApplication,
        guard: RequestGuard,
        *,
        store: Store | None,
        request_filter: RequestFilter | None,
        refund: RefundRule | None,
        style: HeaderStyle | None,
        on_limited: LimitedHandler | None,
        settle: SettleRule | None = None,
    ) -> None:
        check_responders(refund, on_limited, settle)
        self.app = app
        self.store = store
        self._guard = guard
        self._filter = NOTHING if guard.unlimited else request_filter
        self._refund, self._style, self._on_limited = refund, check_style(style), on_limited
        self._settle = settle
        self._is_new = True
        self.resource_of: Callable[[Scope], str] | None = None
        self._limiters: LimiterCache | None = None  # of every request; None: `limiters_for` it

    def store_for(self, scope: Scope, state: RequestState) -> Store:
        """The store of one request."""
        raise NotImplementedError

    def limiters_for(self, scope: Scope, state: RequestState) -> LimiterCache:
        """The limiters of one request."""
        raise NotImplementedError

    def begin(self, scope: Scope) -> None:
        """Called once, with the first scope, before anything else is."""

    def replaces_default(self, scope: Scope) -> bool:
        """Whether a `RateLimitMiddleware(default=True)` around the app leaves the request to this limit."""
        if self._guard.unlimited:
            return False
        return self._filter is None or (not self._filter.default and self._filter.replaces_default(scope))

    async def pass_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is neither a request nor a WebSocket."""
        await self.app(scope, receive, send)

    async def peek(self, scope: Scope) -> Decision | None:
        """The decision that a counted request would get here, without a charge; None: nothing limits it."""
        if self._guard.unlimited:
            return None
        limiters = self._limiters or self.limiters_for(scope, state_of(scope))
        per = self.resource_of(scope) if self.resource_of else ""
        return await self._guard.peek(connection(scope), limiters, per)

    def watch_frames(self, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """The channels of a WebSocket, as they are or with a limit for its frames."""
        return receive, send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_new:
            self._is_new = False
            self.begin(scope)
        report = _REPORTING.get(scope["type"])
        if report is None:
            await self.pass_other(scope, receive, send)
            return
        state: RequestState | None = scope.get(STATE)
        if state is None:
            state = scope[STATE] = RequestState()
        store = self.store
        if store is None:
            store = self.store_for(scope, state)
        else:
            state.store = store
        is_outermost = not state.is_watched
        if is_outermost:
            state.is_watched, state.style = True, self._style
            send = report(send, state, store.clock.wall)
        elif state.style is None:
            state.style = self._style
        if report is reporting_of_socket:
            receive, send = self.watch_frames(receive, send)
        guard, decision, settling, had_user = self._guard, None, None, "user" in scope
        started_us = 0 if self._settle is None else store.clock.now_us()
        try:
            if self._filter is None or await self._filter.counts(scope):
                limiters = self._limiters or self.limiters_for(scope, state)
                if scope.get("method") == "OPTIONS" and is_preflight(scope):
                    await self._pass_preflight(limiters, state, scope, receive, send)
                    return
                gone = None
                if guard.may_wait:
                    ahead = ReadAhead(receive)
                    receive, gone = ahead.receive, ahead.gone
                per = self.resource_of(scope) if self.resource_of else ""
                decision = await guard.check(scope, limiters, state, per, gone)
                state.middleware_count = len(state.charges)
                if decision is not None:
                    if not decision.allowed:
                        if guard.enforce:
                            await self._refuse(decision, scope, receive, send)
                            return
                    elif self._refund is not None:
                        state.refunds += ((decision, self._refund),)
                    elif self._settle is not None:
                        settling = Settling(self._settle, guard, decision, state, scope, send, store.clock, started_us)
                        send = settling.send
            elif self._filter is not NOTHING:
                (self._limiters or self.limiters_for(scope, state)).report_exempt()
            await self.app(scope, receive, send)
            if settling is not None:
                await settling.end()
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a group may hold a cancellation
            is_answered = await self._answer(error, state, scope, receive, send)
            if settling is not None:
                await settling.end(504 if isinstance(error, asyncio.CancelledError) else 500)
            if not is_answered:
                raise
        finally:
            if is_outermost and state.slots:
                await state.release()
        if "user" in scope and not had_user and (decision is not None or guard.sources):
            guard.diagnostics.look_for_late_user()

    async def _pass_preflight(
        self, limiters: LimiterCache, state: RequestState, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Pass a browser's question on. It is charged unless its response is the answer to one."""
        preflight = await check_preflight(self._guard, limiters, state, scope)
        if preflight is None:
            await self.app(scope, receive, send)
            return
        limiter, decision = preflight.limiter, preflight.decision
        if not decision.allowed:
            limiter.observers.decided(limiter.name, decision, preflight.key, enforced=self._guard.enforce)
            state.charges += ((limiter, decision),)
            if self._guard.enforce:
                state.refused_by = decision
                await self._refuse(decision, scope, receive, send)
                return
            self._guard.tally(repr(limiter), limiter.store.clock)
        try:
            await self.app(scope, receive, preflight.refunding(send))
        finally:
            preflight.report()

    async def _answer(
        self, error: BaseException, state: RequestState, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Answer an error of ours that the app has not answered. False: it is none of ours, or it is too late."""
        if isinstance(error, ClientGone):
            return True
        error = _first_of_ours(error)
        is_ours = isinstance(error, (RateLimited, StoreUnavailable))
        if is_ours and state.is_open:
            await (LimitedResponse if isinstance(error, RateLimited) else UnavailableResponse).close(send)
            return True
        if state.has_started or not is_ours:
            if state.refunds:
                await state.refund_by(504 if isinstance(error, asyncio.CancelledError) else 500)
            return False
        await state.undo()
        if isinstance(error, RateLimited):
            state.report(error.decision)
            await self._refuse(error.decision, scope, receive, send)
        else:
            logger.debug("a request is answered with 503: %s", error)  # the store itself has logged the outage, once
            await UnavailableResponse()(scope, receive, send)
        return True

    async def _refuse(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        response: object = None
        if self._on_limited is not None and not can_only_close(scope):
            response = self._on_limited(connection(scope), decision)
            if isawaitable(response):
                response = await response
            if not callable(response):
                self._guard.diagnostics.warn_of_response(response)
        await (response if callable(response) else LimitedResponse(decision))(scope, receive, send)


_REPORTING = {"http": reporting, "websocket": reporting_of_socket}


def _first_of_ours(error: BaseException) -> BaseException:
    """The longest refusal of a task group, else its outage. Any other error as it is."""
    if not isinstance(error, ExceptionGroup):
        return error
    ours, others = error.split((RateLimited, StoreUnavailable))
    if ours is None or others is not None:
        return error
    return max(_leaves(ours), key=lambda one: one.retry_after if isinstance(one, RateLimited) else -1.0)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
