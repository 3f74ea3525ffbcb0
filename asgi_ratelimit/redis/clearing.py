"""Deletes every record of a store, between two tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from asgi_ratelimit.redis.address import Location
from asgi_ratelimit.redis.connection import RedisPyConnection
from asgi_ratelimit.redis.servers import ask, connected, masters_in, slot_ranges

__all__ = ["delete_records"]

_AT_ONCE = 1000


async def delete_records(location: Location, prefix: str) -> None:
    """Delete all records whose names begin with the prefix, on every master. Raises the errors of redis-py."""
    masters = masters_in(await slot_ranges(location)) if location.kind == "cluster" else [None]
    for address in masters:
        async with connected(location, address) as connection:
            await _delete_on(connection, prefix)


async def _delete_on(connection: RedisPyConnection, prefix: str) -> None:
    async for names in _names(connection, prefix):
        for name in names:  # one by one: they are in many slots
            await connection.send_command("DEL", name)
        for _ in names:
            await connection.read_response(disable_decoding=True)


async def _names(connection: RedisPyConnection, prefix: str) -> AsyncIterator[list[bytes]]:
    pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + ":{*"  # each name has a tag in braces
    cursor = b"0"
    while True:
        cursor, names = await ask(connection, "SCAN", cursor, "MATCH", pattern, "COUNT", _AT_ONCE)
        yield names
        if cursor == b"0":
            return
