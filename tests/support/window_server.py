"""A function in place of Discord that counts calls in windows, by keys of the test's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import httpx

from asgi_ratelimit.clock import Clock

__all__ = ["KeyOf", "WindowServer", "by_nothing"]

KeyOf = Callable[[httpx.Request], str]


def by_nothing(request: httpx.Request) -> str:
    """One count for all requests."""
    return ""


class WindowServer:
    """So many calls in a window for each key, which opens with its first call. All show one hash."""

    def __init__(
        self, clock: Clock, limit: int, seconds: float, key: KeyOf = by_nothing, *, latency: float = 0.0
    ) -> None:
        self._clock, self._limit, self._window_us = clock, limit, round(seconds * 1e6)
        self._key, self._latency = key, latency
        self._windows: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self.refused = 0
        self.left: list[int] = []  # after each call

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if self._latency:
            await self._clock.sleep(self._latency / 2)
        response = self._count(self._key(request))
        if self._latency:
            await self._clock.sleep(self._latency / 2)
        return response

    def _count(self, key: str) -> httpx.Response:
        now_us, (end_us, used) = self._clock.now_us(), self._windows[key]
        end_us, used = (now_us + self._window_us, 1) if now_us >= end_us else (end_us, used + 1)
        self._windows[key] = end_us, used
        self.left.append(self._limit - used)
        seconds = (end_us - now_us) / 1e6
        headers = {
            "X-RateLimit-Limit": str(self._limit), "X-RateLimit-Remaining": str(max(0, self._limit - used)),
            "X-RateLimit-Reset-After": f"{seconds:.3f}", "X-RateLimit-Bucket": "abc", "Via": "1.1 google",
        }  # fmt: skip
        if used <= self._limit:
            return httpx.Response(200, json={"id": "1"}, headers=headers)
        self.refused += 1
        return httpx.Response(429, json={"retry_after": seconds, "global": False}, headers=headers)
