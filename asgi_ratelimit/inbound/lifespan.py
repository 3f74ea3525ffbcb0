"""The lifespan of an app with a store: the store starts before the app does, and is closed after it."""

from __future__ import annotations

import logging
import traceback
from asyncio import CancelledError

from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.inbound.options import ASGIApplication
from asgi_ratelimit.store import Store

__all__ = ["run_lifespan"]

logger = logging.getLogger("asgi_ratelimit")


async def run_lifespan(app: ASGIApplication, store: Store, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app's lifespan. If the store does not start, the app does not either, and the server is informed of it.

    A server that gets an exception instead may take it for an app without a lifespan, and serve it.
    """
    channels = _Channels(store, receive, send)
    try:
        await app(scope, channels.receive, channels.send)
    except (Exception, CancelledError):
        await channels.close_store()
        raise


class _Channels:
    """What passes between the server and the app."""

    def __init__(self, store: Store, receive: Receive, send: Send) -> None:
        self._store, self._receive, self._send = store, receive, send
        self._is_open = self._has_failed = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "lifespan.startup":
            self._is_open = True
            try:
                await self._store.start()
            except Exception as error:
                self._has_failed = True
                await self.close_store()
                await self._send({"type": "lifespan.startup.failed", "message": _reason(error)})
                raise
        return message

    async def send(self, message: Message) -> None:
        if self._has_failed:  # the server has the reason already
            return
        if message["type"] != "lifespan.startup.complete":
            await self.close_store()
        await self._send(message)

    async def close_store(self) -> None:
        """Close it once. The app has ended by then, so an error is logged instead of raised."""
        if self._is_open:
            self._is_open = False
            try:
                await self._store.aclose()
            except Exception:
                logger.exception("%r could not be closed", self._store)


def _reason(error: Exception) -> str:
    if isinstance(error, StoreUnavailable):
        return str(error)
    return f"the store of the rate limiter could not be started:\n{''.join(traceback.format_exception(error))}"
