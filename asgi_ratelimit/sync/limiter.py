"""The same limiter without an event loop, for scripts, Celery workers and WSGI apps: its verbs are not awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import LeakyBucket, Limit
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync.loop_thread import Answer, the_room, use_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_ratelimit.decision import Decision

__all__ = ["SyncLimiter"]

Arguments = ParamSpec("Arguments")
Told = TypeVar("Told")


class SyncLimiter:
    """A Limiter whose verbs are called from threads, as many as you like, and answer without `await`.

    It shares its buckets with every Limiter and SyncLimiter of the same name, limit and store, and raises the
    same errors. What has to wait, and whatever a store other than a MemoryStore is asked, is taken care of by an
    event loop in a daemon thread that all SyncLimiters of the process share; it begins when first needed, and
    anew after a fork. Within a coroutine use Limiter: there these verbs would hold up the coroutine's event loop.
    """

    def __init__(
        self,
        limit: str | Limit | Iterable[str | Limit],
        *,
        store: Store | None = None,
        name: str = "default",
        global_name: str | None = None,
    ) -> None:
        self._limiter = Limiter(limit, store=store, name=name, global_name=global_name)
        self.name, self.limits, self.capacity = name, self._limiter.limits, self._limiter.capacity
        self.store = self._limiter.store
        self._in_memory = isinstance(self.store, MemoryStore)
        self._may_pass = self._in_memory and not any(isinstance(limit, LeakyBucket) for limit in self.limits)
        self._use = None if self._in_memory else use_of(self.store)

    def __repr__(self) -> str:
        return f"Sync{self._limiter!r}"

    def try_acquire(self, key: str, cost: int = 1, *, per: str = "") -> Decision:
        """Answer now: charged, or refused and nothing charged. Never waits, never raises for a refusal.

        `per` names the resource that is asked for, for limits of scope "shared". ValueError for a cost below 1
        or above the capacity.
        """
        return self._answer(self._limiter.try_acquire, key, cost, per=per)

    def acquire(self, key: str, cost: int = 1, *, timeout: float | None = None, per: str = "") -> Decision:
        """Wait for one's turn, first come first served, then for the decision's `delay`.

        RateLimited as soon as it is known that it takes more than `timeout` seconds (None: wait for ever), with
        nothing charged. Threads that wait for one key stand in line in this process; an exception that ends the
        wait, such as KeyboardInterrupt, leaves the line.
        """
        room, place = the_room(), (id(self), key, per)
        answer: Answer[Decision] = Answer(place)
        try:
            # Whether anybody stands in line, and joining it, are one step: nobody may slip in between.
            with room.lock:
                if self._may_pass and not room.in_line.get(place) and (timeout is None or timeout >= 0):
                    decision = _at_once(self._limiter.try_acquire(key, cost, per=per))
                    if decision.allowed:
                        return decision
                room.in_line.setdefault(place, set()).add(answer)
                room.begin(answer, self.store, partial(self._limiter.acquire, key, cost, timeout=timeout, per=per))
            return answer.result()
        except BaseException:
            room.take_back(answer)
            raise
        finally:
            del answer  # or an error, its traceback and this frame would keep each other alive

    def peek(self, key: str, cost: int = 1, *, per: str = "") -> Decision:
        """What `try_acquire` would answer, charging nothing."""
        return self._answer(self._limiter.peek, key, cost, per=per)

    def refund(self, decision: Decision) -> None:
        """Give back what the decision charged, once; what has flowed back by itself since is not given twice."""
        self._answer(self._limiter.refund, decision)

    def reset(self, key: str, *, per: str = "") -> None:
        """Make full every bucket that a call with this key is charged to, and lift its block."""
        self._answer(self._limiter.reset, key, per=per)

    def block(self, key: str, seconds: float) -> None:
        """Refuse the key for so many seconds, whatever its buckets hold; 0 lifts the block."""
        self._answer(self._limiter.block, key, seconds)

    def _answer(
        self,
        verb: Callable[Arguments, Coroutine[Any, Any, Told]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Told:
        if self._in_memory:
            return _at_once(verb(*args, **kwargs))
        return the_room().begin(Answer(), self.store, partial(verb, *args, **kwargs)).result()


def _at_once(verb: Coroutine[Any, Any, Told]) -> Told:
    """The answer of a coroutine that never waits."""
    try:
        verb.send(None)
    except StopIteration as done:
        told: Told = done.value
        return told
    verb.close()
    raise RuntimeError("a MemoryStore answers at once; this one's verbs wait for something")
