"""The checks that are decided without their server: counted, and reported once a minute while the server is up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from asgi_ratelimit.redis.breaker import Breaker, line_of
from asgi_ratelimit.redis.calls import Check

__all__ = ["Missed"]

_SOON, _PAUSE = 1.0, 60.0  # seconds until the first of them are reported, and between two reports


class Missed:
    """Those of one server, or of a cluster's map."""

    def __init__(self, breaker: Breaker, loop: asyncio.AbstractEventLoop) -> None:
        self._breaker, self._loop = breaker, loop
        self._report: asyncio.Handle | None = None
        self._next_report = 0.0
        self._cause = ""

    def fail(self, checks: Iterable[Check], error: Exception) -> None:
        """Answer checks without the server."""
        missed = 0
        for check in checks:
            missed += not check.future.done()
            check.fail(error)
        if missed:
            self._breaker.missed += missed
            self._cause = line_of(error)
        if self._breaker.missed and self._report is None and not self._breaker.is_open:
            self._report = self._loop.call_at(max(self._loop.time() + _SOON, self._next_report), self.report)

    def report(self) -> None:
        """Report those that no event has counted yet. In an outage its end does."""
        if self._report is not None:
            self._report.cancel()
            self._report, self._next_report = None, self._loop.time() + _PAUSE
        self._breaker.report_missed(self._cause)
