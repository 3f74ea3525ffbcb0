"""MinuteLine: a line in the log about many events, once a minute at most."""

from __future__ import annotations

import logging
from typing import Any, Final

from asgi_ratelimit.clock import Clock

__all__ = ["MinuteLine"]

logger = logging.getLogger("asgi_ratelimit")

_MINUTE_US: Final = 60_000_000


class MinuteLine:
    """Warns of the first event at once, and then of all that came in between, with one that comes a minute later."""

    def __init__(self) -> None:
        self._count = self._next_us = 0

    def warn(self, clock: Clock, text: str, *values: Any) -> None:
        """Count one. `text` has a place for the number, and then one for each of `values`."""
        self._count += 1
        now_us = clock.now_us()
        if now_us >= self._next_us:
            logger.warning(text, self._count, *values)
            self._count, self._next_us = 0, now_us + _MINUTE_US
