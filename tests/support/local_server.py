"""uvicorn on a free port of this machine, in a thread, for tests of what servers make of a request."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import uvicorn

from tests.support.servers.server import free_port, wait_until

__all__ = ["get_all", "served"]

Request = tuple[str, dict[str, str]]  # a path as it is sent, and headers


@contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """The port on which uvicorn serves the app, with these options of it."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical", ws="none", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn has started")
        yield port
    finally:
        server.should_exit = True
        thread.join(10)


def get_all(port: int, requests: Iterable[Request]) -> list[int]:
    """The statuses of these requests, sent one after the other."""
    client = HTTPConnection("127.0.0.1", port, timeout=10)
    statuses = []
    for path, headers in requests:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        response.read()
        statuses.append(response.status)
    client.close()
    return statuses
