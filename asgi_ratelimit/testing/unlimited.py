"""unlimited: tests of an app that are not about its limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asgi_ratelimit.off_switch import OFF_SWITCH

__all__ = ["unlimited"]


@contextmanager
def unlimited() -> Iterator[None]:
    """Within it every limiter of this process allows each call, and counts none: `with unlimited(): ...`.

    That is true in every thread, for limiters that exist and for new ones: middleware, dependencies, InteractionLimit,
    Limiter and SyncLimiter. A Decision is made all the same, of a full bucket. Blocks do not refuse either. Calls to
    Discord keep to Discord's limits. A fixture of pytest is `with unlimited(): yield`.
    """
    OFF_SWITCH.turn(off=True)
    try:
        yield
    finally:
        OFF_SWITCH.turn(off=False)
