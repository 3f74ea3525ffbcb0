"""One server and the connection to it: checks that come while a call is in flight travel together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Protocol

from redis.exceptions import AskError, ResponseError

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.redis.breaker import Breaker, Tell
from asgi_ratelimit.redis.connection import Channel
from asgi_ratelimit.redis.wire import Command, Question, Reply, Script, command, shape, write

__all__ = ["Check", "Node", "Redirect"]

MOST_IN_A_CALL = 128  # checks; a call of so many keeps Redis busy for less than a millisecond
WORTH_A_CALL = 64  # so many do not wait for the call in flight: Redis works on one while we read another
MOST_CALLS = 4  # in flight
_SECONDS_TO_CONNECT = 1.0  # at least; nobody waits so long: checks are answered without the server meanwhile
_GRACE = 2  # turns of the loop: what has come while it was busy is read first

_PROBE = shape("probe", 1)
# What concerns the server and not the check, in the words of Redis.
_OF_THE_SERVER: tuple[str, ...] = ("OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "LOADING ", "BUSY ", "MASTERDOWN ")
_OF_THE_SERVER += ("NOPERM ", "ACL failure", "user executing the script can't")


class Check(Question, Protocol):
    """A question to the server, and who waits for the answer."""

    script: Script  # that answers it
    slot: int  # of a cluster; 0 elsewhere
    due: float  # the moment, by the event loop's clock, at which it is answered without the server
    asking: bool  # it follows an ASK
    hops: int  # how often it was sent elsewhere
    future: asyncio.Future[Any]

    def answer(self, reply: Reply, place: int, sent_us: int, heard_us: int) -> int:
        """Read the answer at `place`; return where the next check's begins."""
        ...

    def fail(self, error: BaseException) -> None:
        """Answer without the server."""
        ...


Redirect = Callable[[str, Sequence[Check]], None]  # what the server said, of which checks


class _Call:
    """What is in flight: for each reply that is due the checks that it answers; None: nobody's."""

    __slots__ = ("due", "expected", "first_due", "sent_us", "unknown")

    def __init__(self, sent_us: int, due: float, first_due: float) -> None:
        self.sent_us = sent_us
        self.due, self.first_due = due, first_due  # the call's own, and that of the first check that waits for it
        self.expected: deque[Sequence[Check] | None] = deque()
        self.unknown: list[Sequence[Check]] = []  # to whom the server said that it does not know the script

    def checks(self) -> list[Check]:
        return [check for group in (*self.expected, *self.unknown) if group for check in group]


class Node:
    """A server as one event loop sees it."""

    def __init__(
        self,
        name: str,
        dial: Callable[[], Awaitable[Any]],
        clock: Clock,
        *,
        timeout: float,
        probe_key: str,
        now: Callable[[], str],
        heard: Callable[[int], None],
        tell: Tell | None,
        redirect: Redirect | None = None,
        met: Callable[[str], None] | None = None,
    ) -> None:
        self.breaker = Breaker(name, tell)
        self._dial, self._clock, self._timeout, self._now = dial, clock, timeout, now
        self._probe_key, self._heard, self._redirect, self._met = probe_key, heard, redirect, met
        self._queue: deque[Check] = deque()
        self._channel: Channel | None = None
        self._calls: deque[_Call] = deque()  # in flight on it, in this order
        self._watch: asyncio.Handle | None = None
        self._opening: asyncio.Task[None] | None = None
        self.loop = asyncio.get_running_loop()

    def put(self, check: Check) -> None:
        """Have a check answered: by the server, or without it where it is down."""
        if self.breaker.is_open:
            self._probe()
            check.fail(ConnectionError(self.breaker.cause))
            return
        self._queue.append(check)
        if self._watch is None:
            self._watch = self.loop.call_at(check.due, self._look, _GRACE)
        if self._channel is None:
            self._open()
        elif not self._calls or (len(self._queue) >= WORTH_A_CALL and len(self._calls) < MOST_CALLS):
            self._send(self._channel)

    async def connect(self) -> None:
        """Open the channel, unless there is one. Raises what redis-py raises."""
        if self._channel is None:
            self._welcome(await self._opened())

    async def aclose(self) -> None:
        """Wait for what is in flight, and hang up."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        waiting = [check.future for call in self._calls for check in call.checks()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout)
        self.retire()
        await asyncio.sleep(0)  # a transport is closed in the loop's next turn

    def retire(self) -> None:
        """Hang up: this node is not asked any more."""
        if self._opening is not None:
            self._opening.cancel()
        self._hang_up(ConnectionError(f"{self.breaker.node} is not asked any more"))
        if self._watch is not None:
            self._watch.cancel()

    def fall(self, error: Exception) -> None:
        """Ask no more until a probe has succeeded."""
        self.breaker.trip(error)
        self._hang_up(error)
        self._probe()

    # Out

    def _send(self, channel: Channel) -> None:
        """Send the next checks, as many as fit in a call."""
        now = self.loop.time()
        self._fail_late(now)
        checks = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_IN_A_CALL))]
        if checks:
            self._write(channel, _by_call(checks, spread=self._redirect is not None), by_name=True)

    def _write(self, channel: Channel, groups: Sequence[Sequence[Check]], *, by_name: bool) -> None:
        call = _Call(self._clock.now_us(), self.loop.time() + self._timeout, min(group[0].due for group in groups))
        now = self._now()
        commands: list[Command] = []
        for group in groups:
            if group[0].asking:
                commands.append(("ASKING",))
                call.expected.append(None)
            commands.append(command(group, now, group[0].script, by_name=by_name))
            call.expected.append(group)
        self._calls.append(call)
        channel.send(write(*commands))

    # In

    def _hear(self, channel: Channel, reply: Any) -> None:
        if channel is not self._channel or not self._calls:
            return
        call = self._calls[0]
        checks = call.expected.popleft()
        if checks is not None:
            self._understand(call, checks, reply)
        if call.expected or channel is not self._channel:
            return
        self._calls.popleft()
        if call.unknown:
            self._write(channel, call.unknown, by_name=False)
        if self._queue and (not self._calls or len(self._queue) >= WORTH_A_CALL):
            self._send(channel)

    def _understand(self, call: _Call, checks: Sequence[Check], reply: Any) -> None:
        if type(reply) is list:
            try:
                self._answer(checks, reply, call.sent_us)
            except Exception as unforeseen:  # still no caller may wait for ever
                _fail(checks, unforeseen)
                self.fall(unforeseen)
            return
        said = str(reply)
        if said.startswith("NOSCRIPT"):
            call.unknown.append(checks)
        elif said.startswith(("MOVED", "ASK")) and self._redirect is not None:
            self._redirect(said, checks)
        else:
            error = ResponseError(said)
            _fail(checks, error)
            if not said.startswith("TRYAGAIN"):  # half of a slot's keys have moved
                self.fall(error)

    def _answer(self, checks: Sequence[Check], reply: Reply, sent_us: int) -> None:
        heard_us = self._clock.now_us()
        self._heard(reply[0])
        place = 1
        trouble = None
        for check in checks:
            if type(reply[place]) is bytes:
                error = ResponseError(reply[place].decode(errors="replace").strip())
                check.fail(error)
                place += 1
                if any(word in str(error) for word in _OF_THE_SERVER):
                    trouble = error
            else:
                place = check.answer(reply, place, sent_us, heard_us)
        if trouble is not None:
            self.fall(trouble)

    def _lose(self, channel: Channel, error: Exception) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        if self._calls:  # else the next check opens another
            self.fall(error)

    # What takes too long

    def _look(self, grace: int) -> None:
        """Answer without the server what is due; called when the first of all checks may be."""
        if grace:
            self._watch = self.loop.call_soon(self._look, grace - 1)
            return
        now = self.loop.time()
        self._watch = None
        error = TimeoutError(f"{self.breaker.node} did not answer within {self._timeout} s")
        late = self._fail_late(now)
        for call in self._calls:
            if call.first_due <= now:
                _fail([check for check in call.checks() if check.due <= now], error)
                call.first_due = min((check.due for check in call.checks() if check.due > now), default=call.due)
        if (self._calls and self._calls[0].due <= now) or (late and self._channel is None):
            self.fall(error)
        dues = [call.first_due for call in self._calls] + [check.due for check in list(self._queue)[:1]]
        if dues:
            self._watch = self.loop.call_at(max(min(dues), now + self._timeout / 20), self._look, _GRACE)

    def _fail_late(self, now: float) -> bool:
        """What has waited too long is not sent any more."""
        late = bool(self._queue) and self._queue[0].due <= now
        while self._queue and self._queue[0].due <= now:
            self._queue.popleft().fail(TimeoutError(f"{self.breaker.node} is too busy, or not connected"))
        return late

    def _hang_up(self, error: Exception) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        left = [check for call in self._calls for check in call.checks()]
        left += self._queue
        self._calls.clear()
        self._queue.clear()
        _fail(left, error)

    # Connecting, and finding out whether a server that failed is back: in the background

    def _probe(self) -> None:
        if self.breaker.may_probe():
            self._open()

    def _open(self) -> None:
        if self._opening is None:
            self._opening = self.loop.create_task(self._open_another())

    async def _open_another(self) -> None:
        try:
            channel = await self._opened()
        except Exception as error:
            self._opening = None
            if self.breaker.is_open:
                self.breaker.probed(error)
            elif self._channel is None:
                self.fall(error)
            return
        except BaseException:
            self._opening = None
            raise
        self._opening = None
        self._welcome(channel)

    def _welcome(self, channel: Channel) -> None:
        if self.breaker.is_open:
            self.breaker.probed(None)
        if self._channel is not None:  # somebody was faster
            channel.close()
            return
        self._channel = channel
        if self._queue:
            self._send(channel)

    async def _opened(self) -> Channel:
        """A new channel, on which the script has run and written."""
        connection = None
        try:
            async with asyncio.timeout(max(_SECONDS_TO_CONNECT, self._timeout)):
                connection = await self._dial()
            async with asyncio.timeout(self._timeout):
                await self._inspect(connection)
            return Channel(connection, self._hear, self._lose)
        except BaseException as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{self.breaker.node} took too long to connect") from None
            raise

    async def _inspect(self, connection: Any) -> None:
        """Run the script, and note once what kind of memory the server has."""
        probe = command([_Probe(self._probe_key)], self._now(), by_name=False)
        commands = [probe] if self._met is None else [probe, ("INFO", "memory")]
        await connection.send_packed_command(write(*commands))
        with suppress(AskError):  # it is alive; its slots have moved, no more
            reply = await connection.read_response(disable_decoding=True)
            if isinstance(reply[1], bytes):
                raise ResponseError(reply[1].decode(errors="replace"))
        met, self._met = self._met, None
        if met is not None:
            with suppress(ResponseError):  # INFO may be forbidden
                met((await connection.read_response(disable_decoding=True)).decode())


class _Probe:
    def __init__(self, key: str) -> None:
        self.keys, self.shape = (key,), _PROBE


def _by_call(checks: Sequence[Check], *, spread: bool) -> Sequence[Sequence[Check]]:
    """One group for each call of a script: of one slot, and of those that follow an ASK."""

    def place(check: Check) -> tuple[str, int, bool]:
        return check.script.sha, check.slot, check.asking

    if len({place(check) for check in checks} if spread else {check.script for check in checks}) == 1:
        return [checks]
    return [list(group) for _, group in groupby(sorted(checks, key=place), key=place)]


def _fail(checks: Iterable[Check], error: Exception) -> None:
    for check in checks:
        check.fail(error)
