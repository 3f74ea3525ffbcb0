"""Misconfiguration is loud: one warning of each kind, each with a stable code that the README explains."""

from __future__ import annotations

import logging
import warnings

from asgi_ratelimit.errors import RateLimitWarning

__all__ = ["CODES", "WarnOnce"]

logger = logging.getLogger("asgi_ratelimit")

CODES = {
    "ARL101": "two doors share a name but not their limits",
    "ARL102": "the same bucket is charged twice in one request",
    "ARL103": "a request without any identity",
    "ARL104": "X-Forwarded-For from a peer that is not trusted",
    "ARL105": "an in-memory store under several workers",
    "ARL106": "a limiter made anew for each request",
    "ARL107": "the user is known only after the limiter has run",
    "ARL108": "a limiter outside CORSMiddleware",
    "ARL109": "per= names a path parameter that the route does not have",
    "ARL110": "a Redis that may forget buckets",
    "ARL201": "a key function returned what is no key",
    "ARL202": "a limit function returned what is no limit",
    "ARL203": "a cost function returned what is no cost",
    "ARL204": "on_limited returned what is no response",
}


class WarnOnce:
    """What has been warned about already, e.g. by one door: everything is said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, code: str, text: str) -> None:
        """Warn once. A filter that makes errors of warnings must not make a 500 of a request: then it is logged."""
        if code in self._said:
            return
        self._said.add(code)
        message = f"{code} {CODES[code]}: {text}"
        try:
            warnings.warn(message, RateLimitWarning, stacklevel=4)
        except RateLimitWarning:
            logger.warning(message)
