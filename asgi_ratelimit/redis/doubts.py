"""Records in Redis that are not believed: each kind is logged once."""

from __future__ import annotations

import logging

from asgi_ratelimit.store_events import EventHook, StoreEvent, emit

__all__ = ["Doubts"]

logger = logging.getLogger("asgi_ratelimit")

_MOST = 256  # so that limiters made up at run time do not pile up


class Doubts:
    """The limiters with a record that was not believed."""

    def __init__(self, server: str, on_event: EventHook | None) -> None:
        self._server, self._on_event = server, on_event
        self._reported: set[str] = set()

    def report(self, name: str) -> None:
        """Log and emit that a record of the limiter of this name was not believed, the first time."""
        if name in self._reported or len(self._reported) >= _MOST:
            return
        self._reported.add(name)
        cause = (
            f"a record of the limiter {name!r} is not believed, and it is replaced: other software wrote it, the "
            "server's clock went back, or its limit has a much smaller burst now"
        )
        logger.warning("%s: %s", self._server, cause)
        emit(self._on_event, StoreEvent("spoilt", self._server, cause, 0.0))
