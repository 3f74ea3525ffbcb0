"""When a call may go: the permits of one token on one event loop, and who waits for them."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asgi_ratelimit.clock import Clock, Timer
from asgi_ratelimit.discord.errors import Cause, DiscordEvent, DiscordRateLimited, Tell
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, CallReport
from asgi_ratelimit.discord.permits.memory import Granted, Permit, Permits, Wait
from asgi_ratelimit.discord.queue import Queue, Turn
from asgi_ratelimit.discord.routes import Route

__all__ = ["CLOSED", "Call", "Pace", "Pacer", "Waiting"]

CLOSED = "Cannot send a request, as the client has been closed."
_FIRST_LOOK_S = 0.02  # for answers to other processes' calls, of which nobody tells us
_LAST_LOOK_S = 0.32
_SWEEP_S = 30.0
_NO_ROOM = Wait("", 0, 0, 0, 0, 0, 0, "answer", AWAIT_RESPONSE)  # too many calls are in flight
_CROWDED = Wait("", 0, 0, 0, 0, 0, 0, "global", AWAIT_RESPONSE)  # others wait for the global limit already


@dataclass(frozen=True, slots=True)
class Pace:
    """What bounds all calls of a token: so many in any second, and so many at a time without an answer."""

    per_second: int = 50
    in_flight: int = 100

    def __post_init__(self) -> None:
        for name, value in (("global_limit", self.per_second), ("max_in_flight", self.in_flight)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of calls from 1, e.g. 50, not {value!r}")


@dataclass(slots=True, eq=False)
class Call:
    """A call that wants to go: until `due_us` on the store's clock (None: whenever), higher priorities first."""

    route: Route
    priority: int = 0
    due_us: int | None = None
    rank: tuple[int, int] | None = None  # its place among others, kept for its next attempts
    was_told: bool = False  # that it waits


@dataclass(frozen=True, slots=True)
class Waiting:
    """A line as it is shown: how many calls of a route stand in it, what for, and what is known of their bucket."""

    route: str
    calls: int
    cause: str
    seconds: float
    bucket: str
    limit: int
    remaining: int


@dataclass(slots=True, eq=False)
class _Pause:
    over: asyncio.Future[None]
    for_answer: bool


class Pacer:
    """Gives each call a permit in its turn: one line per kind of call and resource, of which only the first asks."""

    def __init__(self, permits: Permits, clock: Clock, pace: Pace, tell: Tell, check: Callable[[Route], None]) -> None:
        """`check` raises for a route to which nothing is sent any more."""
        self._permits, self._clock, self._pace, self._tell, self._check = permits, clock, pace, tell, check
        self._lines: dict[tuple[str, str], tuple[Route, Queue]] = {}
        self._crowd = Queue(pace.per_second)  # the first ones of those lines, while the global limit is used up
        self._out = 0  # permits that are not settled
        self._pauses: dict[str, set[_Pause]] = {}  # by what they wait for
        self._settling: set[asyncio.Future[None]] = set()
        self._numbers = itertools.count()
        self._name = secrets.token_hex(6)
        self._sweeping: Timer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def waiting(self) -> list[Waiting]:
        """The lines in which somebody stands."""
        return [self._shown(route, queue) for route, queue in self._lines.values() if queue.is_held]

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, and nothing is remembered that was in use lately."""
        return not self._lines and self._sweeping is None

    # The two halves of a call

    async def permit(self, call: Call) -> Permit:
        """Wait for one's turn. DiscordRateLimited as soon as it is known that it would be too late."""
        if self._is_closed:
            raise RuntimeError(CLOSED)
        if self._loop is not asyncio.get_running_loop():  # a former one may be closed, and its calls and timers with it
            self._loop, self._out, self._sweeping = asyncio.get_running_loop(), 0, None
        place = (call.route.name, call.route.major)
        _, line = self._lines.setdefault(place, (call.route, Queue(self._pace.per_second)))
        if call.rank is None:
            call.rank = (-call.priority, next(self._numbers))
        try:
            with self._standing(line, call) as turn:
                await self._stand(line, turn, call)
                permit = await self._served(line, call)
        finally:
            if not len(line):
                self._lines.pop(place, None)
        if self._sweeping is None:
            self._sweeping = self._clock.call_later(_SWEEP_S, self._sweep)
        return permit

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Say what became of a call, and wake those who wait for that."""
        self._out -= 1
        told = self._permits.settle(permit, report)
        if told is not None:
            settling = asyncio.ensure_future(told)
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
        for key in (f"major {permit.major}", "global"):
            for pause in self._pauses.get(key, ()):
                if pause.for_answer or report.verdict == "unsent":
                    _finish(pause.over)

    def wake(self, major: str | None = None) -> None:
        """Have those ask again who wait (for this resource): they may have to wait no more, or in vain."""
        for key, pauses in self._pauses.items():
            if major is None or key in (f"major {major}", "global"):
                for pause in pauses:
                    _finish(pause.over)

    async def aclose(self) -> None:
        """Let nobody wait any more: RuntimeError for those who do."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for queue in (self._crowd, *(queue for _, queue in self._lines.values())):
            queue.dismiss(CLOSED)
        self.wake()
        if self._settling:
            await asyncio.wait(self._settling, timeout=1.0)

    # Standing in line

    @contextmanager
    def _standing(self, queue: Queue, call: Call) -> Iterator[Turn]:
        turn = Turn(call.rank or (0, 0), call.due_us, asyncio.get_running_loop().create_future())
        queue.enter(turn)
        try:
            yield turn
        finally:
            queue.leave(turn)

    async def _stand(self, queue: Queue, turn: Turn, call: Call) -> None:
        """Until it is the first."""
        if turn.called.done():
            return
        now_us = self._clock.now_us()
        due_us = queue.earliest_us(queue.place_of(turn), now_us)
        self._refuse_if_late(call, queue.lease, due_us - now_us)
        self._say_it_waits(call, queue.lease, due_us - now_us)
        timer = None
        if call.due_us is not None:
            timer = self._clock.call_later((call.due_us - now_us) / 1e6, lambda: _tell_late(turn))
        try:
            my_turn = await turn.called
        finally:
            if timer is not None:
                timer.cancel()
        if not my_turn:
            now_us = self._clock.now_us()
            raise self._too_late(call, queue.lease, queue.earliest_us(queue.place_of(turn), now_us) - now_us)

    async def _served(self, line: Queue, call: Call) -> Permit:
        """As the first of its line: ask, and wait for as long as one is told, until one may go."""
        look_s = _FIRST_LOOK_S
        while True:
            lease = _CROWDED if len(self._crowd) and not call.route.exempt else await self._asked(call)
            if isinstance(lease, Wait) and _is_for_all(lease):
                line.heard(lease, self._clock.now_us())
                lease = await self._through_the_crowd(call)
            if isinstance(lease, Granted):
                return lease.permit
            line.heard(lease, self._clock.now_us())
            await self._pause(call, lease, look_s, f"major {call.route.major}")
            look_s = min(2 * look_s, _LAST_LOOK_S) if lease.wait_us == AWAIT_RESPONSE else _FIRST_LOOK_S

    async def _through_the_crowd(self, call: Call) -> Granted | Wait:
        """The answer to one whom the global limit does not hold up, once it is its turn there."""
        with self._standing(self._crowd, call) as turn:
            await self._stand(self._crowd, turn, call)
            while True:
                lease = await self._asked(call)
                if isinstance(lease, Granted) or not _is_for_all(lease):
                    return lease
                self._crowd.heard(lease, self._clock.now_us())
                await self._pause(call, lease, _LAST_LOOK_S, "global")

    async def _asked(self, call: Call) -> Granted | Wait:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        route = call.route
        self._check(route)
        if self._out >= self._pace.in_flight and not route.exempt:
            return _NO_ROOM
        per_second = 0 if route.exempt else self._pace.per_second
        reply = self._permits.take(f"{self._name}{next(self._numbers):x}", route.name, route.major, per_second)
        lease = reply if isinstance(reply, (Granted, Wait)) else await reply
        self._out += isinstance(lease, Granted)
        return lease

    async def _pause(self, call: Call, lease: Wait, look_s: float, key: str) -> None:
        """Until one may ask again: the moment one was told, or when an answer has come."""
        for_answer = lease.wait_us == AWAIT_RESPONSE
        wait_us = round(look_s * 1e6) if for_answer else lease.wait_us
        self._refuse_if_late(call, lease, 0 if for_answer else wait_us)
        self._say_it_waits(call, lease, wait_us)
        if for_answer and call.due_us is not None:
            wait_us = min(wait_us, call.due_us - self._clock.now_us() + 1)
        pause = _Pause(asyncio.get_running_loop().create_future(), for_answer)
        pauses = self._pauses.setdefault(key, set())
        pauses.add(pause)
        timer = self._clock.call_later(wait_us / 1e6, lambda: _finish(pause.over))
        try:
            await pause.over
        finally:
            timer.cancel()
            pauses.discard(pause)
            if not pauses and self._pauses.get(key) is pauses:
                del self._pauses[key]

    # What is told

    def _refuse_if_late(self, call: Call, lease: Wait | None, wait_us: int) -> None:
        if call.due_us is not None and self._clock.now_us() + wait_us > call.due_us:
            raise self._too_late(call, lease, wait_us)

    def _too_late(self, call: Call, lease: Wait | None, wait_us: int) -> DiscordRateLimited:
        bucket = lease.bucket if lease is not None else ""
        return DiscordRateLimited(call.route, max(0, wait_us) / 1e6, _cause_of(lease), bucket)

    def _say_it_waits(self, call: Call, lease: Wait | None, wait_us: int) -> None:
        if not call.was_told:
            call.was_told = True
            bucket = lease.bucket if lease is not None else ""
            self._tell(DiscordEvent("wait", str(call.route), wait_us / 1e6, _cause_of(lease), bucket))

    def _shown(self, route: Route, queue: Queue) -> Waiting:
        lease, now_us = queue.lease, self._clock.now_us()
        seconds = (queue.earliest_us(0, now_us) - now_us) / 1e6
        if lease is None:
            return Waiting(str(route), len(queue), _cause_of(lease), seconds, "", 0, 0)
        return Waiting(
            str(route), len(queue), _cause_of(lease), seconds, lease.bucket, lease.limit, max(0, lease.remaining)
        )

    def _sweep(self) -> None:
        """Let go of what is over, though nobody calls any more."""
        left = self._permits.sweep()
        self._sweeping = self._clock.call_later(_SWEEP_S, self._sweep) if left and not self._is_closed else None


def _cause_of(lease: Wait | None) -> Cause:
    return lease.cause if lease is not None else "answer"


def _is_for_all(lease: Wait) -> bool:
    """Whether it is no matter of one bucket."""
    return lease.cause == "global" or lease is _NO_ROOM


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell_late(turn: Turn) -> None:
    if not turn.called.done():
        turn.called.set_result(False)
