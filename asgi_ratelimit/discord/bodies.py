"""The bodies of requests that a proxy keeps: so many bytes at a time. The others stay with their clients until then."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final, NoReturn

from starlette.types import Receive

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.deadlines import within

__all__ = ["BodyRefused", "ClientLeft", "KeptBodies", "Room"]

SMALL: Final = 2**16  # bytes: as much as a server reads ahead in any case
_SMALL_PART: Final = 4  # of all room, one part in so many is for small bodies
_DIGITS: Final = 20  # a length with so many is none
_PAUSE_S: Final = 30.0  # that a large body may stand still, as others wait for its room


class BodyRefused(Exception):
    """A body that is not forwarded, and the status that says so."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class ClientLeft(Exception):
    """The client has gone before the end of its body."""


class Room:
    """So many bytes at a time, first come, first served."""

    def __init__(self, size: int) -> None:
        self.size, self._free = size, size
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self.size - self._free

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._line)

    async def take(self, amount: int) -> None:
        """Wait until there is so much. Cancelled, it takes none."""
        if not self._line and amount <= self._free:
            self._free -= amount
            return
        place = (amount, asyncio.get_running_loop().create_future())
        self._line.append(place)
        try:
            await place[1]
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                self.give(0)  # the next one may need less
            else:
                self.give(amount)
            raise

    def give(self, amount: int) -> None:
        """Give so much back. Those who wait go on in their order, as long as there is enough."""
        self._free += amount
        while self._line and self._line[0][0] <= self._free:
            amount, turn = self._line.popleft()
            self._free -= amount
            if not turn.done():
                turn.set_result(None)


@dataclass(slots=True, eq=False)
class _Share:
    """The room that one body has."""

    room: Room | None = None
    amount: int = 0

    async def take(self, room: Room, amount: int) -> None:
        await room.take(amount)
        self.room, self.amount = room, amount

    def shrink(self, amount: int) -> None:
        if self.room is not None and amount < self.amount:
            self.room.give(self.amount - amount)
            self.amount = amount


class KeptBodies:
    """Reads bodies when there is room for them. Small ones have room of their own: they wait for no large one."""

    def __init__(self, clock: Clock, largest: int, memory: int) -> None:
        """`largest`: bytes of one body; `memory`: of all bodies at a time."""
        self._clock, self._largest = clock, largest
        self._small = Room(memory // _SMALL_PART)
        self._large = Room(memory - self._small.size)
        if self._room_of(largest).size < largest:
            least = -(-largest * _SMALL_PART // (_SMALL_PART - 1))
            raise ValueError(f"max_memory must be bytes from {least}, for bodies of {largest}, not {memory!r}")

    @property
    def taken(self) -> int:
        """Bytes that are kept, or promised."""
        return self._small.taken + self._large.taken

    @property
    def waiting(self) -> int:
        """The requests that wait for room."""
        return self._small.waiting + self._large.waiting

    @asynccontextmanager
    async def kept(
        self, receive: Receive, headers: Iterable[tuple[bytes, bytes]], wait_s: float | None
    ) -> AsyncIterator[bytes]:
        """The body of a request, which has its room within this block.

        Raises BodyRefused, also if there is no room within `wait_s` seconds, or ClientLeft.
        """
        share, length, is_asking = _Share(), None, False
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and len(value) < _DIGITS:
                length = int(value)
            is_asking |= name == b"expect"
        if length is not None and length > self._largest:
            await self._refuse(receive, has_rest=not is_asking)
        try:
            yield await self._read(receive, length, share, wait_s)
        finally:
            share.shrink(0)

    async def _read(self, receive: Receive, length: int | None, share: _Share, wait_s: float | None) -> bytes:
        if length:
            await self._take(share, length, wait_s)
        body, is_more = BytesIO(), True
        while is_more:
            piece, is_more = await self._next(receive, is_held=share.amount > SMALL)
            size = body.tell() + len(piece)
            if size > self._largest:
                await self._refuse(receive, has_rest=is_more)
            body.write(piece)
            if share.room is None and size and (size > SMALL or not is_more):  # now it shows whether it is small
                await self._take(share, self._largest if is_more else size, wait_s)
        share.shrink(body.tell())
        return body.getvalue()

    async def _take(self, share: _Share, amount: int, wait_s: float | None) -> None:
        if wait_s is None:
            await share.take(self._room_of(amount), amount)
            return
        try:
            async with within(self._clock, wait_s):
                await share.take(self._room_of(amount), amount)
        except TimeoutError:
            raise BodyRefused(429, "there is no room for the body yet") from None

    def _room_of(self, amount: int) -> Room:
        return self._small if amount <= min(SMALL, self._small.size) else self._large

    async def _next(self, receive: Receive, *, is_held: bool) -> tuple[bytes, bool]:
        """The next piece, and whether there are more."""
        if not is_held:
            message = await receive()
        else:
            try:
                async with within(self._clock, _PAUSE_S):
                    message = await receive()
            except TimeoutError:
                raise BodyRefused(408, f"nothing more of the body has come for {_PAUSE_S:.0f} s") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        return message.get("body", b""), message.get("more_body", False)

    async def _refuse(self, receive: Receive, *, has_rest: bool) -> NoReturn:
        """Read some of the rest first: many clients look for an answer only when they have sent everything."""
        left, is_more = 2 * self._largest, has_rest
        while is_more and left > 0:
            piece, is_more = await self._next(receive, is_held=True)
            left -= len(piece)
        raise BodyRefused(413, f"the body is larger than the {self._largest} bytes that this proxy forwards")
