"""When a call may go: the permits of one token on one event loop, and the queues of calls that wait for them."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from asgi_ratelimit.clock import Clock, Timer
from asgi_ratelimit.discord.calls import Call, CallLimits, Waiting
from asgi_ratelimit.discord.errors import Cause, DiscordEvent, DiscordRateLimited, EventHook
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, FIXED, SLIDING, CallReport
from asgi_ratelimit.discord.permits.memory import SECOND_US, Granted, Permit, Permits, Wait
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scopes import TOGETHER, Scope, Scopes, Unit
from asgi_ratelimit.waiting import Waiter, WaitQueue

__all__ = ["CLOSED", "Call", "CallLimits", "Scheduler", "Waiting", "estimate_us"]

CLOSED = "Cannot send a request, as the client has been closed."
_UNSENT = CallReport("unsent")
_FIRST_CHECK_S = 0.02  # for responses to other processes' calls, which this process does not see
_LAST_CHECK_S = 0.32
_SWEEP_S = 30.0
_NO_ROOM = Wait("", 0, 0, 0, 0, 0, 0, "answer", AWAIT_RESPONSE)  # too many calls are in flight
_UNDECIDED = Wait("", 0, 0, 0, 0, 0, 0, "answer", AWAIT_RESPONSE)  # the first responses show how far a bucket reaches
_HIDDEN = Wait("", 0, 0, 0, 0, 0, 0, "answer", AWAIT_RESPONSE)  # another one may be about to show the limit
_CROWDED = Wait("", 0, 0, 0, 0, 0, 0, "global", AWAIT_RESPONSE)  # others wait for the global limit already


@dataclass(slots=True, eq=False)
class _Pause:
    over: asyncio.Future[None]
    for_response: bool


class Scheduler:
    """Gives each call a permit in its turn. There is one queue per route and resource; only its head asks."""

    def __init__(
        self,
        permits: Permits,
        clock: Clock,
        limits: CallLimits,
        emit: EventHook,
        check: Callable[[Route], None],
        scopes: Scopes,
    ) -> None:
        """`check` raises for a route to which nothing is sent any more. Schedulers of one address share `scopes`."""
        self._permits, self._clock, self._limits, self._emit, self._check = permits, clock, limits, emit, check
        self._queues: dict[tuple[str, str], tuple[Route, WaitQueue[Wait]]] = {}
        self._scopes = scopes
        self._estimate = partial(estimate_us, limits.per_second)
        # The heads of those queues, while the global limit is used up.
        self._global_queue: WaitQueue[Wait] = WaitQueue(clock, self._estimate)
        self._out = 0  # permits that are not settled
        self._hidden: dict[tuple[str, str], str] = {}  # those of hidden limits, by route and resource
        self._pauses: dict[str, set[_Pause]] = {}  # by the cause of the wait
        self._settling: set[asyncio.Future[None]] = set()
        self._numbers = itertools.count()
        self._name = secrets.token_hex(6)
        self._sweeping: Timer | None = None
        self._is_closed = False

    @property
    def waiting(self) -> list[Waiting]:
        """The queues in which calls wait."""
        return [self._shown(route, queue) for route, queue in list(self._queues.values()) if queue.is_held]

    @property
    def is_idle(self) -> bool:
        """Whether no call waits, and no recent call is remembered."""
        return not self._queues and self._sweeping is None

    # The two halves of a call

    async def permit(self, call: Call) -> Permit:
        """Wait for the call's turn. Raises DiscordRateLimited as soon as that is sure to come too late."""
        if self._is_closed:
            raise RuntimeError(CLOSED)
        queue = self._queue_of(call.route)
        if call.rank is None:
            call.rank = (-call.priority, next(self._numbers))
        waiter = queue.enter(call.rank, call.due_us, patience_us=call.patience_us)
        try:
            await self._wait_turn(queue, waiter, call)
            permit = await self._wait_permit(queue, call)
        finally:
            if queue.leave(waiter):
                self._drop(queue, call.route)
        if self._sweeping is None:
            self._sweeping = self._clock.call_later(_SWEEP_S, self._sweep)
        return permit

    async def would_wait(self, route: Route) -> float:
        """Seconds that a call would wait for its permit, as far as is known now."""
        now_us = self._clock.now_us()
        _, queue = self._queues.get((route.name, route.major), (route, None))
        queues = [queue, None if route.exempt else self._global_queue]
        wait_us = max(0 if each is None else each.earliest_us(len(each), now_us) - now_us for each in queues)
        reply = await self._take(route)
        if isinstance(reply, Granted):
            self.settle(reply.permit, _UNSENT)
            return wait_us / 1e6
        return max(wait_us, reply.wait_us) / 1e6

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Give a permit back with the outcome of its call, and wake the calls that wait for that."""
        self._out -= 1
        if self._hidden and self._hidden.get((permit.route, permit.major)) == permit.name:
            del self._hidden[permit.route, permit.major]
        scope = self._scopes.by_route.get(permit.route)
        if scope is not None and (not scope.is_plain or report.verdict == "limited"):
            report = self._learn_scope(scope, permit, report)
        elif scope is not None and scope.out:  # of before it was plain
            scope.out.pop(permit.name, None)
        self._settle(permit, report)
        if self._pauses:
            is_sent = report.verdict != "unsent"
            self._end_pauses(f"major {permit.major}", is_sent=is_sent)
            self._end_pauses("global", is_sent=is_sent)

    def _settle(self, permit: Permit, report: CallReport) -> None:
        settling = self._permits.settle(permit, report)
        if settling is not None:
            task = asyncio.ensure_future(settling)
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    def _learn_scope(self, scope: Scope, permit: Permit, report: CallReport) -> CallReport:
        """Learn how far the bucket reaches. Calls that wait for that, or share it, are woken."""
        if scope.single is not None and report.verdict == "answered" and report.bucket == scope.bucket:
            scope.last_of_single = (self._name, self._timed(permit), report, self._clock.now_us())
            return report
        former = scope.reach
        scope, report = self._scopes.learn(self._name, self._timed(permit), report, self._clock.now_us())
        if scope.reach == TOGETHER and not permit.together and report.verdict == "limited":
            self._settle(replace(permit, together=True, bucket=""), report)  # the bucket that all share from now on
        for key in (f"route {permit.route}", f"bucket {scope.bucket}"):
            self._end_pauses(key, is_sent=scope.reach == former and report.verdict != "unsent")
        return report

    def _timed(self, permit: Permit) -> Permit:
        """The same by this process's clock, which scopes go by. Permits of a shared store have the server's time."""
        clock = self._permits.clock
        if clock is self._clock:
            return permit
        return replace(permit, sent_us=self._clock.now_us() - (clock.now_us() - permit.sent_us))

    def wake(self, major: str | None = None) -> None:
        """Have waiting calls (of this resource) check again: they may go by now, or never."""
        for key, pauses in self._pauses.items():
            if major is None or key in (f"major {major}", "global") or key.startswith(("route ", "bucket ")):
                for pause in pauses:
                    _finish(pause.over)

    async def aclose(self) -> None:
        """End all waiting, with a RuntimeError for each call."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for queue in (self._global_queue, *(queue for _, queue in self._queues.values())):
            queue.dismiss(CLOSED)
        self.wake()
        if self._settling:
            await asyncio.wait(self._settling, timeout=1.0)

    # Queues

    def _queue_of(self, route: Route) -> WaitQueue[Wait]:
        place = (route.name, route.major)
        if place not in self._queues:
            self._queues[place] = (route, WaitQueue(self._clock, self._estimate))
        return self._queues[place][1]

    def _drop(self, queue: WaitQueue[Wait], route: Route) -> None:
        place = (route.name, route.major)
        if place in self._queues and self._queues[place][1] is queue:
            del self._queues[place]

    async def _wait_turn(self, queue: WaitQueue[Wait], waiter: Waiter, call: Call) -> None:
        """Wait until it is the head."""
        if waiter.turn.done():
            return
        wait_us = self._earliest_wait_us(queue, waiter)
        if wait_us:
            self._refuse_if_late(call, queue.last, wait_us, call.due_us)
        self._emit_wait(call, queue.last, wait_us)
        if not await queue.wait_turn(waiter):
            raise _too_late(call, queue.last, self._earliest_wait_us(queue, waiter))

    def _earliest_wait_us(self, queue: WaitQueue[Wait], waiter: Waiter) -> int:
        now_us = self._clock.now_us()
        return queue.earliest_us(queue.position(waiter), now_us) - now_us

    # The head of a queue

    async def _wait_permit(self, queue: WaitQueue[Wait], call: Call) -> Permit:
        """As the head of its queue: check, and wait as long as the reply names, until a permit is granted."""
        check_s = _FIRST_CHECK_S
        while True:
            reply = _CROWDED if self._global_queue and not call.route.exempt else await self._take(call.route)
            if isinstance(reply, Wait) and _is_global(reply):
                queue.note(reply, self._clock.now_us())
                reply = await self._wait_globally(call)
            if isinstance(reply, Granted):
                return reply.permit
            queue.note(reply, self._clock.now_us())
            await self._pause(call, reply, check_s, self._place_of(call.route, reply))
            check_s = min(2 * check_s, _LAST_CHECK_S) if reply.wait_us == AWAIT_RESPONSE else _FIRST_CHECK_S

    async def _wait_globally(self, call: Call) -> Granted | Wait:
        """The reply to a call that the global limit does not hold up, once it is its turn there."""
        queue = self._global_queue
        waiter = queue.enter(call.rank or (0, 0), call.due_us, patience_us=call.patience_us)
        try:
            await self._wait_turn(queue, waiter, call)
            while True:
                reply = await self._take(call.route)
                if isinstance(reply, Granted) or not _is_global(reply):
                    return reply
                queue.note(reply, self._clock.now_us())
                await self._pause(call, reply, _LAST_CHECK_S, "global")
        finally:
            queue.leave(waiter)

    async def _take(self, route: Route) -> Granted | Wait:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        self._check(route)
        if self._out >= self._limits.in_flight and not route.exempt:
            return _NO_ROOM
        if route.hidden and (route.name, route.major) in self._hidden:
            return _HIDDEN
        per_second, spare = (0, 0) if route.exempt else (self._limits.per_second, self._limits.spare)
        name = f"{self._name}{next(self._numbers):x}"
        scope = None if route.exempt else self._scopes.by_route.get(route.name)
        if scope is None and not route.exempt:
            scope = self._scopes.new(route.name, route.major)
        if scope is not None and not scope.is_plain and scope.single != (route.name, route.major):
            return await self._take_in_scope(scope, route, name, per_second, spare)
        reply = self._permits.take(name, route.name, route.major, per_second, spare)
        if not isinstance(reply, (Granted, Wait)):
            reply = await reply
        self._out += isinstance(reply, Granted)
        return self._note_hidden(route, reply) if route.hidden else reply

    def _note_hidden(self, route: Route, reply: Granted | Wait) -> Granted | Wait:
        if isinstance(reply, Granted):
            self._hidden[route.name, route.major] = reply.permit.name
        return reply

    async def _take_in_scope(
        self, scope: Scope, route: Route, name: str, per_second: int, spare: int
    ) -> Granted | Wait:
        """The same while it is open how far the bucket reaches, or if it reaches further than usual."""
        if not scope.may_try(route.major, self._clock.now_us()):
            return _UNDECIDED
        scope.out[name] = Unit(self._name, route.name, route.major)
        is_granted = False
        try:
            reply = self._permits.take(
                name, route.name, route.major, per_second, spare, together=scope.reach == TOGETHER
            )
            if not isinstance(reply, (Granted, Wait)):
                reply = await reply
            is_granted = isinstance(reply, Granted)
        finally:
            if not is_granted:
                self._scopes.forget(route.name, name)
        self._out += is_granted
        return self._note_hidden(route, reply) if route.hidden else reply

    def _place_of(self, route: Route, reply: Wait) -> str:
        """Whose responses end the wait: those for the resource, for the route, or for all that share a bucket."""
        if reply is _UNDECIDED:
            return f"route {route.name}"
        scope = self._scopes.by_route.get(route.name)
        is_shared = scope is not None and scope.reach == TOGETHER
        return f"bucket {scope.bucket}" if scope is not None and is_shared else f"major {route.major}"

    async def _pause(self, call: Call, wait: Wait, check_s: float, key: str) -> None:
        """Wait until the next check: the moment that the reply named, or a response."""
        for_response = wait.wait_us == AWAIT_RESPONSE
        wait_us = round(check_s * 1e6) if for_response else wait.wait_us
        patience_us = call.due_us if call.patience_us is None else call.patience_us
        if for_response:
            self._refuse_if_late(call, wait, 0, patience_us)
        else:
            self._refuse_if_late(call, wait, wait_us, call.due_us)
        self._emit_wait(call, wait, wait_us)
        if for_response and patience_us is not None:
            wait_us = min(wait_us, patience_us - self._clock.now_us() + 1)
        pause = _Pause(asyncio.get_running_loop().create_future(), for_response)
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

    def _end_pauses(self, key: str, *, is_sent: bool) -> None:
        """A call of this resource has its response; or it was not sent, and its permit is free."""
        for pause in self._pauses.get(key, ()):
            if pause.for_response or not is_sent:
                _finish(pause.over)

    # Reports

    def _refuse_if_late(self, call: Call, wait: Wait | None, wait_us: int, due_us: int | None) -> None:
        if due_us is not None and self._clock.now_us() + wait_us > due_us:
            raise _too_late(call, wait, wait_us)

    def _emit_wait(self, call: Call, wait: Wait | None, wait_us: int) -> None:
        if call.note_wait(wait_us / 1e6, _cause_of(wait)):
            bucket = wait.bucket if wait is not None else ""
            self._emit(DiscordEvent("wait", str(call.route), wait_us / 1e6, _cause_of(wait), bucket))

    def _shown(self, route: Route, queue: WaitQueue[Wait]) -> Waiting:
        wait, now_us = queue.last, self._clock.now_us()
        seconds = (queue.earliest_us(0, now_us) - now_us) / 1e6
        bucket, limit, remaining = ("", 0, 0) if wait is None else (wait.bucket, wait.limit, max(0, wait.remaining))
        return Waiting(str(route), len(queue), _cause_of(wait), seconds, bucket, limit, remaining)

    def _sweep(self) -> None:
        """Forget the past, though no call comes any more: in steps, so that no other call is held up."""
        pause_s = None if self._is_closed else self._permits.sweep()
        self._sweeping = None if pause_s is None else self._clock.call_later(pause_s, self._sweep)


def estimate_us(per_second: int, wait: Wait, ahead: int) -> int:
    """How long a call with so many before it has to wait at least, as far as the reply shows it."""
    if wait.wait_us < 0:
        return 0
    if wait.cause == "bucket" and wait.kind == FIXED:
        return wait.wait_us + ahead // wait.limit * wait.slot_us
    if wait.cause == "bucket" and wait.kind == SLIDING:
        return wait.wait_us + ahead * wait.slot_us
    if wait.cause == "global":
        return wait.wait_us + ahead // per_second * SECOND_US
    return wait.wait_us


def _cause_of(wait: Wait | None) -> Cause:
    return wait.cause if wait is not None else "answer"


def _is_global(wait: Wait) -> bool:
    """Whether it concerns more than one bucket."""
    return wait.cause == "global" or wait is _NO_ROOM


def _too_late(call: Call, wait: Wait | None, wait_us: int) -> DiscordRateLimited:
    bucket = wait.bucket if wait is not None else ""
    return DiscordRateLimited(call.route, max(0, wait_us) / 1e6, _cause_of(wait), bucket)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
