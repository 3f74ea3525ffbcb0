"""What a store reports to its owner, while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["EventHook", "StoreEvent", "emit"]

logger = logging.getLogger("asgi_ratelimit")


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """An event of a store. `node` is the server that it is about, or "memory".

    "down": a server stopped answering. "up": it answers again or was replaced, after so many `seconds`. "missed": it is
    up, but some checks were decided without it, for they were not answered in time, for example. It is reported at most
    once a minute. "full": a store in memory has no room for new keys, which share a few buckets then. It is repeated
    once a minute at most. "spoilt": a record of a limiter was not believed, and is replaced. Of each limiter it is
    reported once.

    checks: the number of checks that were decided without the server, during the outage ("up") or since the last
        report ("missed")
    """

    kind: Literal["down", "up", "missed", "full", "spoilt"]
    node: str
    cause: str
    seconds: float
    checks: int = 0


EventHook = Callable[[StoreEvent], object]
"""Called with each event of a store."""


def emit(hook: EventHook | None, event: StoreEvent) -> None:
    """Call the hook. An error of its own is logged: it must not fail the call that is decided."""
    if hook is None:
        return
    try:
        hook(event)
    except Exception:
        logger.exception("on_event failed at %r", event)
