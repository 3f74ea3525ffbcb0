"""How an attempt is admitted and counted: its address and its account, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.login.account_names import Digests, fold_address
from asgi_ratelimit.login.failures import FailureCount, Reservation, Verdict
from asgi_ratelimit.login.familiar import Familiar

__all__ = ["Admission", "Counts", "Visit", "Visitors"]

logger = logging.getLogger("asgi_ratelimit")


@dataclass(frozen=True, slots=True)
class Counts:
    """Where attempts are counted, and for how long they may wait."""

    accounts: FailureCount
    addresses: FailureCount
    familiar: Familiar
    clock: Clock
    max_wait: float


@dataclass(frozen=True, slots=True)
class Visit:
    """The keys of an account, an address and a device. "" is a place that was not named."""

    stranger: str  # the account's bucket for all places that it does not know
    address: str  # the address's bucket
    from_address: str  # the account's bucket for this address, and the mark that it knows it
    from_device: str

    @property
    def places(self) -> tuple[str, ...]:
        """The places that were named, the surest one first."""
        return tuple(place for place in (self.from_device, self.from_address) if place)


class Visitors:
    """Makes keys of names."""

    def __init__(self, digests: Digests, fold: Callable[[str], str]) -> None:
        self._digest, self._fold = digests.of, fold

    def visit(self, account: object, address: object, device: object) -> Visit:
        """The keys of an attempt. Whatever is no text is taken for its text."""
        name = self._fold("" if account is None else str(account))
        host = "" if address is None else fold_address(str(address))
        return Visit(
            self._digest("account", name),
            self._digest("address", host),
            self._digest("account", name, "address", host) if host else "",
            self._digest("account", name, "device", str(device)) if device else "",
        )


class Admission:
    """One attempt, from its beginning to its end."""

    def __init__(self, counts: Counts, visit_of: Callable[[str | None], Visit], device: str | None) -> None:
        self._counts, self._visit_of, self._visit = counts, visit_of, visit_of(device)
        self._known: frozenset[str] = frozenset()
        self._taken: list[tuple[FailureCount, Reservation]] = []

    async def begin(self) -> Decision:
        """Charge the attempt to the address and to the account, or to none. Raises RateLimited."""
        counts, visit = self._counts, self._visit
        deadline_us = counts.clock.now_us() + round(counts.max_wait * 1e6)
        account_key = await self._recognise()
        try:
            if self._counts_address:
                self._taken.append((counts.addresses, await counts.addresses.reserve(visit.address, deadline_us)))
            self._taken.append((counts.accounts, await counts.accounts.reserve(account_key, deadline_us)))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.end("unknown")
            raise
        for count, reservation in self._taken:
            count.report(reservation)
        return self._taken[-1][1].shown

    async def end(self, verdict: Verdict, device: str | None = None) -> None:
        """Count the result. An outage fails no log-in: then the charges stay, or are counted in this process.

        `device` is the one that the client has from now on.
        """
        taken, self._taken = self._taken, []
        for count, reservation in taken:
            await _if_available(self._result_of(verdict, count)(reservation))
        if verdict == "succeeded":
            self._visit = self._visit_of(device) if device else self._visit
            for place in self._visit.places:
                is_new = place not in self._known
                await _if_available(self._counts.familiar.remember(self._visit.stranger, place, is_new=is_new))

    def _result_of(self, verdict: Verdict, count: FailureCount) -> Callable[[Reservation], Awaitable[None]]:
        if verdict == "failed":
            return count.count_failure
        if verdict == "succeeded" and count is self._counts.accounts:
            return count.clear
        return count.give_back

    async def peek(self) -> Decision:
        """The decision about an attempt that would come now, without a charge."""
        account_key = await self._recognise()
        decisions = [await self._counts.accounts.peek(account_key)]
        if self._counts_address and self._visit.from_address:
            decisions.append(await self._counts.addresses.peek(self._visit.address))
        return Decision.combine(decisions)

    async def _recognise(self) -> str:
        """The key of the account's bucket for this visit. Right and wrong names take the same calls."""
        places = self._visit.places
        answers = await asyncio.gather(*(self._counts.familiar.knows(place) for place in places))
        known = [place for place, is_known in zip(places, answers, strict=True) if is_known]
        self._known = frozenset(known)
        return known[0] if known else self._visit.stranger

    @property
    def _counts_address(self) -> bool:
        """Whether the address counts. It does not for a known device, which has failures of its own."""
        return self._visit.from_device not in self._known


async def _if_available(step: Awaitable[None]) -> None:
    try:
        await step
    except StoreUnavailable as error:
        logger.debug("the result of an attempt to log in is lost: %s", error)
