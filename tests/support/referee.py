"""A referee that counts which calls are inside, for processes that may die: it sees that their sockets are closed.

A process sends a line "enter" with the number of a place when a call is inside, and "leave" before it lets go of its
slot. It goes on when that is confirmed, so what is counted is never more than what is really inside. "cancelled" is how
many of its calls were cancelled.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self


class Referee:
    """Listens on a port of this machine, in a thread."""

    def __init__(self) -> None:
        self.inside: Counter[int] = Counter()
        self.most: Counter[int] = Counter()
        self.entered: Counter[int] = Counter()
        self.cancelled = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await self._loop.create_server(lambda: _Visitor(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()

    def enter(self, place: int) -> None:
        self.inside[place] += 1
        self.entered[place] += 1
        self.most[place] = max(self.most[place], self.inside[place])


class _Visitor(asyncio.Protocol):
    def __init__(self, referee: Referee) -> None:
        self._referee = referee
        self._mine: Counter[int] = Counter()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, received: bytes) -> None:
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            word, number = line.split()
            self._hear(word, int(number))

    def _hear(self, word: bytes, number: int) -> None:
        if word == b"enter":
            self._mine[number] += 1
            self._referee.enter(number)
        elif word == b"leave":
            self._mine[number] -= 1
            self._referee.inside[number] -= 1
            self._transport.write(b"k")
        else:
            self._referee.cancelled += number

    def connection_lost(self, error: Exception | None) -> None:
        self._referee.inside.subtract(self._mine)


class Visits:
    """The socket of one process. Its event loop stands still until a departure is confirmed."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def enter(self, place: int) -> None:
        self._socket.sendall(b"enter %d\n" % place)

    def leave(self, place: int) -> None:
        self._socket.sendall(b"leave %d\n" % place)
        assert self._socket.recv(1) == b"k"

    def report(self, cancelled: int) -> None:
        self._socket.sendall(b"cancelled %d\n" % cancelled)
