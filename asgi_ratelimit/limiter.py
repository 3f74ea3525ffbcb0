"""Limiter: limits, a store and a name, with the verbs of the engine."""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from types import TracebackType
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from asgi_ratelimit.call_keys import CallKey, StoreKey, distinct, fitting_key, per_limit
from asgi_ratelimit.call_site import inside_a_request
from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.events import Event, EventKind, observers_of
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.limits import MOST_COST, Limit, LimitSpec, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.off_switch import OFF_SWITCH
from asgi_ratelimit.shown import shown
from asgi_ratelimit.store import Buckets, PerStore, Settlement, Store, bucket_key, check_store, done
from asgi_ratelimit.waiting import WaitersByKey
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["Hold", "Limiter", "check_used", "checked_timeout", "forget_on_reset", "limiters_of"]

Release = Callable[[Decision], Awaitable[object] | None]

_warn_once = WarnOnce()  # of the whole process: a limiter made for each request could not remember
_ONE = 1
_CENTURY_S = 3_155_760_000  # whatever is longer is for ever, and its microseconds are exact in Redis


class Limiter:
    """One limit or a list of them, kept in a store under a name.

    limit: a string such as "5/5s", a limit, or a list of them (all or nothing)
    store: a MemoryStore of its own by default
    name: limiters of the same name, limit and store share their buckets
    global_name: the name for limits of scope "global"; `name` by default

    The key of a call is a string, or a tuple with one for each limit of the list: per address and per account, for
    example. All of them are decided and charged together, or none. A block of one of them refuses the call.

    Raises ValueError if a limit cannot be parsed or the name is empty.
    """

    @explains_foreign_options
    def __init__(
        self,
        limit: LimitSpec,
        *,
        store: Store | None = None,
        name: str = "default",
        global_name: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f'the name of a limiter is a string such as "search", not {name!r}')
        check_store(store)
        self.name = name
        self.limits = as_limits(limit)
        self.capacity = _capacity(self.limits)
        self.policies = tuple(
            Policy(global_name or name if limit.scope == "global" else name, limit) for limit in self.limits
        )
        if store is None and inside_a_request():
            _warn_once.warn(
                "ARL106", f"{self!r} has a store of its own, so it limits nothing; make it once, with the app"
            )
        self.store: Store = MemoryStore() if store is None else store
        self.observers = observers_of(self.store)
        self._own_buckets = self.store.open(name, self.policies)
        self.takes_several_keys = bool(getattr(self._own_buckets, "takes_several_keys", False))
        self.holds = any(limit.holds for limit in self.limits)
        if self.holds and not hasattr(self._own_buckets, "release"):
            raise ValueError(f"{type(self.store).__name__} cannot keep calls that go on: its buckets have no `release`")
        self._use(self._own_buckets)
        OFF_SWITCH.register(self)
        _in_use.of(self.store)[id(self)] = self

    def __repr__(self) -> str:
        return f"Limiter({[str(limit) for limit in self.limits]}, name={self.name!r})"

    async def try_acquire(self, key: CallKey, cost: int = 1, *, per: str = "") -> Decision:
        """Decide now: charge every limit, or none. Never waits, and never raises for a refusal.

        `per` is the resource of the call, for limits of scope "shared". Raises ValueError for a cost below 1 or above
        the capacity.
        """
        if type(key) is not str:
            key = self.checked_key(key)
        if cost is not _ONE:
            self._check_cost(cost)
        decide = self.decide  # CPython 3.11 calls a variable faster than an attribute
        observers = self.observers
        try:
            decision = decide(key, cost, per)
            if type(decision) is not Decision and not isinstance(decision, Decision):  # the first takes half the time
                decision = await decision
        except (StoreUnavailable, CancelledError) as error:
            self.report_undecided(error, key, cost)
            raise
        if observers.counts_allowed or not decision.allowed:
            observers.decided(self.name, decision, key if type(key) is str else self.reported_key(key, decision))
        return decision

    async def acquire(self, key: CallKey, cost: int = 1, *, timeout: float | None = None, per: str = "") -> Decision:
        """Wait until the call is allowed, first come, first served, and then for the decision's `delay`.

        Raises RateLimited as soon as it is sure to take more than `timeout` seconds (None: wait for ever), and at once
        for a limit of zero. Then nothing is charged. Refused callers of one key wait in one queue in this process; only
        its head checks with the store.
        """
        if type(key) is not str:
            key = self.checked_key(key)
        if cost is not _ONE:
            self._check_cost(cost)
        try:
            decision, seconds = await self.wait(key, cost, per, checked_timeout(timeout))
        except RateLimited as refused:
            self.observers.decided(self.name, refused.decision, self.reported_key(key, refused.decision))
            raise
        except (StoreUnavailable, CancelledError) as error:
            self.report_undecided(error, key, cost)
            raise
        one = self.reported_key(key, decision)
        self.observers.decided(self.name, decision, one)
        if seconds:
            self.observers.emit(Event("waited", self.name, decision=decision, key=one, cost=cost, seconds=seconds))
        return decision

    def report_undecided(self, error: BaseException, key: CallKey, cost: int = 1) -> None:
        """Tell the observers of a call without a decision: the store cannot answer, or its caller has left."""
        kind: EventKind = "unavailable" if isinstance(error, StoreUnavailable) else "gone"
        self.observers.emit(Event(kind, self.name, key=distinct(key)[0], cost=cost))

    def has_line(self, key: CallKey, *, per: str = "") -> bool:
        """Whether a caller on this event loop waits for this key in `acquire`."""
        return self._waiting.has_queue(self.checked_key(key), per)

    async def peek(self, key: CallKey, cost: int = 1, *, per: str = "") -> Decision:
        """The decision of `try_acquire`, without a charge."""
        if type(key) is not str:
            key = self.checked_key(key)
        if cost is not _ONE:
            self._check_cost(cost)
        pending = self._buckets.peek(key, cost, per)
        return pending if isinstance(pending, Decision) else await pending

    async def refund(self, decision: Decision) -> None:
        """Give back the charge of a decision, and free its slots, once.

        Tokens that have flowed back since are not given twice.
        """
        pending = self._buckets.refund(decision)
        if self.holds:
            self._waiting.bells.ring(decision)
        if isawaitable(pending) and await pending == "lost":
            self._report("lost", decision, 0)

    async def release(self, decision: Decision) -> None:
        """Free the slots that a decision has taken (see `Concurrency`), once. Its other charges stay.

        If the server does not answer, that is no error: the slots are free at the end of their lease.
        """
        if self.holds:
            pending = self._release(decision)
            self._waiting.bells.ring(decision)
            await done(pending)

    def hold(self, key: CallKey, cost: int = 1, *, timeout: float | None = None, per: str = "") -> Hold:
        """`acquire` for an `async with` block, at the end of which the slots are released, whatever ends it."""
        return Hold(self, key, cost, timeout, per)

    async def settle(self, decision: Decision, cost: int) -> None:
        """Make the charge of a decision the real cost of the call, once, in every limit of the list.

        Less is given back as by `refund`. More is owed: the bucket goes below empty by up to one more capacity, and the
        next calls wait until that has flowed in. An excess is reported ("owed"), and a settlement that the server does
        not answer ("lost"). A decision that is never settled stays charged as it was. A slot is kept until it is
        released, unless `cost` is 0. Raises ValueError if `cost` is no whole number from 0.
        """
        check_used(cost)
        pending = self._buckets.settle(decision, cost)
        if self.holds and not cost:
            self._waiting.bells.ring(decision)
        result = await pending if isawaitable(pending) else pending
        if result is not None:
            self._report("owed" if result == "cut" else "lost", decision, cost)

    async def reset(self, key: CallKey, *, per: str = "") -> None:
        """Make full every bucket that a call with this key is charged to, and lift the block of each of its keys.

        The refusals and blocks that an Escalate of this process has counted under this name are forgotten.
        """
        await done(self._buckets.reset(self.checked_key(key), per))
        for count in [*_counts.of(self.store).get(self.name, ())]:
            for one in distinct(key):
                await count.forget(one)

    async def block(self, key: CallKey, seconds: float) -> None:
        """Refuse each call with this key for so many seconds, even if its buckets are full. 0 lifts the block.

        It is enough that one of a call's keys is blocked. Of a tuple each key is blocked for itself.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"a block lasts a number of seconds from 0, e.g. 60, not {seconds!r}")
        failures: list[StoreUnavailable] = []
        for pending in [self._buckets.block(one, min(seconds, _CENTURY_S)) for one in distinct(self.checked_key(key))]:
            try:
                await done(pending)
            except StoreUnavailable as unavailable:  # the other keys are blocked all the same
                failures.append(unavailable)
        if failures:
            raise failures[0]

    def turn(self, *, off: bool) -> None:
        """Allow every call and count none, or limit again: `asgi_ratelimit.testing.unlimited` does it."""
        if off != isinstance(self._buckets, _FullBuckets):
            self._use(_FullBuckets(self.policies, self.store.clock, self._own_buckets) if off else self._own_buckets)

    # For doors, which tell the observers themselves

    async def check(self, key: CallKey, cost: int = 1, per: str = "") -> Decision:
        """`try_acquire` for a cost that is checked, without a word to the observers."""
        pending = self.decide(key, cost, per)
        return pending if isinstance(pending, Decision) else await pending

    async def wait(self, key: CallKey, cost: int, per: str, timeout: float | None) -> tuple[Decision, float]:
        """`acquire` for a cost that is checked, without a word to the observers, and the seconds that it has taken."""
        if not self.capacity:  # a wait would be in vain
            return await self._refusal(key, cost, per), 0.0
        return await self._waiting.acquire(key, cost, per, timeout)

    def reported_key(self, key: CallKey, decision: Decision) -> str:
        """The key of the limit that has refused a call; of an allowed one the first key."""
        if not isinstance(key, tuple):
            return key
        pairs = zip(self.policies, key, strict=False)
        bucket = "" if decision.allowed else decision.bucket
        return next((one for policy, one in pairs if policy.bucket == bucket), key[0])

    def checked_key(self, key: CallKey) -> CallKey:
        """The key of a call. Raises ValueError for a tuple that does not fit the limits."""
        if not isinstance(key, tuple):
            return key  # a store raises a TypeError if it is no string
        fitting = fitting_key(key, len(self.limits), repr(self))
        if isinstance(fitting, tuple) and not self.takes_several_keys:
            raise ValueError(
                f"{type(self.store).__name__} takes one key for all limits of a list, not a tuple: its buckets have no "
                "`takes_several_keys`"
            )
        return fitting

    def _use(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self.decide = buckets.decide  # no check of the cost, and no coroutine where the store needs none
        # For a caller that has waited for the store's server before, in vain: the same, without the server.
        self.decide_without_server = getattr(buckets, "decide_without_server", buckets.decide)
        self._release: Release = getattr(buckets, "release", _nothing)  # a store without slots need not have it
        self._waiting = WaitersByKey(self.store.clock, buckets)

    def _report(self, kind: EventKind, decision: Decision, cost: int) -> None:
        """A settlement is not counted, or not all of it."""
        self.observers.emit(Event(kind, self.name, decision=decision, cost=cost - decision.cost))

    def _check_cost(self, cost: object) -> None:
        if type(cost) is int and 0 < cost <= (self.capacity or MOST_COST):
            return
        upper = f"{self.capacity}, the capacity" if self.capacity else MOST_COST
        raise ValueError(f"a cost must be a whole number from 1 to {upper}, not {shown(cost)}")

    async def _refusal(self, key: CallKey, cost: int, per: str) -> Decision:
        decision = await self.check(key, cost, per)
        if not decision.allowed:
            raise RateLimited(decision)
        return decision


class Hold:
    """The slots of one call, for an `async with` block."""

    __slots__ = ("_cost", "_decisions", "_key", "_limiter", "_per", "_timeout")

    def __init__(self, limiter: Limiter, key: CallKey, cost: int, timeout: float | None, per: str) -> None:
        self._limiter, self._key, self._cost, self._timeout, self._per = limiter, key, cost, timeout, per
        self._decisions: list[Decision] = []  # several, if blocks of one object are within or beside each other

    async def __aenter__(self) -> Decision:
        decision = await self._limiter.acquire(self._key, self._cost, timeout=self._timeout, per=self._per)
        self._decisions.append(decision)
        return decision

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._decisions:  # it is sent before the first await, so that a cancellation cannot prevent it
            await self._limiter.release(self._decisions.pop())


def _capacity(limits: Sequence[Limit]) -> int:
    """The highest cost that all of them can allow, 0 if one of them allows nothing."""
    hard = [limit for limit in limits if limit.enforce]
    if any(not limit.capacity for limit in hard):
        return 0
    charged = [[limit for limit in some if not limit.holds] for some in (hard, limits)]  # a slot is one for any cost
    return min(limit.capacity for limit in charged[0] or charged[1] or hard or limits)


def _nothing(decision: Decision) -> None:
    pass


_in_use: PerStore[WeakValueDictionary[int, Limiter]] = PerStore(lambda store: WeakValueDictionary())


def limiters_of(store: Store) -> list[Limiter]:
    """The limiters in this process that keep their buckets in this store, oldest first."""
    limiters = [reference() for reference in _in_use.of(store).valuerefs()]
    return [limiter for limiter in limiters if limiter is not None]


class Forgetful(Protocol):
    """It keeps more of a key than a limiter does."""

    async def forget(self, key: str) -> None:
        """Forget everything of a key."""
        ...


_counts: PerStore[dict[str, WeakSet[Forgetful]]] = PerStore(lambda store: {})


def forget_on_reset(store: Store, name: str, count: Forgetful) -> None:
    """Let `Limiter.reset` of all limiters of this name in this store forget the key there as well."""
    _counts.of(store).setdefault(name, WeakSet()).add(count)


class _FullBuckets:
    """Buckets that are always full, over those of a limiter that is turned off."""

    def __init__(self, policies: Sequence[Policy], clock: Clock, own: Buckets) -> None:
        self._policies, self._clock, self._own = policies, clock, own

    def refund(self, decision: Decision) -> Awaitable[object] | None:
        return self._own.refund(decision)

    def settle(self, decision: Decision, cost: int) -> Settlement | Awaitable[Settlement | None] | None:
        return self._own.settle(decision, cost)

    def release(self, decision: Decision) -> Awaitable[object] | None:
        release: Release = getattr(self._own, "release", _nothing)
        return release(decision)

    def reset(self, key: StoreKey, per: str) -> Awaitable[None] | None:
        return self._own.reset(key, per)

    def block(self, key: str, seconds: float) -> Awaitable[None] | None:
        return self._own.block(key, seconds)

    def decide(self, key: StoreKey, cost: int, per: str, waiting: bool = False) -> Decision:
        return self.peek(key, cost, per)

    def peek(self, key: StoreKey, cost: int, per: str) -> Decision:
        now_us = self._clock.now_us()
        return Decision.combine(
            [
                Decision(policy, cost, None, now_us, True, None, bucket_key(policy.limit.scope, one, per))
                for policy, one in zip(self._policies, per_limit(key, len(self._policies)), strict=True)
            ]
        )


def check_used(used: object) -> None:
    """Raises ValueError if this is nothing that a call can have cost."""
    if isinstance(used, bool) or not isinstance(used, int) or used < 0:
        raise ValueError(f"a call has cost a whole number from 0, e.g. 1200, not {shown(used)}")


def checked_timeout(timeout: float | None) -> float | None:
    """The timeout; None if it is for ever."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise ValueError(f"timeout must be seconds from 0, e.g. timeout=10, or None, not {timeout!r}")
    return timeout if timeout < _CENTURY_S else None
