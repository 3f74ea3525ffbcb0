"""Faults on the way to the fake API and back: failures, broken connections, responses that are held."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Literal, TypeVar, get_args

from starlette.types import Receive, Send

from asgi_ratelimit.testing.fake_discord.routes import Segments, Template

__all__ = ["ORDERS", "Fault", "Held", "Order", "When", "WhenDropped", "break_connection", "next_of"]

Effect = TypeVar("Effect")
When = Literal["before", "after"]
WhenDropped = Literal["before", "after", "within"]
Order = Literal["arrival", "reverse", "shuffled"]
ORDERS = ("arrival", "reverse", "shuffled")

_RESET = struct.pack("ii", 1, 0)  # a socket that lingers for no seconds is closed by a reset


@dataclass(slots=True)
class Fault(Generic[Effect]):
    """An effect that replaces the right response, before the request is carried out or after, or cuts it short."""

    effect: Effect
    left: int
    when: WhenDropped
    template: Template | None

    def __post_init__(self) -> None:
        if isinstance(self.left, bool) or not isinstance(self.left, int) or self.left < 1:
            raise ValueError(f"times must be a whole number of at least 1, e.g. times=3, not {self.left!r}")
        if self.when not in get_args(WhenDropped):
            raise ValueError(f'when must be "before", "after" or "within", e.g. when="after", not {self.when!r}')


def next_of(faults: list[Fault[Effect]], when: WhenDropped, method: str, segments: Segments) -> Effect | None:
    """The effect of the first fault that matches the request. None if there is none."""
    for fault in faults:
        if fault.when == when and (fault.template is None or fault.template.match(method, segments) is not None):
            fault.left -= 1
            if not fault.left:
                faults.remove(fault)
            return fault.effect
    return None


class Held:
    """Answers that wait until they are released, in whatever order."""

    def __init__(self, random: Random) -> None:
        self.closed = False
        self._random = random
        self._waiting: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return sum(not future.done() for future in self._waiting)

    async def pass_through(self) -> None:
        if not self.closed:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def release(self, count: int | None, order: Order) -> None:
        """Let so many go, the oldest unless the order is another; None: all of them."""
        waiting = [future for future in self._waiting if not future.done()]
        if order == "reverse":
            waiting.reverse()
        elif order == "shuffled":
            self._random.shuffle(waiting)
        going = waiting[:count]
        self._waiting = [future for future in self._waiting if future in set(waiting) - set(going)]
        for future in going:
            future.get_loop().call_soon_threadsafe(_let_go, future)


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def break_connection(receive: Receive, send: Send, *, sends_the_rest: bool = False) -> None:
    """Reset the connection if the server lets us get at it, as uvicorn does; else raise ConnectionResetError.

    With `sends_the_rest` it is closed, and what was written so far arrives.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if not hasattr(transport, "abort"):
        raise ConnectionResetError("FakeDiscord dropped the connection, as ordered")
    if sends_the_rest:
        transport.close()
    else:
        _reset(transport)
    while (await receive())["type"] != "http.disconnect":  # else the server would miss an answer
        pass


def _reset(transport: Any) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
