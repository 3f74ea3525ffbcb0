"""The end of a request that no middleware of ours sees: FastAPI's exit stack ends after the response."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.types import Scope

from asgi_ratelimit.inbound.request_state import RequestState, state_of

__all__ = ["release_at_end"]

_STACK = "fastapi_inner_astack"  # in the scope; where the dependencies with `yield` of a route end


def release_at_end(scope: Scope, state: RequestState, warn: Callable[[str, str], object]) -> None:
    """Free the slots in this state at the end of the request: of the response, of a stream, of a WebSocket."""
    shared = state_of(scope)
    if shared.is_watched:
        if shared is not state:
            shared.slots, state.slots = shared.slots + state.slots, ()
        return
    stack = scope.get(_STACK)
    if isinstance(stack, AsyncExitStack):
        stack.push_async_callback(state.release)
    else:
        warn(
            "ARL117",
            "nothing sees the end of the response, so a slot is held for its whole lease; "
            "add RateLimitMiddleware(limit=None) to the app",
        )
