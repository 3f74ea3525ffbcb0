"""Checks of one door for misconfiguration: each is done once, and warns once."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from asgi_ratelimit.call_site import inside_a_request, several_workers
from asgi_ratelimit.inbound.keys import ClientIP, by_user, by_user_or, forwarded_for, peer_host
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.store import Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["Diagnostics"]

_MOST_LAYERS = 100  # of middleware
_TRIALS = 100  # requests in which a door looks for a forgotten proxy


class Diagnostics:
    """The checks of one door."""

    def __init__(self, warn_once: WarnOnce, key: object) -> None:
        self.warn = warn_once.warn
        self.proxy_trials = _TRIALS if _reads_untrusted_address(key) else 0
        self.awaits_user = key is by_user or isinstance(key, by_user_or)

    def check_call_site(self, advice: str) -> None:
        """Warn if the door is made within a request."""
        if inside_a_request():
            self.warn("ARL106", advice)

    def check_workers(self, store: Store) -> None:
        """Warn if several workers count apart."""
        if not store.shared and several_workers():
            self.warn(
                "ARL105",
                "each worker counts for itself, so N workers allow N times the limit; use one worker or a RedisStore",
            )

    def check_cors(self, app: object) -> None:
        """Warn if CORSMiddleware is within the app."""
        inner = app
        for _ in range(_MOST_LAYERS):
            if isinstance(inner, CORSMiddleware):
                self.warn(
                    "ARL108",
                    "browsers may not read its 429, which lacks the CORS headers. Add CORSMiddleware after "
                    "RateLimitMiddleware: the last one added stands outside.",
                )
            inner = getattr(inner, "app", None)

    def look_for_proxy(self, scope: Scope) -> None:
        """Warn if the request comes through a proxy that is not trusted."""
        self.proxy_trials -= 1
        hops = forwarded_for(scope)
        # uvicorn's own ProxyHeadersMiddleware has then put the client's address in place of the proxy's.
        if hops and peer_host(scope) not in hops:
            self.proxy_trials = 0
            self.warn(
                "ARL104",
                "if that is your own proxy, all of its users share one bucket: use ClientIP(trusted_proxies=[...]) "
                "or the server's own option (uvicorn --proxy-headers --forwarded-allow-ips).",
            )

    def look_for_late_user(self) -> None:
        """Warn if the key function awaits a user, who has come after it has run."""
        if self.awaits_user:
            self.warn(
                "ARL107",
                "it saw no user, so every key was an address. Add AuthenticationMiddleware after "
                "RateLimitMiddleware: the last one added stands outside and runs first.",
            )

    def warn_of_second_pass(self, limiter: Limiter) -> None:
        self.warn("ARL102", f"{limiter!r} has been passed twice; give one of the doors another name")


def _reads_untrusted_address(key: object) -> bool:
    """Whether it is one of our own key functions, without any trusted proxy."""
    if isinstance(key, by_user_or):
        key = key.fallback
    return isinstance(key, ClientIP) and not key.trusted_proxies and not key.trusts_unix
