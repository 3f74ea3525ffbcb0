"""The refusals of a door, counted beside its answers: a key that goes on hammering is blocked."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Final, NamedTuple

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.escalation import Escalate, Escalation, block_of
from asgi_ratelimit.events import Event, observers_of
from asgi_ratelimit.limiter import Limiter, forget_on_reset
from asgi_ratelimit.minute_line import MinuteLine
from asgi_ratelimit.store import Store

__all__ = ["RefusalCount"]

logger = logging.getLogger("asgi_ratelimit")

_PAUSE_S: Final = 0.1  # from one call to a shared store to the next
_MOST_KEYS: Final = 10_000  # that are counted in one pause; in the next one it may be others
_AT_ONCE: Final = 128  # keys: a call of so many checks keeps Redis busy for less than a millisecond


class _Pending(NamedTuple):
    """Refusals of one key that are not counted yet."""

    number: int
    limiter: Limiter
    enforced: bool


class RefusalCount:
    """Counts the refusals of the keys of one door in one store, and blocks those that get too many.

    A refusal in a shared store costs no call of its own. They are counted together, ten times a second at most.
    """

    def __init__(self, escalate: Escalate, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._escalation = Escalation(escalate, store=store, name=name)
        self._observers = observers_of(store)
        self._pending: dict[str, _Pending] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_call: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self._next_at = 0.0  # by the loop's clock
        self._would_block = MinuteLine()
        forget_on_reset(store, name, self)
        close_first = getattr(store, "close_first", None)  # a store of a user's own need not have it
        if close_first is not None:
            close_first(self)

    async def count(self, refusal: Decision, limiter: Limiter, key: str | tuple[str, ...], *, enforced: bool) -> None:
        """Count a refusal of a key. Not enforced, as in shadow mode, no key is blocked: it is only reported."""
        counted = _escalated_key(refusal, limiter, key)
        if not counted:  # it is the one of all requests without any identity, or none
            return
        if not self._store.shared:
            await self._count(counted, _Pending(1, limiter, enforced))
            return
        earlier = self._pending.get(counted)
        if earlier is not None or len(self._pending) < _MOST_KEYS:
            self._pending[counted] = _Pending(earlier.number + 1 if earlier else 1, limiter, enforced)
            self._schedule(asyncio.get_running_loop())

    async def forget(self, key: str) -> None:
        """Forget the refusals and blocks of a key, as `Limiter.reset` of a limiter of this name does."""
        self._pending.pop(key, None)
        await self._escalation.forget(key)

    async def aclose(self) -> None:
        """Count what is left of this event loop: the store's connections are about to be closed."""
        loop = self._loop
        if loop is not asyncio.get_running_loop():
            return
        running = self._next_call
        if isinstance(running, asyncio.Task):
            await asyncio.wait([running])
        timer = self._next_call
        if isinstance(timer, asyncio.TimerHandle):
            timer.cancel()
        await self._count_pending(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # that of before may have ended with its timer
            self._loop, self._next_call, self._next_at = loop, None, 0.0
        if self._next_call is None:
            self._next_call = loop.call_at(max(loop.time(), self._next_at), self._begin, loop, context=Context())

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next_at = loop.time() + _PAUSE_S
        self._next_call = loop.create_task(self._count_pending(loop))

    async def _count_pending(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._pending = [*self._pending.items()], {}
        try:
            for start in range(0, len(waiting), _AT_ONCE):
                await asyncio.gather(*(self._count(*one) for one in waiting[start : start + _AT_ONCE]))
        finally:
            self._next_call = None
            if self._pending:
                self._schedule(loop)

    async def _count(self, key: str, pending: _Pending) -> None:
        block = block_of(pending.limiter) if pending.enforced else _no_block
        try:
            seconds = await self._escalation.refused(key, block, pending.number)
        except StoreUnavailable as error:
            logger.debug("refusals are not counted: %s", error)  # the store itself has logged the outage, once
            return
        if seconds:
            cause = "" if pending.enforced else "shadow"
            self._observers.emit(Event("escalated", self._name, key=key, seconds=seconds, cause=cause))
            if not pending.enforced:
                self._would_block.warn(
                    self._store.clock, "%d blocks would have begun (enforce=False) at %s", self._name
                )


def _escalated_key(refusal: Decision, limiter: Limiter, key: str | tuple[str, ...]) -> str:
    """The key that the refusal counts for; "" if it counts for none.

    It is the key's own doing if a limit of its own refuses, and fewer calls would have been allowed. Of a tuple, which
    has one key for each limit, it is that of the longest wait.
    """
    own = [part for part in refusal.parts if not part.allowed and part.scope == "user" and part.limit]
    own = [part for part in own if part.policy.limit.status == 429]
    if not own or refusal.is_block:
        return ""
    if isinstance(key, str):
        return key
    longest = max(own, key=lambda part: part.retry_us)
    buckets = [policy.bucket for policy in limiter.policies]
    return key[buckets.index(longest.bucket)]


async def _no_block(key: str, seconds: float) -> None:
    """In shadow mode the count alone knows of the block."""
