"""One server and the connection to it: checks that come while a call is in flight travel together in the next one."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from redis.exceptions import ResponseError

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.redis.breaker import Breaker, EventHook
from asgi_ratelimit.redis.calls import Batch, Check, Redirect, groups_of, is_answer
from asgi_ratelimit.redis.connection import Connect, NodeConnection, end, hang_up
from asgi_ratelimit.redis.missed import Missed
from asgi_ratelimit.redis.opening import FORBIDDEN, inspect, probe
from asgi_ratelimit.redis.wire import Command, Reply, command, write

__all__ = ["Node"]

logger = logging.getLogger("asgi_ratelimit")

MOST_IN_A_CALL = 128  # checks; a call of so many keeps Redis busy for less than a millisecond
WORTH_A_CALL = 64  # at least; so many do not wait for the calls in flight: Redis works on one while we read another
MOST_CALLS = 4  # in flight
_SECONDS_TO_CONNECT = 1.0  # at least; no caller waits so long: checks are answered without the server meanwhile
_MOST_LOGGED = 16  # errors of scripts, each logged once
_NEAR = 1 / 8  # of the timeout: a server that answers within it may be waited for
_WAIT = 1 / 4  # of the time that would be left: checks wait no longer before they are sent beside a call in flight
_MOST_FAR_CALLS = 64  # in flight to a server that is not near
_GRACE = 2  # turns of the loop: replies that arrived while it was busy are read first
# Errors that concern the server and not the check, in the words of Redis.
_SERVER_ERRORS: tuple[str, ...] = ("OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "LOADING ", "BUSY ", "MASTERDOWN ")
_SERVER_ERRORS += FORBIDDEN


class Node:
    """A server as one event loop sees it.

    dial: opens a connection
    clock: the time at which checks are sent
    timeout: seconds after which a call has failed
    probe_key: the record that a probe writes
    sets_time: whether scripts use the time of `clock`, as in tests, instead of the server's own
    on_time: receives the server's time in µs with each reply
    on_event: receives a StoreEvent when the server goes down, when it is back, and when checks have missed it
    redirect: receives the checks that belong to another node of a cluster
    on_memory: receives the server's memory settings once, when the first connection has been inspected
    """

    def __init__(
        self,
        name: str,
        dial: Connect,
        clock: Clock,
        *,
        timeout: float,
        probe_key: str,
        sets_time: bool,
        on_time: Callable[[int], None],
        on_event: EventHook | None,
        redirect: Redirect | None = None,
        on_memory: Callable[[str], None] | None = None,
    ) -> None:
        self.breaker = Breaker(name, on_event)
        self._dial, self._clock, self._timeout, self._sets_time = dial, clock, timeout, sets_time
        self._probe_key, self._on_time, self._redirect, self._on_memory = probe_key, on_time, redirect, on_memory
        self._queue: list[Check] = []
        self._connection: NodeConnection | None = None
        self._batches: deque[Batch] = deque()  # in flight on it, in this order
        self._in_flight = 0  # checks
        self._enough = 1  # checks for a call of their own
        self._sent = self._received = 0  # calls of scripts, and replies to them, on this connection
        self._round_trip = 0.0  # of the last call, in seconds
        self._in_time_at = 0.0  # the moment of the last reply that came within the timeout
        self._next_call: asyncio.Handle | None = None
        self._deadline: asyncio.Handle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._logged: set[str] = set()
        self.loop = asyncio.get_running_loop()
        self._missed = Missed(self.breaker, self.loop)

    def put(self, check: Check) -> None:
        """Have a check answered: by the server, or without it while it is down."""
        queue = self._queue
        queue.append(check)
        if len(queue) >= self._enough:
            self._put_out()
        elif self._next_call is None:
            self._next_call = self._schedule_call()

    def miss(self, check: Check, error: Exception) -> None:
        """Answer a check without the server, and count it."""
        self._missed.fail([check], error)

    async def connect(self) -> None:
        """Open the connection, unless there is one. Raises the errors of redis-py."""
        if self._connection is None:
            self._adopt(await self._open())

    async def aclose(self) -> None:
        """Wait for the calls in flight, and close the connection."""
        if self._opening is not None:
            await end([self._opening])
        waiting = [check.future for batch in self._batches for check in batch.checks()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout)
        self.retire()
        await asyncio.sleep(0)  # a transport is closed in the loop's next turn

    def retire(self) -> None:
        """Close the connection for good."""
        if self._opening is not None:
            self._opening.cancel()
        self._disconnect(ConnectionError(f"{self.breaker.node} is not used any more"))
        for timer in (self._deadline, self._next_call):
            if timer is not None:
                timer.cancel()
        self._missed.report()

    def suspend(self, error: Exception) -> None:
        """Send no more checks until a probe has succeeded."""
        self.breaker.trip(error)
        self._disconnect(error)
        self._probe()

    # Out

    def _put_out(self) -> None:
        """Send what is in the queue, if that is possible."""
        if self.breaker.is_open:
            self._probe()
            failed, self._queue = self._queue, []
            self._missed.fail(failed, ConnectionError(self.breaker.cause))
            return
        if self._deadline is None:
            self._deadline = self.loop.call_at(self._queue[0].due, self._check_deadlines, _GRACE)
        if self._connection is None:
            self._start_opening()
        else:
            self._send(self._connection)

    def _send(self, connection: NodeConnection) -> None:
        """Send the next checks, as many as fit in a call."""
        now, queue = self.loop.time(), self._queue
        if queue[0].due <= now:
            self._fail_late(now)
        checks = queue[:MOST_IN_A_CALL]
        del queue[:MOST_IN_A_CALL]
        if not checks:
            return
        try:
            self._write(connection, groups_of(checks, by_slot=self._redirect is not None), now, by_name=True)
        except Exception as unforeseen:  # still no caller may wait for ever
            self._missed.fail(checks, unforeseen)
            self.suspend(unforeseen)

    @property
    def _is_far(self) -> bool:
        return self._round_trip > self._timeout * _NEAR

    def _schedule_call(self) -> asyncio.Handle:
        """When the checks that wait for a call in flight are sent beside it, to be answered in time."""
        left = self._timeout - self._round_trip if self._is_far else self._timeout / 2
        return self.loop.call_at(self._batches[-1].sent_at + left * _WAIT, self._send_beside)

    def _send_beside(self) -> None:
        self._next_call = None
        most = _MOST_FAR_CALLS if self._is_far else MOST_CALLS  # a silent server will run all that it has been sent
        while self._queue and self._connection is not None and len(self._batches) < most:
            self._send(self._connection)

    def _write(
        self, connection: NodeConnection, groups: Sequence[Sequence[Check]], now: float, *, by_name: bool
    ) -> None:
        first_due = groups[0][0].due if len(groups) == 1 else min(group[0].due for group in groups)
        batch = Batch(self._clock.now_us(), now, now + self._timeout, first_due, sum(map(len, groups)))
        time = str(batch.sent_us) if self._sets_time else ""
        commands: list[Command] = []
        for group in groups:
            if self._redirect is not None and group[0].asking:
                commands.append(("ASKING",))
                batch.expected.append(None)
            self._sent += 1
            commands.append(command(group, time, group[0].script, number=self._sent, by_name=by_name))
            batch.expected.append(group)
        self._batches.append(batch)
        self._count(batch.size)
        connection.send(write(*commands))

    def _count(self, change: int) -> None:
        """Note how many checks are in flight. As many more are worth a call, since equal calls keep both ends busy."""
        self._in_flight += change
        if not self._in_flight:
            self._enough = 1
        elif len(self._batches) < MOST_CALLS:
            self._enough = min(max(self._in_flight, WORTH_A_CALL), MOST_IN_A_CALL)
        else:
            self._enough = sys.maxsize

    # In

    def _receive(self, connection: NodeConnection, reply: Any) -> None:
        if connection is not self._connection:
            return
        if not self._batches:
            self.suspend(ConnectionError(f"{self.breaker.node} has sent a reply to no call"))
            return
        batch = self._batches[0]
        checks = batch.expected.popleft()
        if checks is not None:
            self._received += 1
            if type(reply) is list:
                self._answer(checks, reply, batch.sent_us)
            else:
                self._refuse(batch, checks, str(reply))
        if batch.expected or connection is not self._connection:
            return
        self._batches.popleft()
        self._count(-batch.size)
        now = self.loop.time()
        self._round_trip = now - batch.sent_at
        if now <= batch.due:
            self._in_time_at = now
        if batch.without_script:
            self._write(connection, batch.without_script, now, by_name=False)
        if self._queue and (self._next_call is None or len(self._queue) >= self._enough):
            self._send(connection)

    def _answer(self, checks: Sequence[Check], reply: Reply, sent_us: int) -> None:
        server_error: Exception | None = None
        try:
            if not is_answer(reply, self._received):
                raise ConnectionError(f"{self.breaker.node} has sent the reply of another call")
            received_us = self._clock.now_us()
            number, place, count = 0, 1, len(checks)
            while number < count:
                if type(reply[place]) is bytes:
                    error = ResponseError(reply[place].decode(errors="replace").strip())
                    self._missed.fail([checks[number]], error)
                    number, place = number + 1, place + 1
                    if any(word in str(error) for word in _SERVER_ERRORS):
                        server_error = error
                    else:
                        self._log_error(str(error))
                else:
                    number, place = checks[number].answer(checks, number, reply, place, sent_us, received_us)
            self._on_time(reply[0])
        except Exception as unforeseen:  # still no caller may wait for ever
            self._missed.fail(checks, unforeseen)
            server_error = unforeseen
        if server_error is not None:
            self.suspend(server_error)

    def _log_error(self, error: str) -> None:
        """Log once that the server is well, and a script could not answer a check."""
        if error not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(error)
            logger.warning("%s cannot answer a check: %s", self.breaker.node, error)

    def _refuse(self, batch: Batch, checks: Sequence[Check], message: str) -> None:
        """The script did not run."""
        if message.startswith("NOSCRIPT"):
            batch.without_script.append(checks)
        elif message.startswith(("MOVED ", "ASK ")) and self._redirect is not None:
            self._redirect(message, checks)
        else:
            error = ResponseError(message)
            self._missed.fail(checks, error)
            if not message.startswith("TRYAGAIN"):  # half of a slot's keys have moved
                self.suspend(error)

    def _on_lost(self, connection: NodeConnection, error: Exception) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self._batches:  # else the next check opens another
            self.suspend(error)

    # Deadlines

    def _check_deadlines(self, grace: int) -> None:
        """Answer without the server the checks that are due. Called when the first of them may be."""
        if grace:
            self._deadline = self.loop.call_soon(self._check_deadlines, grace - 1)
            return
        now = self.loop.time()
        self._deadline = None
        error = TimeoutError(f"{self.breaker.node} did not answer within {self._timeout} s")
        late = self._fail_late(now)
        for batch in self._batches:
            if batch.first_due <= now:
                self._missed.fail([check for check in batch.checks() if check.due <= now], error)
                batch.first_due = min((check.due for check in batch.checks() if check.due > now), default=batch.due)
        is_silent = bool(self._batches) and max(self._batches[0].due, self._in_time_at + self._timeout) <= now
        if is_silent or (late and self._connection is None):
            self.suspend(error)
        dues = [batch.first_due for batch in self._batches] + [check.due for check in self._queue[:1]]
        if dues:
            next_due = max(min(dues), now + self._timeout / 20)
            self._deadline = self.loop.call_at(next_due, self._check_deadlines, _GRACE)

    def _fail_late(self, now: float) -> bool:
        """Answer without the server the checks that have waited too long to be sent."""
        late = [*takewhile(lambda check: check.due <= now, self._queue)]
        del self._queue[: len(late)]
        self._missed.fail(late, TimeoutError(f"{self.breaker.node} is too busy, or not connected"))
        return bool(late)

    def _disconnect(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        left = [check for batch in self._batches for check in batch.checks()]
        left += self._queue
        self._batches.clear()
        self._count(-self._in_flight)
        self._queue.clear()
        self._round_trip = 0.0
        self._missed.fail(left, error)

    # Connecting, and finding out whether a server that failed is back: in the background

    def _probe(self) -> None:
        if self.breaker.may_probe():
            self._start_opening()

    def _start_opening(self) -> None:
        if self._opening is None:
            self._opening = self.loop.create_task(self._reopen())

    async def _reopen(self) -> None:
        started_at = self.breaker.now()
        try:
            connection = await self._open()
        except Exception as error:
            self._opening = None
            if self.breaker.is_open:
                self.breaker.record_probe(error, started_at)
            elif self._connection is None:
                self.suspend(error)
            return
        except BaseException:
            self._opening = None
            raise
        self._opening = None
        self._adopt(connection)

    def _adopt(self, connection: NodeConnection) -> None:
        if self.breaker.is_open:
            self.breaker.record_probe(None)
        if self._connection is not None:  # another task was faster
            connection.close()
            return
        self._connection, self._sent, self._received = connection, 0, 0
        if self._queue:
            self._send(connection)

    async def _open(self) -> NodeConnection:
        """A new connection, on which the script has run and written."""
        opened = None
        try:
            async with asyncio.timeout(max(_SECONDS_TO_CONNECT, self._timeout)):
                opened = await self._dial()
            now = str(self._clock.now_us()) if self._sets_time else ""
            if self._on_memory is None:
                await probe(opened, self._probe_key, now, self._timeout)
            else:
                in_cluster = self._redirect is not None
                memory = await inspect(opened, self._probe_key, now, self._timeout, in_cluster=in_cluster)
                self._on_memory(memory)
                self._on_memory = None
            return NodeConnection(opened, self._receive, self._on_lost)
        except BaseException as error:
            if opened is not None:
                hang_up(opened)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{self.breaker.node} took too long to connect") from None
            raise
