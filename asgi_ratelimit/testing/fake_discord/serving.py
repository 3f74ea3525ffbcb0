"""A FakeDiscord or a stage in a process of its own, served by uvicorn until a signal ends it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

__all__ = ["serve"]

GRACE = 1  # seconds for answers that are on their way when it is to end


def serve(app: ASGIApp, announce: Callable[[str], object], *, host: str = "127.0.0.1", port: int = 0) -> None:
    """Serve it until SIGINT or SIGTERM comes, in the main thread.

    `announce` gets the address once connections are taken. Port 0 is any that is free. Raises OSError if the port is
    taken, and ImportError without uvicorn.
    """
    import uvicorn

    options = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False, "date_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=GRACE, **options)  # type: ignore[arg-type]
    server = uvicorn.Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    with _listening(host, port) as listener, _at_signals(end):
        announce(_address_of(listener))
        server.run([listener])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """From here on the kernel keeps connections until uvicorn takes them."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1_024)
        yield listener


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _at_signals(end: Callable[..., None]) -> Iterator[None]:
    """Call `end` at signals that come before uvicorn watches, and at those that it raises again when it has ended."""
    signals = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(each, end) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, former, strict=True):
            signal.signal(each, handler)
