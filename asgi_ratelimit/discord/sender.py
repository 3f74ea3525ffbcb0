"""One call from its first attempt to its last: its permits, what its responses teach, and whether it is sent again.

This room has no httpx: the function that transmits a call is passed in.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.deadlines import within
from asgi_ratelimit.discord.errors import Cause, DiscordEvent, DiscordRateLimited, EventHook
from asgi_ratelimit.discord.invalid_requests import InvalidRequests
from asgi_ratelimit.discord.observing import CallObserver
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import Permit
from asgi_ratelimit.discord.response_headers import (
    INVALID,
    NOT_CARRIED_OUT,
    RETRIED,
    UNKNOWN_WEBHOOK,
    error_code,
    of_refusal,
    of_response,
    retry_after,
)
from asgi_ratelimit.discord.resting import RestingCalls
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scheduler import CLOSED, Call, Scheduler, Waiting
from asgi_ratelimit.discord.tokens import OPINION_S, TokenRegistry, TokenState

__all__ = ["RetryPolicy", "SendFailed", "Sender", "UnreadResponse"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_REFUSALS: Final = 10  # of one call: a limit that refuses it as often never lets it pass
_SPARED_REFUSALS: Final = 2  # they are waited out as they say; from the next one on, the call also waits for itself
_FOR_RESPONSES_S: Final = 1.0  # besides `max_wait`: that is for limits, and they may not be known yet
_FIRST_PAUSE_S: Final = 0.25
_LAST_PAUSE_S: Final = 30.0
_UNSENT: Final = CallReport("unsent")
_LOST: Final = CallReport("lost")


class UnreadResponse(Protocol):
    """A response before its body is read."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read_body(self) -> bytes:
        """The whole body. The response can still be read by others."""
        ...

    async def aclose(self) -> None: ...


class SendFailed(Exception):
    """A call without a response: `error` is the cause, `sent` whether it may have arrived all the same."""

    def __init__(self, error: Exception, *, sent: bool) -> None:
        super().__init__(str(error))
        self.error, self.sent = error, sent


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The end of a call's attempts.

    max_wait      seconds that it may wait for limits; None: any time
    max_retries   attempts after failures that are no 429s
    retry_unsafe  whether a call may be sent again that does harm if it arrives twice
    """

    max_wait: float | None = None
    max_retries: int = 5
    retry_unsafe: bool = False

    @property
    def patience_s(self) -> float | None:
        """Seconds that a call may wait for the responses that show its limits."""
        return None if self.max_wait is None else self.max_wait + _FOR_RESPONSES_S

    def __post_init__(self) -> None:
        wait, retries = self.max_wait, self.max_retries
        if wait is not None and (isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < 1e9):
            raise ValueError(f"max_wait must be seconds from 0, e.g. max_wait=60, or None, not {wait!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"max_retries must be a whole number from 0, e.g. max_retries=5, not {retries!r}")
        if not isinstance(self.retry_unsafe, bool):
            raise ValueError(f"retry_unsafe must be True or False, not {self.retry_unsafe!r}")


R = TypeVar("R", bound=UnreadResponse)
Transmit = Callable[[float | None, Clock], Awaitable[R]]  # its arguments: how many seconds are left, on which clock
Settle = Callable[[CallReport], None]
AskAgain = Callable[[], Awaitable[int]]  # the status of a call that every living token may make


class Sender:
    """Sends calls to Discord, as often as it takes."""

    def __init__(
        self,
        tokens: TokenRegistry,
        invalid: InvalidRequests,
        clock: Clock,
        policy: RetryPolicy,
        emit: EventHook,
        observer: CallObserver,
    ) -> None:
        self._tokens, self._invalid, self._clock, self._policy, self._emit = tokens, invalid, clock, policy, emit
        self._observer = observer
        self._resting = RestingCalls()
        self._is_closed = False

    async def send(self, call: Call, token: TokenState, transmit: Transmit[R], ask_again: AskAgain | None = None) -> R:
        """The response. 429s are waited out and failures are repeated; the last one is returned, or raised.

        `ask_again` gives a second opinion on the token after a 401; None: this call is one.
        Raises DiscordError for a call that is not sent at all.
        """
        while True:
            try:
                response = await self._try(call, token, transmit, ask_again)
            except SendFailed as failed:
                pause_s = self._pause(call, sent=failed.sent, least_s=0.0)
                if pause_s is None:
                    raise failed.error from failed.error.__cause__
                status = 0
            else:
                status = response.status_code
                if status == 429 and self._retries(call) and call.refusals < _MOST_REFUSALS:
                    await self._rest_after_refusals(call)
                    continue
                pause_s = None
                if status in RETRIED:
                    is_sent = status not in NOT_CARRIED_OUT
                    pause_s = self._pause(call, sent=is_sent, least_s=retry_after(response.headers))
                if pause_s is None:
                    return response
                await response.aclose()
            self._emit(DiscordEvent("retry", str(call.route), pause_s, "retry", "", status, call.failures))
            await self._rest(call, pause_s, "retry")

    async def would_wait(self, route: Route, token: TokenState) -> float:
        """The seconds that a call would have to wait, as far as is known now.

        Raises DiscordError for one that would not be sent at all.
        """
        self._tokens.check(token, route)
        wait_s = await self._invalid.foresee(route)
        return max(wait_s, await self._tokens.scheduler_of(token, route).would_wait(route))

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait outside the queues, e.g. for a ban to end, or before their next attempt."""
        return self._resting.waiting(self._clock.now_us())

    async def aclose(self) -> None:
        """End all waiting, with a RuntimeError for each call."""
        self._is_closed = True
        self._resting.end(CLOSED)
        await self._tokens.aclose()

    async def _try(self, call: Call, token: TokenState, transmit: Transmit[R], ask_again: AskAgain | None) -> R:
        try:
            scheduler, permit = await self._permit(call, token, is_opinion=ask_again is None)
            return await self._attempt(call, token, partial(scheduler.settle, permit), transmit, ask_again)
        except BaseException:
            if call.probes:  # it has not shown whether the ban is over
                self._invalid.withdraw_probe()
            raise

    # Before an attempt

    async def _permit(self, call: Call, token: TokenState, *, is_opinion: bool) -> tuple[Scheduler, Permit]:
        started_us = self._clock.now_us()
        self._set_due(call, started_us)
        while True:
            self._tokens.check(token, call.route)
            await self._wait_for_address(call)
            bans = self._invalid.bans
            is_crowded = self._tokens.scopes.is_crowded
            scheduler = self._tokens.scheduler_of(token, call.route) if is_crowded else token.scheduler
            permit = await scheduler.permit(call)
            is_in_doubt = token.opinion is not None and not is_opinion and call.route.judges_token
            if not is_in_doubt and self._invalid.bans == bans:
                self._end_wait(call, self._clock.now_us() - started_us)
                return scheduler, permit
            scheduler.settle(permit, _UNSENT)
            if is_in_doubt:
                call.wait_cause = call.wait_cause or "token"
                await self._wait_for_opinion(call.route, token, call.due_us)
                if token.opinion is not None and call.due_us is not None and self._clock.now_us() >= call.due_us:
                    raise DiscordRateLimited(call.route, token.opinion_s(self._clock.now_us()), "token")

    def _set_due(self, call: Call, now_us: int) -> None:
        call.due_us = call.deadline_us
        if self._policy.max_wait is not None:
            due_us = now_us + round(self._policy.max_wait * 1e6) - call.waited_us
            patience_us = due_us + round(_FOR_RESPONSES_S * 1e6)
            call.patience_us = patience_us if call.deadline_us is None else min(patience_us, call.deadline_us)
            call.due_us = due_us if call.deadline_us is None else min(due_us, call.deadline_us)

    async def _wait_for_address(self, call: Call) -> None:
        """Wait for as long as the address is banned, or close to it."""
        cause: Cause | None = "banned"
        while cause == "banned":
            wait_s, cause = await self._invalid.admit(call.route, call.due_us)
            if not wait_s or cause is None:
                call.probes = not self._invalid.is_over
                return
            if call.note_wait(wait_s, cause):
                self._emit(DiscordEvent("wait", str(call.route), wait_s, cause))
            try:
                await self._rest(call, wait_s, cause)
            except BaseException:
                self._invalid.withdraw(cause)
                raise

    async def _rest_after_refusals(self, call: Call) -> None:
        """Wait longer with each 429 of the same call, whatever it says: the limit may be one that is not seen here."""
        doublings = call.refusals - _SPARED_REFUSALS - 1
        if doublings < 0:
            return
        seconds = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * (1 << doublings) * random.uniform(1.0, 1.5))
        now_us = self._clock.now_us()
        self._set_due(call, now_us)
        if call.due_us is not None and now_us + round(seconds * 1e6) > call.due_us:
            raise DiscordRateLimited(call.route, seconds, "retry")
        if call.note_wait(seconds, "retry"):
            self._emit(DiscordEvent("wait", str(call.route), seconds, "retry"))
        await self._rest(call, seconds, "retry")
        self._observer.waited(call.route, seconds, "retry")
        call.wait_cause = ""
        call.waited_us += self._clock.now_us() - now_us

    def _end_wait(self, call: Call, waited_us: int) -> None:
        call.waited_us += waited_us
        if call.wait_cause:
            self._observer.waited(call.route, waited_us / 1e6, call.wait_cause)
            call.wait_cause = ""
        if call.waits_long:
            call.waits_long = False
            self._emit(DiscordEvent("waited", str(call.route), waited_us / 1e6))

    async def _rest(self, call: Call, seconds: float, cause: Cause) -> None:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, lambda: None if over.done() else over.set_result(None))
        try:
            with self._resting.noted(call.route, cause, self._clock.now_us() + round(seconds * 1e6), over):
                await over
        finally:
            timer.cancel()

    # An attempt

    async def _attempt(
        self, call: Call, token: TokenState, settle: Settle, transmit: Transmit[R], ask_again: AskAgain | None
    ) -> R:
        body = b""
        try:
            response = await transmit(self._left_s(call), self._clock)
            if response.status_code == 429:
                with suppress(SendFailed):  # its body is cut: the headers say as much as it
                    body = await response.read_body()
        except SendFailed as failed:
            settle(_LOST if failed.sent else _UNSENT)
            raise
        except DiscordRateLimited:
            settle(_UNSENT)
            raise
        except BaseException:
            settle(_LOST)
            raise
        self._observer.answered(call.route, response.status_code)
        try:
            if response.status_code == 429:
                report, scope = of_refusal(response.headers, body, in_milliseconds=call.route.in_milliseconds)
                settle(report)
                await self._on_refusal(call, report, scope)
            else:
                settle(of_response(response.status_code, response.headers))
                if not self._invalid.is_over:
                    self._invalid.note_response()
                if response.status_code in INVALID or (response.status_code == 404 and call.route.webhook):
                    await self._on_invalid(call.route, token, response, ask_again)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def _on_refusal(self, call: Call, report: CallReport, scope: str) -> None:
        call.refusals += 1
        route, seconds = str(call.route), report.retry_us / 1e6
        self._emit(DiscordEvent("limited", route, seconds, scope, report.bucket, 429, call.refusals))
        if report.verdict in ("stopped", "banned"):
            self._emit(DiscordEvent(report.verdict, route, seconds, scope, "", 429))
        if report.verdict == "banned":
            await self._invalid.ban(seconds)
            return
        self._invalid.note_response()
        if scope != "shared":
            await self._invalid.count(call.route)

    async def _on_invalid(
        self, route: Route, token: TokenState, response: UnreadResponse, ask_again: AskAgain | None
    ) -> None:
        status = response.status_code
        if status in INVALID:
            await self._invalid.count(route)
        if route.webhook and status != 403:
            if error_code(await response.read_body()) in UNKNOWN_WEBHOOK:
                self._tokens.mark_webhook_gone(route, status)
        elif status == 401 and token.is_token and route.judges_token and ask_again is not None:
            await self._form_opinion(route, token, ask_again)

    async def _form_opinion(self, route: Route, token: TokenState, ask_again: AskAgain) -> None:
        """One 401 may be about anything. A second one, where every living token is welcome, is about the token."""
        if not self._tokens.doubt(token):
            return
        if token.opinion is None:
            token.opinion_due_us = self._clock.now_us() + round(OPINION_S * 1e6)
            token.opinion = asyncio.ensure_future(self._judge(route, token, ask_again))
        await self._wait_for_opinion(route, token)

    async def _judge(self, route: Route, token: TokenState, ask_again: AskAgain) -> None:
        status = 0
        try:
            status = await ask_again()
        except Exception as error:
            logger.debug("there is no second opinion on the token: %r", error)
        finally:
            token.opinion = None
        if status == 401:
            self._tokens.mark_rejected(token, route)
        elif 200 <= status < 300:
            self._tokens.mark_trusted(token)

    async def _wait_for_opinion(self, route: Route, token: TokenState, due_us: int | None = None) -> None:
        opinion = token.opinion
        if opinion is None:
            return
        left_s = None if due_us is None else max(0, due_us - self._clock.now_us()) / 1e6
        with self._resting.noted(route, "token", token.opinion_due_us), suppress(TimeoutError):
            async with within(self._clock, left_s) if left_s is not None else nullcontext():
                await asyncio.wait([opinion])

    def _left_s(self, call: Call) -> float | None:
        """Seconds until its deadline. Raises DiscordRateLimited if that has passed: then it is of no more use."""
        if call.deadline_us is None:
            return None
        left_us = call.deadline_us - self._clock.now_us()
        if left_us <= 0:
            raise DiscordRateLimited(call.route, 0.0, "late")
        return left_us / 1e6

    # After a failed one

    def _retries(self, call: Call) -> int:
        return self._policy.max_retries if call.retries is None else call.retries

    def _pause(self, call: Call, *, sent: bool, least_s: float) -> float | None:
        """Seconds before it is sent again; None if it is not."""
        if call.failures >= self._retries(call):
            return None
        if sent and not call.is_safe and not self._policy.retry_unsafe:
            return None
        call.failures += 1
        backed_off = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * (1 << min(call.failures - 1, 10)))
        seconds = max(min(least_s, _LAST_PAUSE_S), backed_off * random.uniform(0.5, 1.0))
        if call.deadline_us is not None and self._clock.now_us() + round(seconds * 1e6) >= call.deadline_us:
            return None
        return seconds
