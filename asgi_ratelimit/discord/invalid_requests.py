"""The invalid requests of one address: counted by all processes that name it, so that Discord never has to ban it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.discord.errors import Cause, DiscordEvent, DiscordRateLimited, EventHook, InvalidBudgetSpent
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.events import Event, observers_of
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import SlidingWindow
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store

__all__ = ["ALLOWED", "InvalidRequests"]

logger = logging.getLogger("asgi_ratelimit")

ALLOWED: Final = 10_000  # in any 10 minutes
_WARNED = 0.5  # of them: from here on there is a warning,
_SLOWED = 0.7  # spreads the rest over the time that is left,
_SPARED = 500  # and with so few left no request goes: others may have some in flight
_READ_EVERY_US = 1_000_000  # between two readings of the count of all processes
_PROBE_US = 15_000_000  # that the first call after a ban may take; meanwhile
_PROBE_CHECK_US = 250_000  # the others look so often whether the ban is over


class InvalidRequests:
    """How many requests of an address were answered with 401, 403 or (unless shared) 429 in the last ten minutes.

    10 000 are borne before Cloudflare bans the address, whatever tokens they bore:
    https://discord.com/developers/docs/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans
    """

    def __init__(self, store: Store, egress: str, emit: EventHook) -> None:
        self._limiter = Limiter(SlidingWindow(f"{ALLOWED}/10m"), store=store, name="discord-invalid")
        self._egress, self._emit, self._clock = egress, emit, store.clock
        self._observers = observers_of(store)
        self._own: Limiter | None = None  # made for the first one, as most clients never see any
        self._last: Decision | None = None
        self._next_read_us = 0  # when to read next
        self._reading: asyncio.Future[None] | None = None
        self._next_us = 0  # when the next may go, once they are spread
        self._banned_us = 0  # until when the address is banned
        self.is_over = True  # a response has shown that the last ban is
        self._probe_us = 0  # until when the first call after it has to show that
        self._is_calm = False  # by the last reading, nothing holds up a request
        self.bans = 0  # so many were noticed
        self._has_warned = False

    @property
    def used(self) -> int:
        """How many there were, by the last reply of the store."""
        return 0 if self._last is None else ALLOWED - self._last.remaining

    @property
    def is_banned(self) -> bool:
        """Whether Cloudflare has banned the address, by the last reply of the store."""
        return self._clock.now_us() < self._banned_us

    async def count(self, route: Route) -> None:
        """Count one more."""
        own = await self._count_here()
        try:
            shared = await self._limiter.check(self._egress)
        except StoreUnavailable as error:
            logger.debug("an invalid request was not counted: %s", error)
            shared = own
        self._note(_worse(shared, own), route)
        self._observers.emit(Event("invalid", "discord", route=route.name, checks=self.used))
        if self._is_spent:
            self._next_read_us = 0

    async def _count_here(self) -> Decision:
        """What this process sees counts as well: the store may not answer, or fail open."""
        if self._own is None:
            self._own = Limiter(SlidingWindow(f"{ALLOWED}/10m"), store=MemoryStore(clock=self._clock))
        return await self._own.check(self._egress)

    async def ban(self, seconds: float) -> None:
        """Cloudflare has banned the address: no request may leave it for so long."""
        self._note_ban(seconds)
        try:
            await self._limiter.block(self._egress, seconds)
        except StoreUnavailable as error:
            logger.debug("a ban was not shared with other processes: %s", error)

    def note_response(self) -> None:
        """A response has come that is no ban."""
        if not self.is_over and not self.is_banned:
            self.is_over = True

    async def admit(self, route: Route, due_us: int | None) -> tuple[float, Cause | None]:
        """Seconds that the next request has to wait, and the cause: "banned", "invalid" or None.

        Raises InvalidBudgetSpent if hardly any are left, and DiscordRateLimited if the request would go after `due_us`.
        """
        if self._is_calm and self._clock.now_us() < self._next_read_us and self._reading is None:
            return 0.0, None
        await self._read(route)
        now_us, cause = self._clock.now_us(), self._cause
        wait_us = self._wait_us(cause, now_us, route)
        if wait_us and due_us is not None and now_us + wait_us > due_us:
            raise DiscordRateLimited(route, wait_us / 1e6, cause or "banned")
        if cause == "invalid":
            self._next_us = now_us + wait_us + self._slot_us
        return wait_us / 1e6, cause or ("banned" if wait_us else None)

    async def foresee(self, route: Route) -> float:
        """Seconds that a request would have to wait now. Raises InvalidBudgetSpent if hardly any are left."""
        await self._read(route)
        now_us, cause = self._clock.now_us(), self._cause
        if cause is None:  # it starts no probe, and waits for one that is out
            return 0.0 if self.is_over or now_us >= self._probe_us else _PROBE_CHECK_US / 1e6
        return self._wait_us(cause, now_us, route) / 1e6

    def _wait_us(self, cause: Cause | None, now_us: int, route: Route) -> int:
        if cause == "banned":
            return self._banned_us - now_us
        if cause is None:
            return self._probe_wait_us(now_us)
        if self._last is not None and self._is_spent:
            retry_after = max(0.0, self._last.retry_after - (now_us - self._next_read_us + _READ_EVERY_US) / 1e6)
            raise InvalidBudgetSpent(route, self.used, ALLOWED, retry_after)
        return max(0, self._next_us - now_us)

    def _probe_wait_us(self, now_us: int) -> int:
        """After a ban a single call goes, until its response shows that the ban is over."""
        if self.is_over:
            return 0
        if now_us < self._probe_us:
            return _PROBE_CHECK_US
        self._probe_us = now_us + _PROBE_US
        return 0

    def withdraw_probe(self) -> None:
        """The first call after a ban has no response: another one may find out."""
        self._probe_us = 0

    def withdraw(self, cause: Cause) -> None:
        """A request that waits for this cause gives up."""
        if cause == "invalid":
            self._next_us -= self._slot_us

    @property
    def _cause(self) -> Cause | None:
        if self.is_banned:
            return "banned"
        return "invalid" if self.used >= _SLOWED * ALLOWED else None

    @property
    def _is_spent(self) -> bool:
        return self._last is not None and self._last.remaining <= _SPARED

    @property
    def _slot_us(self) -> int:
        """The pause between two requests, once they are spread."""
        return 0 if self._last is None else round(self._last.reset_after * 1e6 / max(1, self._last.remaining))

    async def _read(self, route: Route) -> None:
        """Read the count of all processes, at most once a second. Requests that come meanwhile wait for the reply."""
        now_us = self._clock.now_us()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        elif now_us >= self._next_read_us:
            self._next_read_us = now_us + _READ_EVERY_US
            reading = self._reading = asyncio.get_running_loop().create_future()
            try:
                decision = await self._peeked()
                if decision is not None:
                    self._note(decision, route)
            finally:
                self._reading = None
                reading.set_result(None)

    async def _peeked(self) -> Decision | None:
        own = None if self._own is None else await self._own.peek(self._egress, cost=_SPARED + 1)
        try:
            shared = await self._limiter.peek(self._egress, cost=_SPARED + 1)
        except StoreUnavailable as error:
            logger.debug("the invalid requests of other processes could not be read: %s", error)
            return own
        return shared if own is None else _worse(shared, own)

    def _note_ban(self, seconds: float) -> None:
        until_us = self._clock.now_us() + round(seconds * 1e6)
        if self.is_over or until_us > self._banned_us + _READ_EVERY_US:
            self.bans += 1
        self._banned_us, self.is_over, self._probe_us = max(self._banned_us, until_us), False, 0
        self._is_calm = False

    def _note(self, decision: Decision, route: Route) -> None:
        if decision.reason == "blocked":
            self._note_ban(decision.retry_after)
            return
        self._last = decision
        self._is_calm = self.is_over and self.used < _WARNED * ALLOWED
        if self.used < _WARNED * ALLOWED:
            self._has_warned = False
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%d of %d invalid requests (401, 403, 429) in 10 minutes are used up; beyond that Discord bans this "
                "address. The last one was %s",
                self.used, ALLOWED, route,
            )  # fmt: skip
            self._emit(DiscordEvent("invalid", str(route), decision.reset_after, "invalid"))


def _worse(shared: Decision, own: Decision) -> Decision:
    """The one that leaves less."""
    return own if shared.reason != "blocked" and own.remaining < shared.remaining else shared
