"""The 503 of a request that is shed, made in advance."""

from __future__ import annotations

from typing import Final

from starlette.types import Send

__all__ = ["MOST_SECONDS", "send_overloaded"]

MOST_SECONDS: Final = 5


def _parts(seconds: int) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    body = b'{"message": "The server is overloaded.", "retry_after": %d.0}' % seconds
    retry_after = (b"retry-after", b"%d" % seconds)
    return ((b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"), retry_after), body


_BY_SECONDS: Final = {seconds: _parts(seconds) for seconds in range(1, MOST_SECONDS + 1)}


async def send_overloaded(send: Send, seconds: int) -> None:
    """Answer with a 503 and this Retry-After, of 1 to 5 seconds."""
    headers, body = _BY_SECONDS[seconds]
    await send({"type": "http.response.start", "status": 503, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})
