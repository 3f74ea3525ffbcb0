"""Warnings about misconfiguration: one of each kind, with a stable code that the documentation explains."""

from __future__ import annotations

import logging
import sys
import warnings

from asgi_ratelimit.errors import RateLimitWarning

__all__ = ["CODES", "WarnOnce"]

logger = logging.getLogger("asgi_ratelimit")

CODES = {
    "ARL101": "two doors share a name but not their limits",
    "ARL102": "the same bucket is charged twice in one request",
    "ARL103": "a request without any identity",
    "ARL104": "the header of a proxy that is not read",
    "ARL105": "an in-memory store under several workers",
    "ARL106": "a limiter made anew for each request",
    "ARL107": "the user is known only after the limiter has run",
    "ARL108": "a limiter outside CORSMiddleware",
    "ARL109": "per= names a path parameter that the route does not have",
    "ARL110": "a Redis that may forget buckets",
    "ARL111": "a middleware around an interactions endpoint counts it",
    "ARL112": "a server that believes every X-Forwarded-For",
    "ARL113": "a full store in memory",
    "ARL117": "a route whose limit does not see its response",
    "ARL201": "a key function returned a value that is no key",
    "ARL202": "a limit function returned a value that is no limit",
    "ARL203": "a cost function returned a value that is no cost",
    "ARL204": "on_limited returned a value that is no response",
    "ARL205": "a settle function returned a value that is no cost",
    "ARL206": "a priority function returned a value that is no class",
    "ARL301": "a Discord client made anew for each message",
    "ARL401": "account names as digests without a secret",
}


class WarnOnce:
    """The warnings of one door or limiter: each code is issued once."""

    def __init__(self) -> None:
        self._issued: set[str] = set()

    def warn(self, code: str, text: str) -> None:
        """Warn once. It is logged instead if a filter makes errors of warnings: no request may get a 500 for it."""
        if code in self._issued:
            return
        self._issued.add(code)
        message = f"{code} {CODES[code]}: {text}"
        try:
            warnings.warn(message, RateLimitWarning, stacklevel=_levels_of_package())
        except RateLimitWarning:
            logger.warning(message)


def _levels_of_package() -> int:
    """The stack level, for a call of `warn` above, of the first caller outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("asgi_ratelimit."):
        level, frame = level + 1, frame.f_back
    return level
