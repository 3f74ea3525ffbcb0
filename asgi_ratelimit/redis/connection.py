"""An open connection: redis-py has made it, and from then on calls go out and replies come in without a task."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from hiredis import HiredisError, ProtocolError, Reader

__all__ = ["TLS_GOODBYE", "Connect", "NodeConnection", "RedisPyConnection", "end", "hang_up"]


class RedisPyConnection(Protocol):
    """The part of redis-py's connections that is used while a connection is opened."""

    _writer: asyncio.StreamWriter | None

    async def connect(self) -> None: ...

    async def send_command(self, *arguments: Any) -> None: ...

    async def send_packed_command(self, command: bytes) -> None: ...

    async def read_response(self, disable_decoding: bool = ...) -> Any: ...


def hang_up(opened: RedisPyConnection) -> None:
    """Close a connection at once. redis-py would wait for the other end if it speaks TLS."""
    writer, opened._writer = opened._writer, None
    if writer is not None:
        writer.transport.abort()


async def end(openings: Collection[asyncio.Future[Any]]) -> None:
    """End tasks that open connections. They get a moment, since asyncio loses a TLS connection that was just made."""
    _, late = await asyncio.wait(openings, timeout=_A_MOMENT)
    for opening in late:
        opening.cancel()
    await asyncio.gather(*openings, return_exceptions=True)
    if late:  # the loop may end after this: until then a lost TLS connection has to be closed
        await asyncio.sleep(2 * TLS_GOODBYE)


# More elements, or bytes, than any reply has. The parser makes room for elements as soon as they are announced.
_too_much = re.compile(rb"\n(?:[*%~>|][0-9]{6}|[$=!][0-9]{9})").search
_A_MOMENT = 0.05  # seconds
TLS_GOODBYE = 0.01  # seconds for the other end to close a TLS connection; asyncio would wait for 30
_LONGEST_HEADER = 32  # bytes of one that may have come in two parts
Connect = Callable[[], Awaitable[RedisPyConnection]]  # opens a connection


class NodeConnection(asyncio.Protocol):
    """Takes over the transport of a redis-py connection, by a private name.

    redis-py's public methods would do for sending and reading, at 8 to 12 % more for a lone check. But its fast parser
    makes room for as many elements as a reply announces, and the bounded one halves the checks per second.
    """

    def __init__(
        self,
        opened: RedisPyConnection,
        on_reply: Callable[[NodeConnection, Any], None],
        on_lost: Callable[[NodeConnection, Exception], None],
    ) -> None:
        writer, opened._writer = opened._writer, None  # else redis-py warns that it was not closed
        if writer is None:
            raise ConnectionError("Redis has closed the connection")
        self._on_reply, self._on_lost = on_reply, on_lost
        self._reader = Reader()
        self._rest = b"\r\n"  # the end of what has been read
        self._writer: asyncio.StreamWriter | None = writer
        self._transport = writer.transport
        self._transport.set_protocol(self)
        self.send: Callable[[bytes], None] = self._transport.write

    def data_received(self, data: bytes) -> None:
        try:
            seen = self._rest + data
            self._rest = seen[-_LONGEST_HEADER:]
            if _too_much(seen):
                raise ProtocolError("Redis announces a reply that is too long for any call")
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._on_reply(self, reply)
        except HiredisError as error:
            self.close()
            self._on_lost(self, error)

    def connection_lost(self, error: Exception | None) -> None:
        self.close()
        self._on_lost(self, error or ConnectionError("Redis has closed the connection"))

    def close(self) -> None:
        """Close at once. Replies that are still expected do not arrive any more."""
        self._transport.abort()
        self._writer = None  # it would warn if it outlived the transport
