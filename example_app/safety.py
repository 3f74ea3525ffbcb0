"""What keeps other sites out: the names that the app answers to, whose pages may call it, and headers for browsers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "OwnSiteOnly", "allowed_hosts"]

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OWN_MACHINE = "127.0.0.1,[::1],localhost"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def allowed_hosts() -> tuple[str, ...]:
    """The names in ALLOWED_HOSTS, separated by commas; without it, those of this machine."""
    names = (os.environ.get("ALLOWED_HOSTS") or _OWN_MACHINE).split(",")
    return tuple(name.strip().lower() for name in names if name.strip())


class OwnSiteOnly:
    """Refuses requests that another site's page may have sent, and puts `HEADERS` on each response.

    hosts: the names that the app answers to. A page of another name, which its owner has pointed to this machine (DNS
        rebinding), is of another origin for the browser only if the app does not answer to that name.
    open_paths: paths that answer to any name; they have to verify their requests themselves
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], open_paths: Iterable[str] = ()) -> None:
        self.app = app
        self._hosts, self._open_paths = frozenset(hosts), frozenset(open_paths)
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_safely)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "another site"})
        else:
            await refusal(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["path"] in self._open_paths:
            return None
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if _without_port(host) not in self._hosts:
            return PlainTextResponse("This app does not answer to that name. ALLOWED_HOSTS lists its names.\n", 400)
        origin = headers.get("origin")
        is_call = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if is_call and origin is not None and _place(origin) != host:
            return PlainTextResponse("A page of another site may not do that.\n", 403)
        return None


def _without_port(host: str) -> str:
    """`localhost:8000` and `[::1]:8000` without the port."""
    name, _, port = host.rpartition(":")
    return name if port.isdigit() and (not name.count(":") or name.endswith("]")) else host


def _place(origin: str) -> str:
    """The host and port of an origin; "" for "null" and anything odd."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
