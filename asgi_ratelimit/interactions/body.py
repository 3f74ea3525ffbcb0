"""The body of an interaction: its size, its time and the number of unfinished ones are bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request

from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.interactions.keys import Interaction
from asgi_ratelimit.interactions.responses import closing, error

__all__ = ["BodyReader", "parse"]

MOST_SECONDS = 2.0  # Discord waits 3 s for an answer, which begin before its body has arrived
MOST_UNFINISHED = 128  # bodies of one endpoint


class BodyReader:
    """Reads bodies of up to `most_bytes`. The oldest unfinished one makes room if there are too many.

    So slow clients do not keep out Discord, whose bodies arrive whole.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._unfinished: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}

    def check_announced(self, request: Request) -> None:
        """Raise the 413 to a body that announces itself as too large."""
        if _content_length(headers_of(request.scope)) > self._most_bytes:
            raise self._too_large(request)

    async def read(self, request: Request) -> bytes:
        """The body. Raises the response to one that is too large, too slow or incomplete."""
        self._make_room()
        deadline = asyncio.timeout(MOST_SECONDS)
        try:
            async with deadline:
                self._unfinished[deadline] = asyncio.get_running_loop()
                return await self._read(request)
        except TimeoutError:
            raise error(408, "the body took too long", closing(request.scope)) from None
        except ClientDisconnect:
            raise error(400, "the body is incomplete") from None
        finally:
            self._unfinished.pop(deadline, None)

    async def _read(self, request: Request) -> bytes:
        body = bytearray()
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                body += chunk
                if len(body) > self._most_bytes:
                    raise self._too_large(request)
        return bytes(body)

    def _make_room(self) -> None:
        if len(self._unfinished) < MOST_UNFINISHED:
            return
        oldest = next(iter(self._unfinished))
        loop = self._unfinished.pop(oldest)
        if loop is asyncio.get_running_loop() and not oldest.expired():
            oldest.reschedule(loop.time())

    def _too_large(self, request: Request) -> Exception:
        return error(413, "the body is too large", closing(request.scope))


def parse(body: bytes) -> Interaction:
    """The interaction. Raises the 400 to a body that is none."""
    try:
        interaction = json.loads(body)
    except (ValueError, RecursionError):
        interaction = None
    if not isinstance(interaction, dict) or type(interaction.get("type")) is not int:
        raise error(400, "the body is no interaction")
    return interaction


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The body's length if the request announces it. A header that cannot be parsed counts as 0."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    return max((int(value[:19]) for value in lengths if value.isdigit()), default=0)
