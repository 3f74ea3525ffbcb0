"""The real cost of a request: the `settle=` of the middleware, and the charges that an endpoint settles itself."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.inbound.estimate import Estimate
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.request_state import RequestState, settle_charge
from asgi_ratelimit.inbound.uncancelled import to_its_end
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.shown import shown

__all__ = ["Origin", "Served", "SettleRule", "Settling"]

logger = logging.getLogger("asgi_ratelimit")

_STARTS: Final = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
_BODIES: Final = {
    "http.response.body", "http.response.pathsend", "http.response.zerocopysend", "websocket.http.response.body",
}  # fmt: skip
_CLOSE: Final = "websocket.close"
_ACCEPTED, _REFUSED_SOCKET = 101, 403  # the statuses of a WebSocket that is opened, and of one that is closed before


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A request whose response has ended, for the middleware's `settle=`.

    status: of the response. 500 if the app has failed before it, 504 if the request was cancelled before it; of a
        WebSocket 101, or 403 if it was not accepted
    headers: of the response, as the app has sent them
    body_bytes: the bytes that the app has sent in the body, or through the WebSocket, as they pass the middleware
    seconds: from the request's arrival at the middleware to the end of its response, by the store's clock
    scope: of the request
    """

    status: int
    headers: Headers
    body_bytes: int
    seconds: float
    scope: Scope


SettleRule = Callable[[Served], int | Awaitable[int]]  # the real cost of the request


class Settling:
    """The `send` of one request that counts what passes, and settles the charge once the response has ended."""

    def __init__(
        self,
        rule: SettleRule,
        guard: RequestGuard,
        decision: Decision,
        state: RequestState,
        scope: Scope,
        send: Send,
        clock: Clock,
        started_us: int,
    ) -> None:
        self._rule, self._guard, self._decision, self._state, self._scope = rule, guard, decision, state, scope
        self._send, self._clock, self._started_us = send, clock, started_us
        self._route = route_of(guard.estimate, scope)
        self._has_body = scope.get("method") != "HEAD"  # else the server leaves it out
        self._status = self._body_bytes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_over = False

    async def send(self, message: Message) -> None:
        """Pass a message on. The last one of the response settles the charge."""
        kind = message["type"]
        if kind in _STARTS:
            self._status, self._headers = message.get("status", _ACCEPTED), [*(message.get("headers") or ())]
            message = {**message, "headers": self._headers}  # the app's may be an iterator
        elif kind == _CLOSE:
            self._status = self._status or _REFUSED_SOCKET
        elif self._has_body:
            self._body_bytes += _size(message)
        await self._send(message)
        if kind == _CLOSE or (kind in _BODIES and not message.get("more_body")):
            await self.end()

    async def end(self, status: int = 500) -> None:
        """Settle the charge, once. `status`: that of a response which has not started."""
        if self._is_over:
            return
        self._is_over = True
        limiter = self._state.limiter_of(self._decision)
        if limiter is None:  # it has been given back: another limit has refused the request
            return
        try:
            used: object = self._rule(self._served(status))
        except Exception:
            self._log_failure()
            return
        if isawaitable(used):
            await to_its_end(self._settle_later(limiter, used))
        else:
            await self._settle(limiter, used)

    async def _settle_later(self, limiter: Limiter, answer: Awaitable[object]) -> None:
        try:
            used = await answer
        except (Exception, asyncio.CancelledError):  # something in the rule was cancelled, not the request
            self._log_failure()
            return
        await self._settle(limiter, used)

    async def _settle(self, limiter: Limiter, used: object) -> None:
        if isinstance(used, bool) or not isinstance(used, int) or used < 0:
            self._guard.diagnostics.warn(
                "ARL205", f"a request has cost a whole number from 0, not {shown(used)}; its charge is left as it was"
            )
            return
        await settle_charge(limiter, self._decision, used)
        if self._guard.estimate is not None:
            self._guard.estimate.learn(used, self._route)

    def _log_failure(self) -> None:
        logger.exception("settle=%r has failed; the request is charged what it was charged before", self._rule)

    def _served(self, status: int) -> Served:
        seconds = max(0, self._clock.now_us() - self._started_us) / 1e6
        headers = Headers(raw=[(name.lower(), value) for name, value in self._headers])
        return Served(self._status or status, headers, self._body_bytes, seconds, self._scope)


def _size(message: Message) -> int:
    """The bytes of a body, a frame or a file."""
    text = message.get("text")
    if text:
        return len(text.encode("utf-8", "surrogatepass"))
    if message["type"] == "http.response.pathsend":
        try:
            return os.path.getsize(message["path"])
        except OSError:
            return 0
    return len(message.get("body") or message.get("bytes") or b"") or message.get("count") or 0


class Origin:
    """Where a dependency has made a decision: what it needs to settle that decision later, and to report it."""

    __slots__ = ("_limiter", "_route", "_state", "guard")

    def __init__(self, guard: RequestGuard, limiter: Limiter, state: RequestState, scope: Scope) -> None:
        self.guard, self._limiter = guard, limiter
        self._state = weakref.ref(state)  # which refers to the decision
        self._route = route_of(guard.estimate, scope)

    async def settle(self, decision: Decision, used: int) -> None:
        """Make the charge the cost of the call. A response that has not started reports its bucket so."""
        state = self._state()
        if state is not None:
            state.replace(decision, decision.as_settled(used))
        await settle_charge(self._limiter, decision, used)
        if self.guard.estimate is not None:
            self.guard.estimate.learn(used, self._route)


def route_of(estimate: Estimate | None, scope: Scope) -> str:
    """The route that the estimate for a request was for."""
    return "" if estimate is None else estimate.route_of(scope)
