"""Clients that do not wait for each other: requests at random moments, whatever happens to the earlier ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MIX", "Phase", "Sent", "send"]

PATIENCE_S = 3.0  # after which a client leaves
MIX = (0.05, 0.15, 0.80)  # of the classes 0, 1 and 2
HEALTH = 0.02  # of all requests


@dataclass(frozen=True, slots=True)
class Phase:
    """So many requests a second for so many seconds."""

    rate: float
    seconds: float


@dataclass(slots=True)
class Sent:
    """One request: its phase, when it was due, and its answer. `status` 0: its client has left."""

    phase: int
    at: float
    priority: int
    is_health_check: bool
    status: int = 0
    seconds: float = PATIENCE_S


class _Connection(asyncio.Protocol):
    """A connection that goes back into the pool after each answer."""

    def __init__(self, pool: list[_Connection]) -> None:
        self._pool, self._buffer = pool, b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))
            self._pool.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)


async def send(port: int, phases: Sequence[Phase], seed: int = 1) -> list[Sent]:
    """Send the requests of all phases, and wait until the last one has its answer. Times are since the start."""
    chance, pool, sent, tasks = random.Random(seed), list[_Connection](), list[Sent](), set[asyncio.Task[None]]()
    start, at = time.monotonic(), 0.0
    for number, phase in enumerate(phases):
        end = sum(each.seconds for each in phases[: number + 1])
        while (at := at + chance.expovariate(phase.rate)) < end:
            await asyncio.sleep(max(0.0, start + at - time.monotonic()))
            one = Sent(number, at, chance.choices(range(len(MIX)), MIX)[0], chance.random() < HEALTH)
            sent.append(one)
            tasks.add(asyncio.create_task(_send(port, one, pool, start)))
        at = end
    await asyncio.gather(*tasks)
    for connection in pool:
        connection.transport.close()
    return sent


async def _send(port: int, one: Sent, pool: list[_Connection], start: float) -> None:
    connection = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            connection = await _connect(port, pool)
            path = b"/health" if one.is_health_check else b"/"
            one.status = await connection.ask(
                b"GET %b HTTP/1.1\r\nhost: app\r\nx-class: %d\r\n\r\n" % (path, one.priority)
            )
            one.seconds = time.monotonic() - start - one.at
    except (TimeoutError, OSError):
        if connection is not None:
            connection.transport.abort()


async def _connect(port: int, pool: list[_Connection]) -> _Connection:
    while pool:
        connection = pool.pop()
        if not connection.transport.is_closing():
            return connection
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(lambda: _Connection(pool), "127.0.0.1", port))[1]
