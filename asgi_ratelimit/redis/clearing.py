"""Deletes every record of a store, between two tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from asgi_ratelimit.redis.address import Address, Location
from asgi_ratelimit.redis.connection import RedisPyConnection, hang_up

__all__ = ["delete_records"]

_SECONDS = 10.0  # for one server
_AT_ONCE = 1000


async def delete_records(location: Location, prefix: str) -> None:
    """Delete all records whose names begin with the prefix, on every master. Raises the errors of redis-py."""
    for address in await _masters(location) if location.kind == "cluster" else [None]:
        async with asyncio.timeout(_SECONDS):
            connection = await location.dial(address)
            try:
                await _delete_on(connection, prefix)
            finally:
                hang_up(connection)


async def _masters(location: Location) -> list[Address]:
    failure: Exception = ConnectionError(f"{location.name} has no address")
    for seed in location.seeds:
        try:
            async with asyncio.timeout(_SECONDS):
                connection = await location.dial(seed)
                try:
                    slots = await _call(connection, "CLUSTER SLOTS")
                finally:
                    hang_up(connection)
        except (OSError, TimeoutError) as error:
            failure = error
        else:
            # A node that does not know its own name is the one that replied.
            masters = [((master[0] or b"").decode() or seed[0], int(master[1])) for _, _, master, *_ in slots]
            return list(dict.fromkeys(masters))
    raise failure


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
        cursor, names = await _call(connection, "SCAN", cursor, "MATCH", pattern, "COUNT", _AT_ONCE)
        yield names
        if cursor == b"0":
            return


async def _call(connection: RedisPyConnection, *words: Any) -> Any:
    await connection.send_command(*words)
    return await connection.read_response(disable_decoding=True)
