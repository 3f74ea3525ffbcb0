"""A server of nothing: it replies the same to anything, and remembers what it has received."""

from __future__ import annotations

import socket
from threading import Thread
from typing import Self

from tests.support.servers.server import HOST

__all__ = ["Listener"]


class Listener:
    """Listens on a free port of this machine for as long as the block runs."""

    def __init__(self, reply: bytes) -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server((HOST, 0))
        self.port = int(self._socket.getsockname()[1])
        self._reply = reply
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    while data := connection.recv(65_536):
                        self.received.append(data)
                        connection.sendall(self._reply)
                except OSError:
                    continue
