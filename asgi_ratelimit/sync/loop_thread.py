"""An event loop in a daemon thread, for calls of other threads that have to wait."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync.daemon_executor import DaemonExecutor
from asgi_ratelimit.sync.thread_result import ThreadResult

__all__ = ["Closable", "LoopThread", "StoreUse", "current_loop_thread", "release", "use_of"]

Value = TypeVar("Value")
Verb = Callable[[], Coroutine[Any, Any, Value]]

_EXIT_S: Final = 0.8  # that the end of the loop may take at exit: whoever stops a program does not wait for it
_LEAST_EXIT_S: Final = 0.15  # if others have taken the rest


class Closable(Protocol):
    """Something with connections on the loop, e.g. a store or the transport of a client."""

    async def aclose(self) -> None: ...


class LoopThread:
    """An event loop that starts with the first call, and again after a fork or a SystemExit in the loop."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.queues: dict[Hashable, set[ThreadResult[Any]]] = {}  # the threads that wait, by limiter, key and `per`
        self._is_closed = False
        self._starting = threading.Lock()
        self._executor = DaemonExecutor()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Used by the thread of the loop only:
        self._calls: dict[ThreadResult[Any], asyncio.Task[Any]] = {}  # calls with a thread that waits
        self._stores: dict[int, Closable] = {}  # stores that may have connections on this loop, by id
        self._clients: dict[int, Closable] = {}  # what uses such a store until it is closed itself
        self._closings: set[asyncio.Task[None]] = set()
        self._exit_s, self._end = _EXIT_S, 0.0  # when the loop has to have ended, on its clock

    def start(self) -> None:
        """Start the loop, if it does not run, and all that it cannot start at the end of the program."""
        if self._loop is None:
            with self.lock:
                self._running_loop()
        self._executor.start()

    def run(self, store: Store, verb: Verb[Value], client: Closable | None = None) -> Value:
        """Run a verb in the loop, and wait for its result. An exception that ends the wait ends the verb as well."""
        result: ThreadResult[Value] = ThreadResult()
        try:
            return self.submit(result, store, verb, client).wait()
        except BaseException:
            self.cancel(result)
            raise
        finally:
            del result  # or an error, its traceback and this frame would keep each other alive

    def submit(
        self, result: ThreadResult[Value], store: Store, verb: Verb[Value], client: Closable | None = None
    ) -> ThreadResult[Value]:
        """Run a verb in the loop, after all verbs that were submitted before. `client` is closed before the store."""
        with self.lock:
            if not (self._is_closed and threading.current_thread().daemon):  # at exit a daemon thread waits on
                self._running_loop().call_soon_threadsafe(self._start_call, result, store, verb, client)
        return result

    def cancel(self, result: ThreadResult[Any]) -> None:
        """The thread does not wait any more, whether or not the call has started."""
        loop = self._loop
        if loop is None:
            self._leave_queue(result)
        elif not result.is_set:
            with suppress(RuntimeError):  # the loop was closed at this moment
                loop.call_soon_threadsafe(self._cancel_call, result)

    def release(self, used: Closable) -> None:
        """Close the connections of a store or client. The garbage collector calls this, so it takes no lock."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._close, used)

    def close(self) -> None:
        """Stop the loop at exit. Daemon threads that still wait get no result."""
        with self.lock:
            self._is_closed, loop, thread = True, self._loop, self._thread
        if loop is not None and thread is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            thread.join(self._exit_s + 0.1)

    def note_exit(self, seconds: float) -> None:
        """So much of the time that the end of the program may take is spent."""
        self._exit_s = max(_LEAST_EXIT_S, self._exit_s - seconds)

    def _leave_queue(self, result: ThreadResult[Any]) -> None:
        with self.lock:
            queue = self.queues.get(result.queue, set())
            queue.discard(result)
            if not queue:
                self.queues.pop(result.queue, None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a SyncLimiter or SyncDiscordClient was called in the event loop behind it, e.g. by a callback: it "
                "would wait for itself for ever; call it in another thread"
            )
        if self._is_closed:
            raise RuntimeError(
                "a SyncLimiter or SyncDiscordClient was called when the event loop behind it had ended with the "
                "interpreter"
            )
        if self._loop is not None:
            return self._loop
        started: ThreadResult[asyncio.AbstractEventLoop] = ThreadResult()
        loop = asyncio.new_event_loop()  # here: asyncio logs it, and a logging handler may use this loop thread
        self._executor = DaemonExecutor()
        loop.set_default_executor(self._executor)
        try:
            threading.Thread(target=self._main, args=(loop, started), name="asgi_ratelimit.sync", daemon=True).start()
        except BaseException:
            loop.close()
            raise
        return started.wait()

    # The rest runs in the thread of the loop

    def hold(self, used: Closable) -> None:
        """Close this at the end, unless it is released before."""
        self._clients[id(used)] = used

    def _main(self, loop: asyncio.AbstractEventLoop, started: ThreadResult[asyncio.AbstractEventLoop]) -> None:
        loop.set_debug(False)  # under -X dev it would only report how busy the machine is
        with self._starting:
            is_first = self._loop is None  # there may be two, if a signal interrupted the thread that started one
            if is_first:
                self._loop, self._thread = loop, threading.current_thread()
        started.set(self._loop or loop)
        try:
            if is_first:
                self._run(loop)
        finally:
            loop.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:  # at exit, or after a SystemExit in the loop; then the next call starts another loop
            with self.lock:
                self._loop = self._thread = None
            loop.run_until_complete(self._shut_down())
            loop.run_until_complete(loop.shutdown_asyncgens())

    def _start_call(self, result: ThreadResult[Any], store: Store, verb: Verb[Any], client: Closable | None) -> None:
        self._stores[id(store)] = store
        if client is not None:
            self._clients[id(client)] = client
        task = self._calls[result] = asyncio.ensure_future(verb())
        task.add_done_callback(partial(self._end_call, result))

    def _end_call(self, result: ThreadResult[Any], task: asyncio.Task[Any]) -> None:
        error = _stopped() if task.cancelled() else task.exception()
        if self._calls.pop(result, None) is None or self._is_closed:
            return  # cancelled; or at exit, when a daemon thread had better sleep on than fail
        self._leave_queue(result)
        if error is None:
            result.set(task.result())
        else:
            result.fail(error)

    def _cancel_call(self, result: ThreadResult[Any]) -> None:
        task = self._calls.pop(result, None)
        if task is not None:
            task.cancel()
        self._leave_queue(result)

    def _close(self, used: Closable) -> None:
        known = [users.pop(id(used), None) for users in (self._clients, self._stores)]
        if any(each is not None for each in known):
            self._closings.add(closing := asyncio.ensure_future(_close_quietly(used)))
            closing.add_done_callback(self._closings.discard)

    async def _shut_down(self) -> None:
        """End all calls, and close the clients before their stores. A step may take half of the time that is left."""
        self._end = asyncio.get_running_loop().time() + self._exit_s
        await self._cancel_all(set(self._calls.values()))
        for users in (self._clients, self._stores):
            await self._wait_for(self._closings | {asyncio.ensure_future(_close_quietly(u)) for u in users.values()})
            users.clear()
        await self._cancel_all({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})

    async def _cancel_all(self, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await self._wait_for(tasks)

    async def _wait_for(self, tasks: set[asyncio.Task[Any]]) -> None:
        if not tasks:
            return
        done, _ = await asyncio.wait(tasks, timeout=(self._end - asyncio.get_running_loop().time()) / 2)
        for task in done:
            task.cancelled() or task.exception()  # it is read here, so that asyncio does not log it


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("the event loop behind this call was stopped before there was an answer")


async def _close_quietly(used: Closable) -> None:
    with suppress(Exception):
        await used.aclose()


class StoreUse:
    """Shared by the SyncLimiters and clients of one store: the connections are closed when the last of them is gone."""

    __slots__ = ("__weakref__", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        weakref.finalize(self, release, store).atexit = False


def use_of(store: Store) -> StoreUse:
    """The use of a store. It lasts as long as one of its holders."""
    return _uses.get(id(store)) or _uses.setdefault(id(store), StoreUse(store))


def current_loop_thread() -> LoopThread:
    """The loop thread of this process."""
    return _current


def release(used: Closable) -> None:
    """Close the connections that a store or a client has on the loop. The garbage collector may call this."""
    _current.release(used)


def _close() -> None:
    _current.close()


def _replace() -> None:
    """In a forked child: the thread is not there, and its loop belongs to the parent, so it is not even closed."""
    global _current
    _inherited.append(_current)
    _current = LoopThread()


_current = LoopThread()
_inherited: list[LoopThread] = []  # from the processes that this one was forked from
_uses: weakref.WeakValueDictionary[int, StoreUse] = weakref.WeakValueDictionary()

atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace)
