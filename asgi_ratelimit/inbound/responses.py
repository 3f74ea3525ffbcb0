"""The responses to requests that may not pass: the 429 that a real Discord client obeys, or a 503."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.refusal_headers import VIA, in_milliseconds

__all__ = ["RATE_LIMITED", "VIA", "LimitedResponse", "UnavailableResponse", "can_only_close", "limited_body"]

_JSON = (b"content-type", b"application/json")
RATE_LIMITED = 4008  # the code with which Discord's gateway closes a socket that sends too much


def limited_body(decision: Decision) -> bytes:
    """Discord's body of a 429: `retry_after` in seconds, rounded up to a millisecond."""
    scope = decision.policy.limit.scope
    whose = b"The resource is" if scope == "shared" else b"You are"
    seconds = repr(max(0.001, in_milliseconds(decision.measured()[2]))).encode("ascii")
    is_global = b"true" if scope == "global" else b"false"
    return b'{"message": "%b being rate limited.", "retry_after": %b, "global": %b}' % (whose, seconds, is_global)


def can_only_close(scope: Scope) -> bool:
    """Whether it is a WebSocket whose server cannot send a response instead of opening it."""
    return scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {})


class _ClosingResponse(Response):
    """A response that closes a WebSocket where the server can do no more."""

    close_code = RATE_LIMITED
    close_reason = "rate limited"

    @classmethod
    async def close(cls, send: Send) -> None:
        """Close a WebSocket."""
        await send({"type": "websocket.close", "code": cls.close_code, "reason": cls.close_reason})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if can_only_close(scope):
            await self.close(send)
        else:
            kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
            await send({"type": f"{kind}.start", "status": self.status_code, "headers": self.raw_headers})
            # Starlette leaves `more_body` out, as it may, but the test client of Quart 0.23 wants it.
            await send({"type": f"{kind}.body", "body": self.body, "more_body": False})


class LimitedResponse(_ClosingResponse):
    """A 429 (or a limit's own status) in Discord's words; its X-RateLimit headers are added by the door.

    `Via`, because without it discord.py and its kin take any 429 for a ban by Cloudflare; the content type
    without a charset, because they compare it. A WebSocket that is not open yet is refused with the same
    response where the server can send one, else closed with 4008.
    """

    def __init__(self, decision: Decision) -> None:
        self.status_code, self.background = decision.policy.limit.status, None
        self.body = limited_body(decision)
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), _JSON, VIA]


class UnavailableResponse(_ClosingResponse):
    """A 503: the store is down, and the limit fails closed."""

    media_type = "application/json"
    close_code = 1013  # try again later, RFC 6455's registry
    close_reason = "try again later"

    def __init__(self) -> None:
        super().__init__(b'{"message": "The rate limiter cannot answer."}', 503, headers={"retry-after": "1"})
