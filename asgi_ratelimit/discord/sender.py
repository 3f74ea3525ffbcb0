"""One call from its first attempt to its last: when it goes, what its answer teaches, and whether it goes again.

Nothing here knows of httpx: what carries a call is passed in, and says what became of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.errors import Cause, DiscordEvent, Tell
from asgi_ratelimit.discord.invalid_requests import InvalidBudget
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import Permit
from asgi_ratelimit.discord.response_headers import (
    INVALID,
    RETRIED,
    UNKNOWN_WEBHOOK,
    error_code,
    of_refusal,
    of_response,
)
from asgi_ratelimit.discord.response_headers import retry_after as asked_pause
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scheduler import CLOSED, Call
from asgi_ratelimit.discord.tokens import Owner, Owners

__all__ = ["Courier", "Lost", "Reply", "Terms", "Trip"]

_MOST_REFUSALS = 50  # of one call: whoever refuses it as often does not mean to let it pass
_FIRST_PAUSE_S = 0.25
_LAST_PAUSE_S = 30.0


class Reply(Protocol):
    """An answer whose body has not been read."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def keep(self) -> bytes:
        """The whole body, which can still be read by others."""
        ...

    async def aclose(self) -> None: ...


class Lost(Exception):
    """A call without an answer: `error` is why, `sent` whether it may have arrived all the same."""

    def __init__(self, error: Exception, *, sent: bool) -> None:
        super().__init__(str(error))
        self.error, self.sent = error, sent


@dataclass(frozen=True, slots=True)
class Terms:
    """`max_wait`: seconds that one call may wait for limits. `max_retries`: after failures that are no 429s."""

    max_wait: float | None = None
    max_retries: int = 5
    retry_unsafe: bool = True

    def __post_init__(self) -> None:
        wait, retries = self.max_wait, self.max_retries
        if wait is not None and (isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < 1e9):
            raise ValueError(f"max_wait must be seconds from 0, e.g. max_wait=60, or None, not {wait!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"max_retries must be a whole number from 0, e.g. max_retries=5, not {retries!r}")
        if not isinstance(self.retry_unsafe, bool):
            raise ValueError(f"retry_unsafe must be True or False, not {self.retry_unsafe!r}")


@dataclass(slots=True, eq=False)
class Trip:
    """A call under way: whose it is, when it has to be done with, and what it has gone through."""

    owner: Owner
    call: Call
    is_safe: bool  # carried out twice it does no harm
    has_token: bool
    deadline_us: int | None = None
    waited_us: int = 0
    failures: int = 0
    refusals: int = 0

    @property
    def route(self) -> Route:
        return self.call.route


R = TypeVar("R", bound=Reply)
Carry = Callable[[float | None], Awaitable[R]]  # is told how many seconds are left


class Courier:
    """Takes calls to Discord and brings their answers back."""

    def __init__(self, owners: Owners, budget: InvalidBudget, clock: Clock, terms: Terms, tell: Tell) -> None:
        self._owners, self._budget, self._clock, self._terms, self._tell = owners, budget, clock, terms, tell
        self._resting: set[asyncio.Future[None]] = set()

    async def deliver(self, trip: Trip, carry: Carry[R]) -> R:
        """The report. 429s are waited out and failures repeated; what outlasts that is returned, or raised.

        DiscordError for what is not sent at all.
        """
        while True:
            permit = await self._permit(trip)
            try:
                reply = await self._attempt(trip, permit, carry)
            except Lost as lost:
                pause_s = self._pause(trip, sent=lost.sent, asked_s=0.0)
                if pause_s is None:
                    raise lost.error from lost.error.__cause__
                status = 0
            else:
                status = reply.status_code
                if status == 429 and self._terms.max_retries and trip.refusals < _MOST_REFUSALS:
                    continue
                pause_s = None
                if status in RETRIED:
                    pause_s = self._pause(trip, sent=True, asked_s=asked_pause(reply.headers))
                if pause_s is None:
                    return reply
                await reply.aclose()
            self._tell(DiscordEvent("retry", str(trip.route), pause_s, "retry", "", status, trip.failures))
            await self._rest(pause_s)

    async def aclose(self) -> None:
        """Let nobody wait any more: RuntimeError for those who do."""
        for rest in self._resting:
            if not rest.done():
                rest.set_exception(RuntimeError(CLOSED))
                rest.exception()  # it is no error that one who is cancelled at this moment never sees it
        await self._owners.aclose()

    # Before an attempt

    async def _permit(self, trip: Trip) -> Permit:
        begun_us = self._clock.now_us()
        self._set_due(trip, begun_us)
        while True:
            self._owners.check(trip.owner, trip.route)
            await self._spend_carefully(trip)
            permit = await trip.owner.pacer.permit(trip.call)
            if not self._budget.is_banned:
                trip.waited_us += self._clock.now_us() - begun_us
                return permit
            trip.owner.pacer.settle(permit, CallReport("unsent"))

    def _set_due(self, trip: Trip, now_us: int) -> None:
        dues = [] if trip.deadline_us is None else [trip.deadline_us]
        if self._terms.max_wait is not None:
            dues.append(now_us + round(self._terms.max_wait * 1e6) - trip.waited_us)
        trip.call.due_us = min(dues, default=None)

    async def _spend_carefully(self, trip: Trip) -> None:
        """Wait for as long as the address is banned, or close to it."""
        cause: Cause | None = "banned"
        while cause == "banned":
            wait_s, cause = await self._budget.admit(trip.route, trip.call.due_us)
            if not wait_s or cause is None:
                return
            if not trip.call.was_told:
                trip.call.was_told = True
                self._tell(DiscordEvent("wait", str(trip.route), wait_s, cause))
            try:
                await self._rest(wait_s)
            except BaseException:
                self._budget.forgo(cause)
                raise

    async def _rest(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, lambda: None if over.done() else over.set_result(None))
        self._resting.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._resting.discard(over)

    # An attempt

    async def _attempt(self, trip: Trip, permit: Permit, carry: Carry[R]) -> R:
        settle, body = trip.owner.pacer.settle, b""
        try:
            reply = await carry(self._left_s(trip))
            if reply.status_code == 429:
                body = await reply.keep()
        except Lost as lost:
            settle(permit, CallReport("lost" if lost.sent else "unsent"))
            raise
        except BaseException:
            settle(permit, CallReport("lost"))
            raise
        try:
            if reply.status_code == 429:
                await self._refused(trip, permit, *of_refusal(reply.headers, body))
            else:
                settle(permit, of_response(reply.status_code, reply.headers))
                if reply.status_code in INVALID or (reply.status_code == 404 and trip.route.webhook):
                    await self._unwelcome(trip, reply)
        except BaseException:
            await reply.aclose()
            raise
        return reply

    async def _refused(self, trip: Trip, permit: Permit, report: CallReport, scope: str) -> None:
        trip.owner.pacer.settle(permit, report)
        trip.refusals += 1
        seconds = report.retry_us / 1e6
        self._tell(DiscordEvent("limited", str(trip.route), seconds, scope, report.bucket, 429, trip.refusals))
        if report.verdict in ("stopped", "banned"):
            self._tell(DiscordEvent(report.verdict, str(trip.route), seconds, scope, "", 429))
        if report.verdict == "banned":
            await self._budget.ban(seconds)
        elif scope != "shared":
            await self._budget.count(trip.route)

    async def _unwelcome(self, trip: Trip, reply: Reply) -> None:
        route, status = trip.route, reply.status_code
        if status in INVALID:
            await self._budget.count(route)
        if route.webhook and status != 403:
            if error_code(await reply.keep()) in UNKNOWN_WEBHOOK:
                self._owners.bury_webhook(route, status)
        elif status == 401 and trip.has_token and not route.exempt:
            self._owners.bury_token(trip.owner, route)

    def _left_s(self, trip: Trip) -> float | None:
        return None if trip.deadline_us is None else max(0.001, (trip.deadline_us - self._clock.now_us()) / 1e6)

    # After a failed one

    def _pause(self, trip: Trip, *, sent: bool, asked_s: float) -> float | None:
        """Seconds before it goes again; None if it does not."""
        if trip.failures >= self._terms.max_retries:
            return None
        if sent and not trip.is_safe and not self._terms.retry_unsafe:
            return None
        trip.failures += 1
        backed_off = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * (1 << min(trip.failures - 1, 10)))
        seconds = max(min(asked_s, _LAST_PAUSE_S), backed_off * random.uniform(0.5, 1.0))
        if trip.deadline_us is not None and self._clock.now_us() + round(seconds * 1e6) >= trip.deadline_us:
            return None
        return seconds
