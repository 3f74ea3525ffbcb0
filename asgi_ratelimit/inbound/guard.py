"""The one decision about a request. Every door asks the same guard and translates its decision."""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from inspect import isawaitable
from typing import Final

from starlette.types import Scope

from asgi_ratelimit.call_keys import CallKey
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.escalation import Escalate, check_escalate
from asgi_ratelimit.events import Event
from asgi_ratelimit.inbound.diagnostics import Diagnostics
from asgi_ratelimit.inbound.estimate import Estimate
from asgi_ratelimit.inbound.holding import ClientGone, Gone, Holding
from asgi_ratelimit.inbound.keyed_limits import KeyedLimits, LimitSource, by, keyed_limits
from asgi_ratelimit.inbound.keys import address_reader, by_user_or, check_key
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import Connection, CostSource, Key, KeyFunction, check_call, connection
from asgi_ratelimit.inbound.own_keys import OwnKeys, ResolvedKeys, Sources
from asgi_ratelimit.inbound.request_state import RequestState, give_back
from asgi_ratelimit.inbound.stagger import Stagger, is_discord_client
from asgi_ratelimit.inbound.users import is_anonymous, user_key, user_of
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import MOST_COST, Limit, TokenBucket, as_limits
from asgi_ratelimit.minute_line import MinuteLine
from asgi_ratelimit.shown import shown
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["KEY_FUNCTION", "NONE_RESOLVED", "RequestGuard"]

NOTHING: Final = (TokenBucket("0/day"),)  # for a limit function that returned 0 or False
REFUSAL: Final = (TokenBucket("0/minute"),)  # for one that returned no limit: no grant, and soon over once it is mended
KEY_FUNCTION: Final = object()  # instead of a key: call the key function
ANONYMOUS: Final = ""  # the key of all requests without any identity
NONE_RESOLVED: Final[ResolvedKeys] = {}


class RequestGuard:
    """A door's limit, key and cost, and the decision that they give for a connection.

    limit, key, cost, max_wait, enforce, escalate: the options of the door
    longest_delay: seconds of shaping; a longer delay is a refusal
    visitors: the key of a request for which the door was given no user
    resolves_keys: whether the door passes the keys of `by` to `check`

    An exception of a user's function is passed on. A result that is out of range never ends in a 500 and never in
    no limit: each has a safe reading, and a warning.
    """

    def __init__(
        self,
        limit: LimitSource | KeyedLimits,
        key: KeyFunction,
        cost: CostSource,
        warn_once: WarnOnce,
        *,
        max_wait: float = 0.0,
        enforce: bool = True,
        longest_delay: float = math.inf,
        visitors: Callable[[Scope], Key] | None = None,
        escalate: Escalate | None = None,
        resolves_keys: bool = False,
    ) -> None:
        check_key(key)
        for option, source in (("limit", limit), ("cost", cost)):
            if callable(source):
                check_call(option, source, "conn")
        if not isinstance(max_wait, (int, float)) or not 0 <= max_wait < math.inf:
            raise ValueError(f"max_wait must be seconds from 0, e.g. max_wait=2.5, not {max_wait!r}")
        check_escalate(escalate)
        if escalate is not None and limit is None:
            raise ValueError("escalate= counts refusals, and limit=None refuses nothing; give the door a limit")
        self.enforce, self.escalate = enforce, escalate
        self.unlimited = limit is None
        self.fixed: tuple[Limit, ...] | None = None
        self.sources: Sources | None = None
        if not callable(limit) and limit is not None:
            self.fixed, self.sources = keyed_limits(limit)
        if not resolves_keys:
            _check_no_dependency(self.sources or ())
        self._own_keys = OwnKeys(self.as_key, warn_once.warn)
        others = [source.key for source in self.sources or () if source is not None]
        self.diagnostics = Diagnostics(warn_once, key, others)
        self._proxies, self._visitors = self.diagnostics.proxies, visitors
        self._limit_function = limit if callable(limit) else None
        address = address_reader(key)  # our own key functions read the scope, without a connection
        self.address_of, self._reads_user = address and address.of, address is not None and isinstance(key, by_user_or)
        self._key = key
        self._cost_function = cost if callable(cost) else None
        self.estimate = cost if isinstance(cost, Estimate) else None
        if self.estimate is not None:
            _static_cost(self.estimate.start, self.fixed, "the start of an Estimate")
        self._static_cost = 1 if callable(cost) else _static_cost(cost, self.fixed)
        self._cost = 0 if callable(cost) or callable(limit) else self._static_cost  # 0: `_cost_of` the request
        shapes = self.fixed is None or any(limit.shapes for limit in self.fixed)
        self.may_wait = max_wait > 0 or shapes  # whether a request may be held here
        self._max_wait, self._longest_delay = max_wait, longest_delay
        self._holding = Holding()
        self._stagger = Stagger()
        self._would_refuse = MinuteLine()

    async def check(
        self,
        scope: Scope,
        limiters: LimiterCache,
        state: RequestState,
        per: str = "",
        gone: Gone | None = None,
        conn: Connection | None = None,
        key: object = KEY_FUNCTION,
        resolved: ResolvedKeys = NONE_RESOLVED,
    ) -> Decision | None:
        """Charge the buckets of a request, and note the decision in its state; None: nothing limits it.

        A refusal gives back the charges of the limits that were asked before it: all of them are charged, or none.
        Waits for `max_wait` and for a delay. `conn` is the argument of the user's functions, a new connection
        unless the door has a better one. Raises StoreUnavailable during an outage that fails closed, unless in shadow
        mode, and ClientGone if `gone` returns while the request is held.
        """
        limiter, sources = limiters.fixed, self.sources
        if limiter is None:
            limiter, sources = await self._chosen_limiter(conn or connection(scope), limiters)
        if limiter is None:
            limiters.report_exempt()
            return None
        if key is KEY_FUNCTION:
            key = user_key(scope) if "user" in scope and self._reads_user else None
            if key is None:
                key = self.address_of(scope) if self.address_of else await self._key_of(conn or connection(scope))
            if self._proxies.trials:
                self._proxies.look_at(scope, key)
                self.diagnostics.check_user(scope)
        elif self._visitors is not None:
            key = self._user_or_visitor(key, scope, self._visitors)
        if type(key) is not str or not key:
            key = self.as_key(await key if isawaitable(key) else key)
        keys: CallKey = key
        if sources is not None:
            argument = conn or connection(scope)
            limiter, keys = await self._own_keys.choose(limiter, limiters, sources, key, argument, resolved)
            if limiter is None:
                limiters.report_exempt(key)
                return None
        cost = self._cost or await self._cost_of(conn or connection(scope), limiter)
        if not cost:
            limiters.report_exempt(key)
            return None
        earlier, observers = state.charges, limiter.observers
        try:
            if self._max_wait and (not self._holding.is_full(key) or limiter.has_line(keys, per=per)):
                decision = await self._acquired(limiter, keys, cost, per, gone, key)
            else:
                decide = limiter.decide
                if earlier and state.has_missed(limiter.store):  # to wait once is enough for a request
                    decide = limiter.decide_without_server
                pending = decide(keys, cost, per)
                decision = pending if type(pending) is Decision else await pending
                if decision.delay_us:
                    decision = await self._delayed(decision, limiter, key, gone)
        except (StoreUnavailable, ClientGone, CancelledError) as error:
            limiter.report_undecided(error, key, cost)
            if self.enforce or not isinstance(error, StoreUnavailable):
                raise
            return None
        if keys is not key:
            key = limiter.reported_key(keys, decision)
        if not decision.allowed:
            decision = await self._refused(decision, limiter, key, scope, state)
            if limiters.refusals is not None:
                await limiters.refusals.count(decision, limiter, keys, enforced=self.enforce)
        elif observers.counts_allowed:
            observers.decided(limiter.name, decision, key)
        state.charges += ((limiter, decision),)
        if limiter.holds and decision.allowed:
            state.hold(limiter, decision)
        if earlier and state.repeats():
            self.diagnostics.warn_of_second_pass(limiter)
        return decision

    async def peek(
        self,
        conn: Connection,
        limiters: LimiterCache,
        per: str = "",
        key: object = KEY_FUNCTION,
        resolved: ResolvedKeys = NONE_RESOLVED,
    ) -> Decision | None:
        """The decision of `check`, without a charge, a wait or a note in the state; None: nothing limits it."""
        limiter, sources = limiters.fixed, self.sources
        if limiter is None:
            limiter, sources = await self._chosen_limiter(conn, limiters)
        if limiter is None:
            return None
        if key is KEY_FUNCTION:
            key = await self._key_of(conn)
        elif self._visitors is not None:
            key = self._user_or_visitor(key, conn.scope, self._visitors)
        keys: CallKey = key if type(key) is str and key else self.as_key(key)
        if sources is not None:
            limiter, keys = await self._own_keys.choose(limiter, limiters, sources, str(keys), conn, resolved)
        cost = 0 if limiter is None else self._cost or await self._cost_of(conn, limiter)
        return await limiter.peek(keys, cost, per=per) if cost and limiter else None

    def check_limiter(self, limiter: Limiter | None) -> None:
        """Raises ValueError if the store takes one key alone, and some limits have a key of their own."""
        if limiter is not None and self.sources is not None:
            limiter.checked_key(("",) * len(limiter.limits))

    async def _refused(
        self, refusal: Decision, limiter: Limiter, key: str, scope: Scope, state: RequestState
    ) -> Decision:
        clock = limiter.store.clock
        if is_discord_client(scope):
            refusal = self._stagger.next(refusal, clock.now_us())
        limiter.observers.decided(limiter.name, refusal, key, self.enforce)
        if self.enforce:
            if state.charges:
                await state.undo()
            state.refused_by = refusal
        else:
            self.tally(repr(limiter), clock)
        return refusal

    def tally(self, limiter: str, clock: Clock) -> None:
        """Count a refusal of shadow mode, and log the number once a minute at most."""
        self._would_refuse.warn(clock, "%d requests would have been refused (enforce=False) by %s", limiter)

    # Waiting

    async def _acquired(
        self, limiter: Limiter, keys: CallKey, cost: int, per: str, gone: Gone | None, key: str
    ) -> Decision:
        """The decision after a wait of up to `max_wait`."""
        if not limiter.has_line(keys, per=per):
            decision = await limiter.check(keys, cost, per)
            if not decision.delay_us and (decision.allowed or decision.retry_after > self._max_wait):
                return decision
            await give_back(limiter, decision)
        if self._holding.is_full(key):
            return (await limiter.peek(keys, cost, per=per)).as_refusal(cost)
        try:
            waiting = limiter.wait(keys, cost, per, self._max_wait)
            decision, seconds = await self._holding.wait(key, waiting, gone, lambda held: give_back(limiter, held[0]))
        except RateLimited as refused:
            return refused.decision
        _report_wait(limiter, decision, limiter.reported_key(keys, decision), seconds)
        return decision

    async def _delayed(self, decision: Decision, limiter: Limiter, key: str, gone: Gone | None) -> Decision:
        """The decision after its delay. A delay that is too long is a refusal."""
        excess = decision.delay - self._longest_delay
        if excess > 0 or self._holding.is_full(key):
            await give_back(limiter, decision)
            wait_us = round(excess * 1e6) if excess > 0 else decision.delay_us
            return decision.as_refusal(decision.cost, wait_us)
        try:
            await self._holding.wait(key, limiter.store.clock.sleep(decision.delay), gone)
        except BaseException:
            await give_back(limiter, decision)
            raise
        _report_wait(limiter, decision, key, decision.delay)
        return decision

    # The results of the user's functions

    async def _chosen_limiter(self, conn: Connection, limiters: LimiterCache) -> tuple[Limiter | None, Sources | None]:
        if self._limit_function is None:
            return None, None
        value = self._limit_function(conn)
        if isawaitable(value):
            value = await value
        if value is None:
            return None, None
        if isinstance(value, (int, float)) and value == 0:
            return limiters.of(NOTHING), None
        try:
            if isinstance(value, (str, Limit)):
                return limiters.of(_cached_limits(value)), None
            limits, sources = keyed_limits(value)
            _check_no_dependency(sources or ())
            return limiters.of(limits), sources
        except ValueError as error:
            self.diagnostics.warn("ARL202", f"{error}. Until it returns one, such requests are refused.")
            return limiters.of(REFUSAL), None

    async def _key_of(self, conn: Connection) -> object:
        key = self._key(conn)
        return await key if isawaitable(key) else key

    def as_key(self, key: object) -> str:
        """The key as a string. A value that is no key becomes the one that all of them share, with a warning."""
        if isinstance(key, bytes):
            key = key.decode("latin-1")
        user = None if is_anonymous(key) else user_of(key)
        if user is not None and user != "":
            with suppress(ValueError):  # of a number with too many digits
                return str(user)
        if key is None or user == "" or is_anonymous(key):
            self.diagnostics.warn(
                "ARL103",
                "the key function returned no user, address or header, so all of these requests share one bucket. "
                "Behind a unix socket use ClientIP(trusted_proxies=('unix',)).",
            )
        else:
            self.diagnostics.warn(
                "ARL201",
                f"a key is a string such as 'user:1', not {shown(key)}; all of these requests share one bucket",
            )
        return ANONYMOUS

    def _user_or_visitor(self, user: object, scope: Scope, visitors: Callable[[Scope], Key]) -> object:
        """The user that the door was given, or a key for a visitor that no user can have."""
        if user is None or user == "" or is_anonymous(user):
            self.diagnostics.warn(
                "ARL103",
                "the dependency in key=Depends(...) returned no user. These requests are counted by their address; "
                "return a key for them if that is not meant.",
            )
            if self._proxies.trials:
                self._proxies.look_at(scope)
            address = visitors(scope)
            return address and f"visitor:{address}"
        return f"key:{user}" if isinstance(user, str) and user.startswith(("visitor:", "key:")) else user

    async def _cost_of(self, conn: Connection, limiter: Limiter) -> int:
        """The cost of one request, at most the capacity; 0 if it is not counted."""
        cost = self._cost_function(conn) if self._cost_function else self._static_cost
        if isawaitable(cost):
            cost = await cost
        if isinstance(cost, float) and 0 <= cost < math.inf:
            cost = math.ceil(cost)
        if not isinstance(cost, int) or cost < 0:
            self.diagnostics.warn("ARL203", f"a cost is a whole number from 0, not {shown(cost)}; 1 is charged instead")
            return 1
        if cost <= limiter.capacity or not limiter.capacity:  # a limit of zero refuses any cost
            return min(int(cost), MOST_COST)
        if self.estimate is not None:  # it has learned of calls that have cost more
            return limiter.capacity
        self.diagnostics.warn("ARL203", f"one is above the capacity of {limiter!r}; the capacity is charged instead")
        return limiter.capacity


def _report_wait(limiter: Limiter, decision: Decision, key: str, seconds: float) -> None:
    if seconds:
        fields = {"decision": decision, "key": key, "cost": decision.cost, "seconds": seconds}
        limiter.observers.emit(Event("waited", limiter.name, **fields))


def _check_no_dependency(sources: Sequence[by | None]) -> None:
    for source in sources:
        if source is not None and source.is_dependency:
            raise ValueError(
                f"{source!r} has a dependency as its key, which FastAPI resolves for Depends(RateLimit(...)) alone; "
                "give by a function of the connection here"
            )


def _static_cost(cost: object, fixed: tuple[Limit, ...] | None, option: str = "cost") -> int:
    hard = [limit for limit in fixed or () if limit.enforce]  # a soft limit refuses no cost
    capacity = min((limit.capacity for limit in hard), default=0) or None
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1 or (capacity is not None and cost > capacity):
        upper = "" if capacity is None else f" to {capacity}, the capacity"
        raise ValueError(
            f"{option} must be a whole number from 1{upper}, or a function of the connection, not {cost!r}"
        )
    return cost


@lru_cache(maxsize=1024)
def _cached_limits(value: str | Limit) -> tuple[Limit, ...]:
    return as_limits(value)
