"""The servers of a location, each over a connection of its own: for a look at them, or to delete all records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgi_ratelimit.redis.address import Address, Location
from asgi_ratelimit.redis.connection import RedisPyConnection, hang_up

__all__ = ["ask", "connected", "masters_in", "slot_ranges"]

_SECONDS = 10.0  # for one server


@asynccontextmanager
async def connected(location: Location, address: Address | None) -> AsyncIterator[RedisPyConnection]:
    """A connection to one of the servers; the address matters in a cluster. Raises the errors of redis-py."""
    async with asyncio.timeout(_SECONDS):
        connection = await location.dial(address)
        try:
            yield connection
        finally:
            hang_up(connection)


async def ask(connection: RedisPyConnection, *words: Any) -> Any:
    """The reply to a command. Raises the errors of redis-py."""
    await connection.send_command(*words)
    return await connection.read_response(disable_decoding=True)


async def slot_ranges(location: Location) -> list[tuple[int, int, Address]]:
    """The slots of a cluster as ranges, each with its master, as the first node lists them that answers."""
    failure: Exception = ConnectionError(f"{location.name} has no address")
    for seed in location.seeds:
        try:
            async with connected(location, seed) as connection:
                reply = await ask(connection, "CLUSTER SLOTS")
        except (OSError, TimeoutError) as error:
            failure = error
        else:
            # A node that does not know its own name is the one that replied.
            return [(f, last, ((node[0] or b"").decode() or seed[0], int(node[1]))) for f, last, node, *_ in reply]
    raise failure


def masters_in(ranges: list[tuple[int, int, Address]]) -> list[Address]:
    """Each master once."""
    return list(dict.fromkeys(address for _, _, address in ranges))
