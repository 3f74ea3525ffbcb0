"""One candidate, served by uvicorn as in production: `python -m benchmarks.served_app GROUP NAME COUNT`."""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from typing import Any

import uvicorn
import uvloop

from benchmarks import http_overhead

GROUPS = {"middleware": http_overhead.MIDDLEWARES, "dependency": http_overhead.DEPENDENCIES}


def main() -> None:
    warnings.simplefilter("ignore")  # the peers'
    group, name, count = sys.argv[1:]
    http_overhead.COUNT = int(count)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    options: dict[str, Any] = {"http": "httptools", "access_log": False, "log_level": "error"}
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_serve(GROUPS[group][name], listener, options))


async def _serve(make: Any, listener: socket.socket, options: dict[str, Any]) -> None:
    config = uvicorn.Config(await make(), lifespan="off", **options)
    await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    main()
