"""The failures of accounts, or of addresses: counted as soon as they are possible, given back if none happened."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.escalation import FIRST_ROUND, Round, Strikes
from asgi_ratelimit.events import Event
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import Limit, LimitSpec, SlidingWindow, as_limits
from asgi_ratelimit.login.held import HeldAttempts
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Store

__all__ = ["FailureCount", "Reservation", "Verdict"]

Verdict = Literal["succeeded", "failed", "unknown"]

_OPEN: Final = "attempts in flight"
_LEASE_US: Final = 60_000_000  # so long is an attempt waited for that never comes to a result
_MOST_OPEN: Final = 1_000
_BUSY_US: Final = 1_000_000  # until an attempt should be repeated that has waited for others in vain


@dataclass(frozen=True, slots=True)
class Reservation:
    """An attempt's place in a bucket, or that there is none."""

    key: str
    round: Round
    decision: Decision

    @property
    def is_final(self) -> bool:
        """Whether no result of another attempt can change it."""
        return self.decision.allowed or self.decision.reason == "blocked" or not self.waits_for_results

    @property
    def waits_for_results(self) -> bool:
        """Whether attempts are in flight in this bucket."""
        return any(part.remaining < part.limit for part in self.decision.parts if _is_open(part))

    @property
    def shown(self) -> Decision:
        """The decision, without the limit for attempts in flight. A wait for their results is a second's."""
        decision = _without_open(self.decision)
        if self.decision.allowed:
            return decision
        if self.decision.reason != "blocked" and self.waits_for_results:
            return decision.later(_BUSY_US)
        return decision


class FailureCount:
    """The failures of many keys under one limit. A bucket that failures alone have used up is blocked.

    An attempt is charged to the limit before its result is known, and to a second one that counts attempts in flight.
    Each block begins a new bucket, so that it is full when the block ends.
    """

    def __init__(self, option: str, limit: LimitSpec, strikes: Strikes | None, *, store: Store, name: str) -> None:
        self.limits = tuple(_checked(option, limit))
        most = min(_MOST_OPEN, max(each.capacity for each in self.limits))
        in_flight = SlidingWindow(Rate(most, _LEASE_US), name=_OPEN)
        self._limiter = Limiter([*self.limits, in_flight], store=store, name=name)
        self._strikes, self._clock = strikes, store.clock
        self._held = HeldAttempts(store.clock)

    async def reserve(self, key: str, deadline_us: int) -> Reservation:
        """Charge an attempt, and wait for the results of others if these decide. Raises RateLimited."""
        observers = self._limiter.observers
        try:
            answer, seconds = await self._held.ask(key, lambda: self._reserve(key), deadline_us)
            shown = await self._without_a_place(key) if answer is None else answer.shown
        except (StoreUnavailable, CancelledError) as error:
            self._limiter.report_undecided(error, key)
            raise
        if answer is None or not answer.decision.allowed:
            observers.decided(self._limiter.name, shown, key)
            raise RateLimited(shown)
        if seconds:
            observers.emit(Event("waited", self._limiter.name, decision=shown, key=key, seconds=seconds))
        return answer

    def report(self, reservation: Reservation) -> None:
        """Tell the observers that an attempt may go on."""
        if self._limiter.observers.counts_allowed:
            self._limiter.observers.decided(self._limiter.name, reservation.shown, reservation.key)

    async def give_back(self, reservation: Reservation) -> None:
        """The attempt has not failed."""
        try:
            await self._limiter.refund(reservation.decision)
        finally:
            self._held.wake(reservation.key)

    async def clear(self, reservation: Reservation) -> None:
        """The attempt has succeeded: forget the failures before it. The blocks before it are remembered."""
        try:
            await self._limiter.reset(reservation.key, per=reservation.round.id)
        finally:
            self._held.wake(reservation.key)

    async def count_failure(self, reservation: Reservation) -> None:
        """The attempt has failed. Its charge stays. Block the key if no attempt in flight can make room."""
        self._limiter.observers.emit(Event("failed", self._limiter.name, key=reservation.key))
        try:
            for part in reservation.decision.parts:
                if _is_open(part):
                    await self._limiter.refund(part)
            if self._strikes is not None and await self._is_used_up(reservation):
                await self._strike(self._strikes, reservation)
        finally:
            self._held.wake(reservation.key)

    async def _strike(self, strikes: Strikes, reservation: Reservation) -> None:
        seconds = await strikes.strike(reservation.key, reservation.round, self._limiter.block)
        if seconds:
            event = Event("escalated", self._limiter.name, key=reservation.key, seconds=seconds)
            self._limiter.observers.emit(event)

    async def peek(self, key: str) -> Decision:
        """The decision of an attempt that would come now, without a charge."""
        present = await self._round_of(key)
        return Reservation(key, present, await self._limiter.peek(key, per=present.id)).shown

    async def reset(self, key: str) -> None:
        """Forget the failures and the blocks of a key."""
        if self._strikes is not None:
            await self._strikes.forget(key)
        await self._limiter.reset(key)  # of the first round, which it is again
        self._held.wake(key)

    async def block(self, key: str, seconds: float) -> None:
        """Refuse the attempts of a key for so many seconds. It does not count as a block after failures."""
        await self._limiter.block(key, seconds)

    async def _reserve(self, key: str) -> Reservation:
        present = await self._round_of(key)
        while True:
            # A waiting call gets no remembered refusal: a result may have come since.
            pending = self._limiter.decide(key, 1, present.id, True)
            decision = pending if isinstance(pending, Decision) else await pending
            answer = Reservation(key, present, decision)
            if decision.allowed or not answer.is_final or decision.reason == "blocked":
                return answer
            before, present = present, await self._round_of(key)
            if present == before:
                return answer

    async def _without_a_place(self, key: str) -> Decision:
        """The refusal of an attempt that cannot be held, as so many others are."""
        decision = await self.peek(key)
        return decision.later(_BUSY_US) if decision.allowed else decision

    async def _is_used_up(self, reservation: Reservation) -> bool:
        """Whether failures alone have used up the bucket of a reservation."""
        decision = await self._limiter.peek(reservation.key, per=reservation.round.id)
        after = Reservation(reservation.key, reservation.round, decision)
        return after.is_final and not decision.allowed and decision.reason != "blocked"

    async def _round_of(self, key: str) -> Round:
        return FIRST_ROUND if self._strikes is None else await self._strikes.round_of(key)


def _checked(option: str, limit: LimitSpec) -> Iterator[Limit]:
    for each in as_limits(limit):
        if not each.capacity or each.shapes or each.scope != "user" or each.name == _OPEN:
            raise ValueError(
                f'{option} is a limit of failures for each {option}, e.g. {option}="5/15 minutes", not {each!r}'
            )
        yield each


def _is_open(part: Decision) -> bool:
    return part.policy.limit.name == _OPEN


def _without_open(decision: Decision) -> Decision:
    parts = [part for part in decision.parts if not _is_open(part)]
    if decision.reason == "blocked" or not parts or len(parts) == len(decision.parts):
        return decision
    return Decision.combine(parts)
