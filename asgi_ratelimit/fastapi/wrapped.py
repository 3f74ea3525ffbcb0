"""An app behind the limit of a RateLimit: a middleware of one route, or of one mounted app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.limited_app import LimitedApp
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import ASGIApplication
from asgi_ratelimit.inbound.request_state import RequestState
from asgi_ratelimit.store import Store

__all__ = ["WrappedApp"]


class WrappedApp(LimitedApp):
    """What `RateLimit.wrap` returns."""

    def __init__(
        self,
        app: ASGIApplication,
        guard: RequestGuard,
        *,
        limit: object,
        limiters_for: Callable[[Scope, RequestState], LimiterCache],
        resource_of: Callable[[Scope], str] | None,
        **options: Any,
    ) -> None:
        super().__init__(app, guard, store=None, **options)
        self.limit = limit  # the RateLimit
        self._limiters_for, self.resource_of = limiters_for, resource_of

    def store_for(self, scope: Scope, state: RequestState) -> Store:
        return self._limiters_for(scope, state).store

    def limiters_for(self, scope: Scope, state: RequestState) -> LimiterCache:
        return self._limiters_for(scope, state)
