"""A connection as it is opened: whether its user may run all that checks need, and the server's memory settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AskError, NoPermissionError, RedisError, ResponseError

from asgi_ratelimit.redis.calls import is_answer
from asgi_ratelimit.redis.connection import RedisPyConnection
from asgi_ratelimit.redis.wire import Command, command, shape, write

__all__ = ["FORBIDDEN", "inspect", "probe"]

# What Redis answers about a command that the user may not run, where it is no NOPERM.
FORBIDDEN = ("NOPERM ", "ACL failure", "user executing the script can't")

_PROBE = shape("probe", 1)


class _Probe:
    def __init__(self, key: str) -> None:
        self.keys, self.shape = (key,), _PROBE


async def probe(opened: RedisPyConnection, key: str, now: str, timeout: float) -> None:
    """Run the script, which writes. Raises the errors of redis-py.

    now: the time for the script; "" is the server's own
    timeout: that of each round trip
    """
    await _ask_to_be_let_in(opened, timeout)
    question = command([_Probe(key)], now, number=1, by_name=False)
    await _check(opened, key, timeout, [_result(reply) for reply in await _replies(opened, timeout, [question])])


async def inspect(opened: RedisPyConnection, key: str, now: str, timeout: float, *, in_cluster: bool) -> str:
    """As `probe`, with each command that checks need. Returns the memory settings: "" if the user may not read them."""
    await _ask_to_be_let_in(opened, timeout)
    questions = [command([_Probe(key)], now, number=1, by_name=by_name) for by_name in (False, True)]
    commands = [*questions, ("INFO", "memory"), ("DEL", key), *([("ASKING",)] if in_cluster else [])]
    first, second, memory, *others = await _replies(opened, timeout, commands)
    await _check(opened, key, timeout, [_result(first), _result(second), *others])
    return memory.decode(errors="replace") if isinstance(memory, bytes) else ""


async def _ask_to_be_let_in(opened: RedisPyConnection, timeout: float) -> None:
    """Raise AuthenticationError if the server wants a password. It hangs up on a stranger with a long script."""
    await _replies(opened, timeout, [("PING",)])


async def _check(opened: RedisPyConnection, key: str, timeout: float, replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception) and not isinstance(reply, AskError):  # its slots may have moved
            is_unnamed = any(words in str(reply) for words in FORBIDDEN)
            raise await _named(opened, key, timeout, reply) if is_unnamed else reply


async def _named(opened: RedisPyConnection, key: str, timeout: float, error: Exception) -> Exception:
    """An error about a command in a script does not name it, so each is tried by itself."""
    commands = [("TIME",), ("GET", key), ("SET", key, 1, "PX", 1000), ("DEL", key)]
    named = (each for each in await _replies(opened, timeout, commands) if isinstance(each, NoPermissionError))
    return next(named, error)


async def _replies(opened: RedisPyConnection, timeout: float, commands: Sequence[Command]) -> list[Any]:
    """The reply to each of the commands. An error is one."""
    async with asyncio.timeout(timeout):
        await opened.send_packed_command(write(*commands))
        return [await _reply(opened) for _ in commands]


async def _reply(opened: RedisPyConnection) -> Any:
    try:
        return await opened.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _result(reply: Any) -> Any:
    """The reply of a script, or what is wrong with it."""
    if isinstance(reply, Exception):
        return reply
    if not isinstance(reply, list) or not is_answer(reply, 1):
        return RedisError("the replies are not those of its scripts")
    return ResponseError(reply[1].decode(errors="replace").strip()) if isinstance(reply[1], bytes) else reply
