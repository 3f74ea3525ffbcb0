"""The question of a browser before a cross-origin request (Fetch standard, CORS-preflight request).

Anybody can send a request that looks like one. So it is charged to a bucket of its own, which a browser never empties:
the charge is given back if the response is the answer to such a question.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.events import Event
from asgi_ratelimit.inbound.client_ip import by_ip
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.request_state import RequestState, give_back
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import TokenBucket

__all__ = ["check_preflight", "is_preflight", "refunding"]

_RESOURCE: Final = "preflight"
_LIMIT: Final = (TokenBucket("5/5s"),)  # where a function of the user's chooses the limit: it may need a user


def is_preflight(scope: Scope) -> bool:
    """Whether a request looks like a preflight."""
    names = {name for name, _ in headers_of(scope)}
    return b"origin" in names and b"access-control-request-method" in names


async def check_preflight(
    guard: RequestGuard, limiters: LimiterCache, state: RequestState, scope: Scope
) -> tuple[Limiter, str, Decision]:
    """Charge the bucket of preflights of an address: a browser sends them without credentials."""
    limiter = limiters.fixed or limiters.of(_LIMIT)
    key = guard.as_key((guard.address_of or by_ip.of)(scope))
    pending = limiter.decide(key, 1, _RESOURCE)
    decision = pending if isinstance(pending, Decision) else await pending
    if limiter.holds and decision.allowed:
        state.hold(limiter, decision)
    return limiter, key, decision


def refunding(send: Send, limiter: Limiter, key: str, decision: Decision) -> Send:
    """A `send` that gives the charge back if the response allows an origin."""

    async def send_and_refund(message: Message) -> None:
        if message["type"] == "http.response.start":
            is_free = _allows_an_origin(message)
            if is_free:
                await give_back(limiter, decision)
            if is_free and decision.allowed:
                limiter.observers.emit(Event("exempt", limiter.name, key=key))
            elif decision.allowed:
                limiter.observers.decided(limiter.name, decision, key)
        await send(message)

    return send_and_refund


def _allows_an_origin(message: Message) -> bool:
    return any(name.lower() == b"access-control-allow-origin" for name, _ in message.get("headers") or ())
