"""Standing in line: the waiters of one key, first come first served, of whom only the first asks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable

__all__ = ["Lines"]

Ask = Callable[[], Awaitable[Decision]]
GiveBack = Callable[[Decision], Awaitable[None]]


class _Line:
    """Those who wait for one key on one event loop; the first of them is being served."""

    __slots__ = ("heard_us", "last", "turns")

    def __init__(self) -> None:
        self.turns: deque[asyncio.Future[bool]] = deque()
        self.last: Decision | None = None  # what the store said last, to whomever
        self.heard_us = 0


class Lines:
    """The lines of one limiter. An empty line is not kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[Hashable, _Line] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody stands in line for this key."""
        return (id(asyncio.get_running_loop()), key) in self._lines

    async def wait(self, key: Hashable, ask: Ask, cost: int, timeout: float | None, give_back: GiveBack) -> Decision:
        """Ask until it is allowed, each time at the moment the refusal named; then wait for the delay."""
        deadline_us = None if timeout is None else self._clock.now_us() + round(timeout * 1e6)
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(place := (id(loop), key), _Line())
        turn: asyncio.Future[bool] = loop.create_future()
        line.turns.append(turn)
        try:
            if line.turns[0] is not turn:
                await self._stand(line, turn, cost, timeout)
            decision = await self._ask_until_allowed(line, ask, cost, deadline_us)
        finally:
            self._leave(place, line, turn)
        await self._wait_out(decision, deadline_us, give_back)
        return decision

    async def _stand(self, line: _Line, turn: asyncio.Future[bool], cost: int, timeout: float | None) -> None:
        if timeout is None:
            await turn
            return
        timer = self._clock.call_later(timeout, lambda: _settle(turn, False))
        try:
            my_turn = await turn
        finally:
            timer.cancel()
        if not my_turn:
            if line.last is None:
                raise StoreUnavailable(f"the store did not answer within {timeout} s")
            raise RateLimited(line.last.as_refusal(cost))

    async def _ask_until_allowed(self, line: _Line, ask: Ask, cost: int, deadline_us: int | None) -> Decision:
        await self._sleep_until_known(line, cost, deadline_us)
        while True:
            decision = line.last = await ask()
            line.heard_us = self._clock.now_us()
            if decision.allowed:
                return decision
            self._refuse_if_late(decision, decision.retry_after, deadline_us)
            await self._clock.sleep(decision.retry_after)

    async def _sleep_until_known(self, line: _Line, cost: int, deadline_us: int | None) -> None:
        """The answer to the one before tells when to ask next: half as many questions."""
        if line.last is not None:
            due_us = line.heard_us + line.last.wait_us(cost)
            now_us = self._clock.now_us()
            if now_us < due_us and (deadline_us is None or due_us <= deadline_us):
                await self._clock.sleep((due_us - now_us) / 1e6)

    async def _wait_out(self, decision: Decision, deadline_us: int | None, give_back: GiveBack) -> None:
        if not decision.delay:
            return
        try:
            self._refuse_if_late(decision, decision.delay, deadline_us)
            await self._clock.sleep(decision.delay)
        except BaseException:
            await give_back(decision)
            raise

    def _refuse_if_late(self, decision: Decision, seconds: float, deadline_us: int | None) -> None:
        if deadline_us is not None and self._clock.now_us() + round(seconds * 1e6) > deadline_us:
            raise RateLimited(decision.as_refusal(decision.cost, round(seconds * 1e6)))

    def _leave(self, place: Hashable, line: _Line, turn: asyncio.Future[bool]) -> None:
        first = line.turns[0] is turn
        line.turns.remove(turn)
        if not line.turns:
            self._lines.pop(place, None)
        elif first:
            _settle(line.turns[0], True)


def _settle(turn: asyncio.Future[bool], mine: bool) -> None:
    if not turn.done():
        turn.set_result(mine)
