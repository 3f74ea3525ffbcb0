"""server_load: how busy this process is, for a user's own `limit=` function."""

from __future__ import annotations

import asyncio
from typing import Final

from asgi_ratelimit.load.loop_lag import Loops

__all__ = ["LOOPS", "server_load"]

LOOPS: Final = Loops()  # of this process


def server_load() -> float:
    """How busy the running event loop is, from 0.0 to 1.0: one value for all of its callers.

    It is the share of the last half second in which the loop worked, or was late by more than 1.5 ms. It is 1.0 while
    a LoadShedMiddleware sheds requests. The first call starts the measurement and returns 0.0; it ends 2 s after the
    last one. In a thread without an event loop it is the value of the busiest loop that is measured.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return LOOPS.load()
    return LOOPS.of(loop).load
