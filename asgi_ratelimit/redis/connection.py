"""An open connection: redis-py has made it, and from then on calls go out and replies come in without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hiredis import HiredisError, Reader

__all__ = ["Channel"]


class Channel(asyncio.Protocol):
    """Takes over the transport of a redis-py connection."""

    def __init__(
        self,
        connection: Any,
        heard: Callable[[Channel, Any], None],
        lost: Callable[[Channel, Exception], None],
    ) -> None:
        self._connection, self._heard, self._lost = connection, heard, lost
        self._reader = Reader()
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)

    def send(self, written: bytes) -> None:
        self._transport.write(written)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._heard(self, reply)
        except HiredisError as error:
            self.close()
            self._lost(self, error)

    def connection_lost(self, error: Exception | None) -> None:
        self.close()
        self._lost(self, error or ConnectionError("Redis has closed the connection"))

    def close(self) -> None:
        """Hang up at once; what is in flight is not answered any more."""
        self._transport.abort()
        self._connection._writer = self._connection._reader = None  # it would warn that it was not closed
