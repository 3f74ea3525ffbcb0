"""The 503 of a request that is shed, made in advance."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.types import Receive, Scope, Send

__all__ = ["MOST_SECONDS", "send_overloaded"]

MOST_SECONDS: Final = 5
_WITHOUT_BODY: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_MOST_READ: Final = 2 << 20  # bytes of a body that are read in spite of the 503
_LONGEST_S: Final = 2.0  # for which they are read
_CLOSE: Final = (b"connection", b"close")


def _parts(seconds: int) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    body = b'{"message": "The server is overloaded.", "retry_after": %d.0}' % seconds
    retry_after = (b"retry-after", b"%d" % seconds)
    return ((b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"), retry_after), body


_BY_SECONDS: Final = {seconds: _parts(seconds) for seconds in range(1, MOST_SECONDS + 1)}


async def send_overloaded(scope: Scope, receive: Receive, send: Send, seconds: int) -> None:
    """Answer with a 503 and this Retry-After, of 1 to 5 seconds.

    It is sent at once, and ends after the body of the request: some servers close a connection with an unread body, and
    its client, which still sends, does not see the answer then. So it has no length, which would end it, either.
    """
    (length, *headers), body = _BY_SECONDS[seconds]
    is_sending = scope["method"] not in _WITHOUT_BODY
    if is_sending and _expects(scope):
        headers.append(_CLOSE)
        is_sending = False
    if not is_sending:
        headers.append(length)
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": is_sending})
    if is_sending:
        await _read(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _expects(scope: Scope) -> bool:
    """Whether the client waits for a word before it sends the body. Then there is none to read."""
    return str(scope.get("http_version")).startswith("1") and any(name == b"expect" for name, _ in scope["headers"])


async def _read(receive: Receive) -> None:
    """The rest of a body, unless it is too long or too slow."""
    size, has_more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_S):
            while has_more and size < _MOST_READ:
                message = await receive()
                size += len(message.get("body", b""))
                has_more = message["type"] == "http.request" and message.get("more_body", False)
