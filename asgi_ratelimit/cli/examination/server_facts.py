"""What each server of a Redis says of itself: read once, with commands that change nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from asgi_ratelimit.redis.servers import ask, connected

if TYPE_CHECKING:
    from asgi_ratelimit.redis.address import Address, Location

__all__ = ["ServerFacts", "facts_of"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server.

    name: its address
    settings: the lines of INFO; empty if its user may not read them
    ahead: how many seconds its clock is ahead of this machine's; None if unknown
    doubt: by how much `ahead` may be wrong
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    ahead: float | None = None
    doubt: float = 0.0

    def number(self, name: str) -> int:
        """A whole number among the settings, 0 if it is missing."""
        text = self.settings.get(name, "")
        return int(text) if text.isdecimal() else 0


async def facts_of(location: Location, address: Address | None) -> ServerFacts:
    """Raises the errors of redis-py if the server cannot be connected to."""
    name = f"{address[0]}:{address[1]}" if address else location.name
    async with connected(location, address) as connection:
        settings = _lines(await _reply(connection, "INFO"))
        started = time.time()
        moment = await _reply(connection, "TIME")
        ended = time.time()
    ahead = _seconds(moment)
    middle = (started + ended) / 2
    return ServerFacts(name, settings, None if ahead is None else ahead - middle, (ended - started) / 2)


async def _reply(connection: Any, *words: str) -> Any:
    """The reply; None if the user may not ask."""
    try:
        return await ask(connection, *words)
    except RedisError:
        return None


def _lines(reply: object) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


def _seconds(reply: object) -> float | None:
    try:
        seconds, microseconds = map(int, reply)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return float(seconds + microseconds / 1e6)
