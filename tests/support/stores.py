"""Stores for tests: empty, patient with a busy machine, and closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from asgi_ratelimit.redis import RedisStore
from tests.support.servers import Server

PATIENCE = 10.0  # seconds; a busy machine is no outage
_numbers = count()


def new_store(where: object, **options: Any) -> RedisStore:
    """An empty one, in which nobody but Redis decides unless the options say so."""
    chosen: dict[str, Any] = {"prefix": f"store{next(_numbers)}", "timeout": PATIENCE, "outage": "closed"}
    return RedisStore(where, **{**chosen, **options})


def names_of(server: Server, pattern: str = "*") -> list[str]:
    """What the records are called that are in Redis now; those of probes go by themselves."""
    return sorted(name for name in server.command("KEYS", pattern) if not name.endswith(":probe"))


def calls_of_the_script(server: Server) -> int:
    """How often any script was called since the server's statistics were reset."""
    found = server.command("INFO", "commandstats")
    return sum(found[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in found)


@contextmanager
def spoilt(server: Server, name: str, value: str) -> Iterator[None]:
    """Somebody else has written to a record; "list" makes it one."""
    server.command("DEL", name)
    server.command(*(("RPUSH", name, "x") if value == "list" else ("SET", name, value)))
    yield
    server.command("DEL", name)
