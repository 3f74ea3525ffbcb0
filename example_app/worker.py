"""The worker process that has answered, in a header of every response. The next response may come from another."""

from __future__ import annotations

import os

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["NamesItsWorker"]


class NamesItsWorker:
    """Puts the worker's process id on each response, and ends the connection with it.

    A browser keeps its connections, and with them the workers behind them: a new one may be taken by any worker.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._headers = [(b"x-worker", str(os.getpid()).encode()), (b"connection", b"close")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        await self.app(scope, receive, signed)
