"""The question of a browser before a cross-origin request (Fetch standard, CORS-preflight request).

Anybody can send a request that looks like one. So it is charged to a bucket of its own, which a browser never empties:
the charge is given back if the response is the answer to such a question.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import Final

from starlette.types import Message, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.events import Event
from asgi_ratelimit.inbound.client_ip import by_ip
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.request_state import RequestState, give_back
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import TokenBucket

__all__ = ["Preflight", "check_preflight", "is_preflight"]

_RESOURCE: Final = "preflight"
_LIMIT: Final = (TokenBucket("5/5s"),)  # where a function of the user's chooses the limit: it may need a user


def is_preflight(scope: Scope) -> bool:
    """Whether a request looks like a preflight."""
    names = {name for name, _ in headers_of(scope)}
    return b"origin" in names and b"access-control-request-method" in names


async def check_preflight(
    guard: RequestGuard, limiters: LimiterCache, state: RequestState, scope: Scope
) -> Preflight | None:
    """Charge the bucket of preflights of an address: a browser sends them without credentials.

    None: the store cannot answer, in shadow mode. Without it raises StoreUnavailable.
    """
    limiter = limiters.fixed or limiters.of(_LIMIT)
    key = guard.as_key((guard.address_of or by_ip.of)(scope))
    try:
        pending = limiter.decide(key, 1, _RESOURCE)
        decision = pending if isinstance(pending, Decision) else await pending
    except (StoreUnavailable, CancelledError) as error:
        limiter.report_undecided(error, key)
        if guard.enforce or not isinstance(error, StoreUnavailable):
            raise
        return None
    if limiter.holds and decision.allowed:
        state.hold(limiter, decision)
    return Preflight(limiter, key, decision)


class Preflight:
    """A preflight that was charged, as long as it is not known whether the charge stays."""

    def __init__(self, limiter: Limiter, key: str, decision: Decision) -> None:
        self.limiter, self.key, self.decision = limiter, key, decision
        self._is_reported = not decision.allowed

    def refunding(self, send: Send) -> Send:
        """A `send` that gives the charge back if the response allows an origin."""

        async def send_and_refund(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_free = _allows_an_origin(message)
                self.report(is_free)
                if is_free:
                    await give_back(self.limiter, self.decision)
            await send(message)

        return send_and_refund

    def report(self, is_free: bool = False) -> None:
        """Tell the observers, once. A refusal has been reported."""
        if self._is_reported:
            return
        self._is_reported, observers = True, self.limiter.observers
        if is_free:
            observers.emit(Event("exempt", self.limiter.name, key=self.key))
        else:
            observers.decided(self.limiter.name, self.decision, self.key)


def _allows_an_origin(message: Message) -> bool:
    return any(name.lower() == b"access-control-allow-origin" for name, _ in message.get("headers") or ())
