"""Counts of a server: calls, checks in them, and connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.servers import Server, wait_until

_SLOW_LOG = 20_000  # commands in the slow log, those that scripts called included


def calls(server: Server) -> int:
    """How often the script was called by its name, since the server started."""
    return int(server.command("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def clients(server: Server) -> set[int]:
    """The numbers of the connections that are open, without the one that asks."""
    with server.client() as asking:
        own = asking.client_id()
        return {int(client["id"]) for client in asking.client_list()} - {own}


def connections_ever(server: Server) -> int:
    """How many connections it has accepted, this one included."""
    return int(server.command("INFO", "stats")["total_connections_received"])


def until_alone(server: Server, *, besides: int = 0) -> None:
    """Return when there are no more connections than `besides`."""
    wait_until(lambda: len(clients(server)) == besides, "the connections are closed")


@contextmanager
def sizes_of_calls(server: Server) -> Iterator[list[int]]:
    """With how many keys the script is called meanwhile, call by call."""
    server.command("CONFIG", "SET", "slowlog-max-len", _SLOW_LOG)
    server.command("CONFIG", "SET", "slowlog-log-slower-than", 0)
    server.command("SLOWLOG", "RESET")
    sizes: list[int] = []
    try:
        yield sizes
        with server.client() as client:
            words = [entry["command"].split() for entry in client.slowlog_get(_SLOW_LOG)]
        sizes += [int(command[2]) for command in words if command[0] == b"EVALSHA"]
    finally:
        server.command("CONFIG", "SET", "slowlog-log-slower-than", 10_000)
        server.command("CONFIG", "SET", "slowlog-max-len", 128)
