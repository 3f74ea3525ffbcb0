"""Stores for tests: empty, patient with a busy machine, and closed at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from asgi_ratelimit import MemoryStore, Policy, StoreUnavailable
from asgi_ratelimit.redis import RedisStore, Where
from tests.support.servers import Server

PATIENCE = 10.0  # seconds; a busy machine is no outage
_numbers = count()


def new_store(where: Where, **options: Any) -> RedisStore:
    """An empty store. Redis alone decides, unless the options change that."""
    chosen: dict[str, Any] = {"prefix": f"store{next(_numbers)}", "timeout": PATIENCE, "outage": "closed"}
    return RedisStore(where, **{**chosen, **options})


class UnavailableStore(MemoryStore):
    """Its limits fail closed: no check is answered."""

    def open(self, name: str, policies: Sequence[Policy]) -> Any:
        return _NoBuckets()


class _NoBuckets:
    async def decide(self, *_: Any) -> Any:
        raise StoreUnavailable("no server")

    peek = decide


def names_of(server: Server, pattern: str = "*") -> list[str]:
    """The names of the records in Redis, without those of probes, which expire."""
    return sorted(name for name in server.command("KEYS", pattern) if not name.endswith(":probe"))


def calls_of_the_script(server: Server) -> int:
    """How often any script was called since the server's statistics were reset."""
    commands = server.command("INFO", "commandstats")
    return sum(commands[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in commands)


@contextmanager
def spoilt(server: Server, name: str, value: str) -> Iterator[None]:
    """Another program has written to a record. "list" makes it a list."""
    server.command("DEL", name)
    server.command(*(("RPUSH", name, "x") if value == "list" else ("SET", name, value)))
    yield
    server.command("DEL", name)
