"""Checks of one door for misconfiguration: each is done once, and warns once."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from asgi_ratelimit.call_site import inside_a_request, several_workers
from asgi_ratelimit.inbound.keys import address_reader, by_user, by_user_or
from asgi_ratelimit.inbound.proxies import ProxyWatch
from asgi_ratelimit.inbound.users import is_nameless
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.shown import shown
from asgi_ratelimit.store import Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["Diagnostics"]

_MOST_LAYERS = 100  # of middleware


class Diagnostics:
    """The checks of one door. `others`: the key functions of limits with a key of their own."""

    def __init__(self, warn_once: WarnOnce, key: object, others: Sequence[object] = ()) -> None:
        self.warn = warn_once.warn
        readers = [one for one in (key, *others) if address_reader(one) is not None]
        self.proxies = ProxyWatch(warn_once.warn, readers[0] if readers else key)
        self.awaits_user = any(one is by_user or isinstance(one, by_user_or) for one in (key, *others))

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

    def look_for_late_user(self) -> None:
        """Warn if the key function awaits a user, who has come after it has run."""
        if self.awaits_user:
            self.warn(
                "ARL107",
                "it saw no user, so every key was an address. Add AuthenticationMiddleware after "
                "RateLimitMiddleware: the last one added stands outside and runs first.",
            )

    def check_user(self, scope: Scope) -> None:
        """Warn if there is a user, but nothing that tells this user from others."""
        user = scope.get("user")
        if user and self.awaits_user and is_nameless(user):
            self.warn(
                "ARL103",
                f'scope["user"] is a {type(user).__name__} without identity, id or sub, so it is counted like a '
                "visitor. Give it one of them, or write a key function.",
            )

    def warn_of_second_pass(self, limiter: Limiter) -> None:
        self.warn("ARL102", f"{limiter!r} has been passed twice; give one of the doors another name")

    def warn_of_response(self, response: object) -> None:
        """Warn of what `on_limited` has returned in place of a response."""
        self.warn("ARL204", f"it must return a Response, not {shown(response)}; Discord's 429 is sent instead")
