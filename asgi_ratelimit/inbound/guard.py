"""The one place where it is decided about a request; every door stands on it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import isawaitable
from typing import Any
from uuid import UUID

from starlette.authentication import BaseUser
from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_ratelimit.call_site import several_workers
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited
from asgi_ratelimit.inbound.keys import (
    ClientIP,
    KeyFunction,
    by_user,
    by_user_or,
    forwarded_for,
    identity_of,
    key_of_scope,
    peer_host,
)
from asgi_ratelimit.inbound.stagger import Turns, is_discord_client
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import Limit, TokenBucket, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import PerStore, Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["ASK", "ClientGone", "Gate", "Limiters", "reads_the_user"]

logger = logging.getLogger("asgi_ratelimit")

FALLBACK = (TokenBucket("5/5s"),)  # where a limit function gave no limit: strict enough to be noticed
ASK = object()  # instead of a key: ask the key function
ANONYMOUS = ""  # the bucket of all who cannot be told apart
MOST_HELD = 1_000  # requests that one door holds at a time, at most
_TRIALS = 100  # requests in which a door looks for a forgotten proxy

Gone = Callable[[], Awaitable[None]]

_doors: PerStore[dict[str, tuple[Limit, ...]]] = PerStore(lambda store: {})  # the limits of each door, by name


class ClientGone(Exception):
    """The client left while its request was held."""


class Limiters:
    """The limiters of one door in one store: one per list of limits that it has met, the last thousand of them."""

    def __init__(
        self, store: Store, name: str, fixed: tuple[Limit, ...] | None, *, global_name: str | None = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f'the name of a limiter is a string such as "search", not {name!r}')
        self.store = store
        self._names: Any = {"name": name, "global_name": global_name}
        self.fixed = None if fixed is None else self._limiter(fixed)
        self._met: OrderedDict[tuple[Limit, ...], Limiter] = OrderedDict()

    def of(self, limits: tuple[Limit, ...]) -> Limiter:
        limiter = self._met.get(limits)
        if limiter is None:
            limiter = self._met[limits] = self._limiter(limits)
            if len(self._met) > 1_000:
                self._met.popitem(last=False)
        return limiter

    def introduce(self, notices: WarnOnce) -> None:
        """Make the door known to the others of its store."""
        if self.fixed is not None:
            known = _doors.of(self.store).setdefault(self.fixed.name, self.fixed.limits)
            if known != self.fixed.limits:
                notices.warn("ARL101", f"{self.fixed!r} and {[str(limit) for limit in known]} do not share any bucket")

    def _limiter(self, limits: tuple[Limit, ...]) -> Limiter:
        return Limiter(limits, store=self.store, **self._names)


class Gate:
    """A door's limit, key and cost, and the answer they give for a connection.

    What a user's function raises is the user's. What it returns that makes no sense never ends in a 500 and
    never in no limit: there is a safe reading of each, and a warning.
    """

    def __init__(self, limit: Any, key: KeyFunction, cost: Any, max_wait: float, notices: WarnOnce) -> None:
        if not callable(key):
            raise ValueError(f"key must be a function of the connection such as by_user_or_ip, not {key!r}")
        if not isinstance(max_wait, (int, float)) or not 0 <= max_wait < math.inf:
            raise ValueError(f"max_wait must be seconds from 0, e.g. max_wait=2.5, not {max_wait!r}")
        self._notices = notices
        self._limit_function = limit if callable(limit) else None
        self.fixed = None if callable(limit) or limit is None else as_limits(limit)
        self.unlimited = limit is None
        self._key = key
        self._key_of = key_of_scope(key)
        self._cost_function = cost if callable(cost) else None
        self._cost = 1 if callable(cost) else _static_cost(cost, self.fixed)
        self._max_wait = max_wait
        # Whether a request may be held here.
        self.may_wait = max_wait > 0 or self.fixed is None or any(limit.shapes for limit in self.fixed)
        self._held = 0
        self._would_refuse = self._next_tally_us = 0
        self._turns = Turns()
        self._trials = _TRIALS if _reads_the_address(key) else 0

    async def decide(
        self,
        scope: Scope,
        limiters: Limiters,
        *,
        conn: HTTPConnection | None = None,
        key: Any = ASK,
        per: str = "",
        gone: Gone | None = None,
    ) -> tuple[Decision, Limiter] | None:
        """Charge a connection's buckets; None if nothing limits it. Waits for `max_wait` and for a delay.

        `conn` is what a user's functions are given, a HTTPConnection unless the door has a better one.
        """
        limiter = limiters.fixed or await self._chosen(conn or HTTPConnection(scope), limiters)
        if limiter is None:
            return None
        if key is ASK:
            key = self._key_of(scope) if self._key_of else self._key(conn or HTTPConnection(scope))
        if type(key) is not str or not key:
            key = self._as_key(await key if isawaitable(key) else key)
        if self._trials:
            self._look_for_a_proxy(scope)
        cost = self._cost
        if self._cost_function is not None:
            cost = await self._asked_cost(conn or HTTPConnection(scope))
            if cost == 0:
                return None
        if cost > limiter.capacity:
            cost = self._all_of(limiter)
        if self._max_wait and (self._held < MOST_HELD or limiter.has_line(key, per=per)):
            decision = await self._held_back(limiter, key, cost, per, gone)
        else:
            answer = limiter.decide(key, cost, per)
            decision = answer if isinstance(answer, Decision) else await answer
            if self.may_wait and decision.delay:
                decision = await self._delayed(decision, limiter, gone)
        if not decision.allowed and is_discord_client(scope):
            decision = self._turns.next(decision, limiter.store.clock.now_us())
        return decision, limiter

    # Waiting

    async def _held_back(self, limiter: Limiter, key: str, cost: int, per: str, gone: Gone | None) -> Decision:
        if not limiter.has_line(key, per=per):
            decision = await limiter.try_acquire(key, cost, per=per)
            if not decision.delay and (decision.allowed or decision.retry_after > self._max_wait):
                return decision
            await limiter.refund(decision)
        if self._held >= MOST_HELD:
            return (await limiter.peek(key, cost, per=per)).as_refusal(cost)
        try:
            acquired = limiter.acquire(key, cost, timeout=self._max_wait, per=per)
            return await self._unless_gone(acquired, gone)  # type: ignore[no-any-return]
        except RateLimited as refused:
            return refused.decision

    async def _delayed(self, decision: Decision, limiter: Limiter, gone: Gone | None) -> Decision:
        if self._held >= MOST_HELD:
            await limiter.refund(decision)
            return decision.as_refusal(decision.cost, round(decision.delay * 1e6))
        try:
            await self._unless_gone(limiter.store.clock.sleep(decision.delay), gone)
        except BaseException:
            await limiter.refund(decision)
            raise
        return decision

    async def _unless_gone(self, waiting: Any, gone: Gone | None) -> Any:
        """The result of `waiting`; ClientGone as soon as the client has left."""
        self._held += 1
        try:
            if gone is None:
                return await waiting
            wait, leave = asyncio.ensure_future(waiting), asyncio.ensure_future(gone())
            try:
                await asyncio.wait({wait, leave}, return_when=asyncio.FIRST_COMPLETED)
                if wait.done():
                    return wait.result()
                raise ClientGone
            finally:
                await _cancelled(wait, leave)
        finally:
            self._held -= 1

    # What a user's functions say

    async def _chosen(self, conn: HTTPConnection, limiters: Limiters) -> Limiter | None:
        if self._limit_function is None:
            return None
        value = self._limit_function(conn)
        if isawaitable(value):
            value = await value
        if value is None:
            return None
        try:
            limits = _as_limits(value) if isinstance(value, (str, Limit)) else as_limits(value)
        except ValueError as error:
            self._notices.warn("ARL202", f"{error}. Until it does, {FALLBACK[0]} is used.")
            limits = FALLBACK
        return limiters.of(limits)

    def _as_key(self, key: object) -> str:
        if isinstance(key, bytes):
            key = key.decode("latin-1")
        key = _identity(key)
        if isinstance(key, (str, int, UUID)) and key != "":
            return str(key)
        if key is None or key == "":
            self._notices.warn(
                "ARL103",
                "the key function found no user, address or header, so all such requests share one bucket. "
                "Behind a unix socket use ClientIP(trusted_proxies=('unix',)).",
            )
        else:
            self._notices.warn(
                "ARL201", f"a key is a string such as 'user:1', not {key!r:.80}; such requests share one"
            )
        return ANONYMOUS

    async def _asked_cost(self, conn: HTTPConnection) -> int:
        cost = self._cost_function(conn) if self._cost_function else 1
        if isawaitable(cost):
            cost = await cost
        if isinstance(cost, float) and 0 <= cost < math.inf:
            cost = math.ceil(cost)
        if not isinstance(cost, int) or cost < 0:
            self._notices.warn("ARL203", f"a cost is a whole number from 0, not {cost!r:.80}; 1 is charged instead")
            return 1
        return int(cost)

    def _all_of(self, limiter: Limiter) -> int:
        self._notices.warn("ARL203", f"one is above the capacity of {limiter!r}; the capacity is charged instead")
        return limiter.capacity

    def _look_for_a_proxy(self, scope: Scope) -> None:
        self._trials -= 1
        hops = forwarded_for(scope)
        # uvicorn's own ProxyHeadersMiddleware has then put the client's address in place of the proxy's.
        if hops and peer_host(scope) not in hops:
            self._trials = 0
            self._notices.warn(
                "ARL104",
                "if that is your own proxy, all of its users share one bucket: use ClientIP(trusted_proxies=[...]) "
                "or the server's own option (uvicorn --proxy-headers --forwarded-allow-ips).",
            )

    # What both doors have to say

    def warn_of_second_pass(self, limiter: Limiter) -> None:
        self._notices.warn("ARL102", f"{limiter!r} has been passed twice; give one of the doors another name")

    def warn_of_workers(self, store: Store) -> None:
        if isinstance(store, MemoryStore) and several_workers():
            self._notices.warn(
                "ARL105",
                "each worker counts for itself, so N workers allow N times the limit; use one worker or a RedisStore",
            )

    def tally(self, by: str, clock: Clock) -> None:
        """Count what shadow mode would have refused, and say so once a minute at most."""
        self._would_refuse += 1
        if clock.now_us() >= self._next_tally_us:
            logger.warning("%s would have refused %d requests (enforce=False)", by, self._would_refuse)
            self._would_refuse, self._next_tally_us = 0, clock.now_us() + 60_000_000


def _identity(user: object) -> object:
    """What names a user object or dict, else the thing itself."""
    if user is None or isinstance(user, (str, int, UUID)):
        return user
    if isinstance(user, BaseUser):
        return identity_of(user)
    for name in ("identity", "id", "sub"):
        value = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if isinstance(value, (str, int, UUID)):
            return value
    return user


def _reads_the_address(key: object) -> bool:
    """Whether it is one of our own key functions, told of no proxy."""
    if isinstance(key, by_user_or):
        key = key.fallback
    return isinstance(key, ClientIP) and not key.trusted_proxies and not key.trusts_unix


def reads_the_user(key: object) -> bool:
    """Whether it is one of our own key functions that look for a user."""
    return key is by_user or isinstance(key, by_user_or)


def _static_cost(cost: object, fixed: tuple[Limit, ...] | None) -> int:
    capacity = min(limit.capacity for limit in fixed) if fixed else None
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1 or (capacity is not None and cost > capacity):
        upper = "" if capacity is None else f" to {capacity}, the capacity"
        raise ValueError(f"cost must be a whole number from 1{upper}, or a function of the connection, not {cost!r}")
    return cost


@lru_cache(maxsize=1024)
def _as_limits(value: str | Limit) -> tuple[Limit, ...]:
    return as_limits(value)


async def _cancelled(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
