"""Requests that are not verified: counted for each client address, and reported once a minute at most."""

from __future__ import annotations

from starlette.requests import Request

from asgi_ratelimit.events import observers_of
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.headers import retry_after_header
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import KeyFunction
from asgi_ratelimit.inbound.request_state import STATE, RequestState
from asgi_ratelimit.interactions.responses import EarlyResponse, error
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.minute_line import MinuteLine
from asgi_ratelimit.store import PerStore, Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["FailureLimit"]

_MOST_CLIENTS = 10_000  # with a bucket of their own; all others share some


class FailureLimit:
    """The limit of failures for each client, in memory: a flood of forged requests is none of a Redis.

    limit: the limits, or None for none
    client: the key function of a client
    """

    def __init__(self, limit: tuple[Limit, ...] | None, client: KeyFunction, name: str, warn_once: WarnOnce) -> None:
        self._guard = RequestGuard(limit, client, 1, warn_once)
        self._name, self._line = f"{name}:failures", MinuteLine()
        self._limiters = PerStore(self._open)

    @property
    def is_off(self) -> bool:
        """Whether failures are not counted here."""
        return self._guard.unlimited

    def _open(self, store: Store) -> LimiterCache:
        memory = MemoryStore(max_keys=_MOST_CLIENTS, clock=store.clock)
        memory.observers = observers_of(store)
        return LimiterCache(memory, self._name, self._guard.fixed)

    async def count(self, failure: EarlyResponse, request: Request, store: Store) -> EarlyResponse:
        """The response to a request that failed: the 401, say, or a 429 once its client has failed too often.

        An outer middleware that has counted the request needs no help. `store`: the endpoint's, for its clock.
        """
        state = request.scope.get(STATE)
        if isinstance(state, RequestState) and state.middleware_count:
            return failure
        return await self.count_here(failure, request, store)

    async def count_here(self, failure: EarlyResponse, request: Request, store: Store) -> EarlyResponse:
        """The same, whether or not a middleware has counted it."""
        limiters = self._limiters.of(store)
        decision = await self._guard.check(request.scope, limiters, RequestState(), conn=request)
        if decision is None or decision.allowed:
            return failure
        self._line.warn(store.clock, "%d requests without a valid signature of Discord were refused (429)")
        kept = [header for header in failure.response.raw_headers if header[0] == b"connection"]
        return error(429, "too many requests without a valid signature", [retry_after_header(decision), *kept])
