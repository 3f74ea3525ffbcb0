"""Records in Redis that are not believed: each kind is logged once."""

from __future__ import annotations

import logging

__all__ = ["Doubts"]

logger = logging.getLogger("asgi_ratelimit")

_MOST = 256  # so that limiters made up at run time do not pile up


class Doubts:
    """The limiters with a record that was not believed."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._reported: set[str] = set()

    def report(self, name: str) -> None:
        """Log that a record of the limiter of this name was not believed, the first time."""
        if name in self._reported or len(self._reported) >= _MOST:
            return
        self._reported.add(name)
        logger.warning(
            "%s has a record of the limiter %r that is not believed, and it is replaced: other software wrote it, or "
            "the server's clock went back",
            self._server,
            name,
        )
