"""SyncLimiter: the verbs of a Limiter for threads, without `await`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgi_ratelimit.call_keys import CallKey
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.foreign_options import explains_foreign_options
from asgi_ratelimit.limiter import Limiter, checked_timeout
from asgi_ratelimit.limits import LimitSpec
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync.loop_thread import current_loop_thread, use_of
from asgi_ratelimit.sync.thread_result import ThreadResult

__all__ = ["SyncLimiter"]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class SyncLimiter:
    """A Limiter for threads: any number of them may call its verbs, which return without `await`.

    limit: a string such as "5/5s", a limit, or a list of them (all or nothing)
    store: a MemoryStore of its own by default
    name: it shares its buckets with every Limiter and SyncLimiter of the same name, limit and store
    global_name: the name for limits of scope "global"; `name` by default

    A call that has to wait, and every call to a store other than a MemoryStore, runs in an event loop in a daemon
    thread, which all SyncLimiters of the process share. Use Limiter within a coroutine: these verbs would hold up the
    coroutine's event loop. Raises the same errors as Limiter.
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
        self._limiter = Limiter(limit, store=store, name=name, global_name=global_name)
        self.name, self.limits, self.capacity = name, self._limiter.limits, self._limiter.capacity
        self.store = self._limiter.store
        self._in_memory = isinstance(self.store, MemoryStore)  # then only a wait needs the event loop
        self._may_pass = self._in_memory and not any(limit.shapes for limit in self.limits)
        self._use = None if self._in_memory else use_of(self.store)

    def __repr__(self) -> str:
        return f"Sync{self._limiter!r}"

    def try_acquire(self, key: CallKey, cost: int = 1, *, per: str = "") -> Decision:
        """As Limiter.try_acquire: decide now, and never wait or raise for a refusal."""
        return self._run(self._limiter.try_acquire, key, cost, per=per)

    def acquire(self, key: CallKey, cost: int = 1, *, timeout: float | None = None, per: str = "") -> Decision:
        """As Limiter.acquire: wait until the call is allowed, first come, first served.

        Threads that wait for one key stand in one queue per process. An exception that ends the wait, such as
        KeyboardInterrupt, leaves the queue.
        """
        timeout = checked_timeout(timeout)
        loop_thread, queue = current_loop_thread(), (id(self), key, per)
        result: ThreadResult[Decision] = ThreadResult(queue)
        try:
            # One step: no other thread may enter the queue between the look at it and the entry.
            with loop_thread.lock:
                if self._may_pass and not loop_thread.queues.get(queue):
                    decision = _run_at_once(self._limiter.try_acquire(key, cost, per=per))
                    if decision.allowed:
                        return decision
                loop_thread.queues.setdefault(queue, set()).add(result)
                acquire = partial(self._limiter.acquire, key, cost, timeout=timeout, per=per)
                loop_thread.submit(result, self.store, acquire)
            return result.wait()
        except BaseException:
            loop_thread.cancel(result)
            raise
        finally:
            del result  # or an error, its traceback and this frame would keep each other alive

    def peek(self, key: CallKey, cost: int = 1, *, per: str = "") -> Decision:
        """As Limiter.peek: the decision of `try_acquire`, without a charge."""
        return self._run(self._limiter.peek, key, cost, per=per)

    def refund(self, decision: Decision) -> None:
        """As Limiter.refund: give back the charge of a decision, once."""
        self._run(self._limiter.refund, decision)

    def release(self, decision: Decision) -> None:
        """As Limiter.release: free the slots that a decision has taken, once."""
        self._run(self._limiter.release, decision)

    @contextmanager
    def hold(self, key: CallKey, cost: int = 1, *, timeout: float | None = None, per: str = "") -> Iterator[Decision]:
        """As Limiter.hold: `acquire` for a `with` block, at the end of which the slots are released."""
        decision = self.acquire(key, cost, timeout=timeout, per=per)
        try:
            yield decision
        finally:
            self.release(decision)

    def settle(self, decision: Decision, cost: int) -> None:
        """As Limiter.settle: make the charge of a decision the real cost of the call, once."""
        self._run(self._limiter.settle, decision, cost)

    def reset(self, key: CallKey, *, per: str = "") -> None:
        """As Limiter.reset: make the buckets of a key full, and lift its block."""
        self._run(self._limiter.reset, key, per=per)

    def block(self, key: CallKey, seconds: float) -> None:
        """As Limiter.block: refuse the key for so many seconds. 0 lifts the block."""
        self._run(self._limiter.block, key, seconds)

    def _run(
        self,
        verb: Callable[Arguments, Coroutine[Any, Any, Value]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        if self._in_memory:
            return _run_at_once(verb(*args, **kwargs))
        return current_loop_thread().run(self.store, partial(verb, *args, **kwargs))


def _run_at_once(verb: Coroutine[Any, Any, Value]) -> Value:
    """The result of a coroutine that never waits."""
    try:
        verb.send(None)
    except StopIteration as done:
        value: Value = done.value
        return value
    verb.close()
    raise RuntimeError("a MemoryStore answers at once; this one's verbs wait for something")
