"""The master of a service: its sentinels name it, and the last one they named is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from asgi_ratelimit.redis.connection import RedisPyConnection, end, hang_up

__all__ = ["Address", "Open", "Service"]

Address = tuple[str, int]
Open = Callable[[Address], Awaitable[RedisPyConnection]]

_PATIENCE = 0.6  # seconds for all sentinels, which are queried at once
_DOWN = {"s_down", "o_down"}


class _TurnedAway(Exception):
    """A sentinel has answered, and names no master that is up."""


class Service:
    """The master that any of the sentinels names.

    name: of the service
    sentinels: their addresses
    open_sentinel, open_server: connect to an address
    """

    def __init__(self, name: str, sentinels: Sequence[Address], open_sentinel: Open, open_server: Open) -> None:
        self._name, self._sentinels = name, sentinels
        self._open_sentinel, self._open_server = open_sentinel, open_server
        self._last_master: Address | None = None

    async def dial(self) -> RedisPyConnection:
        """A connection to the master. Without any sentinel, to the last one that was named."""
        self._last_master = address = await self._master()
        return await self._open_server(address)

    async def _master(self) -> Address:
        queries = [asyncio.ensure_future(self._query(sentinel)) for sentinel in self._sentinels]
        failures: list[BaseException] = []
        try:
            for answer in asyncio.as_completed(queries):
                try:
                    return await answer
                except (RedisError, OSError, TimeoutError, _TurnedAway) as error:
                    failures.append(error)
        finally:
            await end(queries)
        return self._without_answer(failures)

    def _without_answer(self, failures: Sequence[BaseException]) -> Address:
        for refusal in failures:
            if isinstance(refusal, (AuthenticationError, NoPermissionError)):
                raise type(refusal)(f"a sentinel does not let us in: {refusal}") from None
        for refusal in failures:
            if isinstance(refusal, _TurnedAway):
                raise RedisConnectionError(str(refusal)) from None
        if self._last_master is None:
            raise RedisConnectionError(f"no sentinel answers: {failures[0]}") from None
        return self._last_master

    async def _query(self, sentinel: Address) -> Address:
        connection = None
        try:
            async with asyncio.timeout(_PATIENCE):
                connection = await self._open_sentinel(sentinel)
                await connection.send_command("SENTINEL", "MASTER", self._name)
                return self._read(await connection.read_response(disable_decoding=True), sentinel)
        except (AuthenticationError, NoPermissionError):
            raise
        except RedisError as error:
            if "No such master" in str(error):
                raise self._refusal(sentinel) from None
            raise
        finally:
            if connection is not None:
                hang_up(connection)

    def _read(self, reply: Any, sentinel: Address) -> Address:
        try:
            words = [word.decode() for word in reply]
            state = dict(zip(words[::2], words[1::2], strict=True))
            flags, host, port = state["flags"].split(","), state["ip"], int(state["port"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RedisConnectionError(f"{sentinel[0]}:{sentinel[1]} answers as no sentinel does") from None
        if "master" not in flags or _DOWN.intersection(flags) or not 0 < port < 65_536:
            raise self._refusal(sentinel)
        return host, port

    def _refusal(self, sentinel: Address) -> _TurnedAway:
        host, port = sentinel
        return _TurnedAway(f"the sentinel {host}:{port} names no master of {self._name!r} that is up")
