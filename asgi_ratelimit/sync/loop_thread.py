"""The back room: an event loop in a daemon thread, which carries out what other threads ask and wait for."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.store import Store

__all__ = ["Answer", "Room", "the_room", "use_of"]

Told = TypeVar("Told")
Verb = Callable[[], Coroutine[Any, Any, Told]]

_GLANCE = 1.0  # seconds after which a waiting thread looks for a signal that it slept through
_PATIENCE = 1.0  # seconds that each step of closing may take at exit


class Answer(Generic[Told]):
    """What a thread waits for.

    A signal may raise an exception anywhere in that thread. It must not leave a lock behind that the loop's thread
    will want, as it can with those of a concurrent.futures.Future: so the loop's thread takes none to tell.
    """

    __slots__ = ("_secret", "error", "is_told", "place", "told")
    told: Told

    def __init__(self, place: Hashable = None) -> None:
        self.place = place  # in which line the thread stands
        self.error: BaseException | None = None
        self.is_told = False
        self._secret = threading.Lock()
        self._secret.acquire()

    def tell(self, told: Any, error: BaseException | None) -> None:
        """Let the thread go on. Once."""
        self.told, self.error, self.is_told = told, error, True
        self._secret.release()

    def result(self) -> Told:
        """Wait for what is told, or raise the error. Once."""
        while not self._secret.acquire(timeout=_GLANCE):
            pass
        if self.error is None:
            return self.told
        try:
            raise self.error
        finally:
            del self


class Room:
    """The back room: an event loop in a daemon thread, where the calls of all other threads are carried out."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.in_line: dict[Hashable, set[Answer[Any]]] = {}  # by limiter, key and `per`
        self._is_over = False
        self._opening = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Touched by the thread of the loop only:
        self._calls: dict[Answer[Any], asyncio.Task[Any]] = {}  # those whose callers wait for an answer
        self._stores: dict[int, Store] = {}  # those that may have connections on this loop, by id
        self._closings: set[asyncio.Task[None]] = set()

    def begin(self, answer: Answer[Told], store: Store, verb: Verb[Told]) -> Answer[Told]:
        """Have a verb carried out, after all that were begun before it."""
        with self.lock:
            if not (self._is_over and threading.current_thread().daemon):  # else it waits like those of `close`
                self._opened().call_soon_threadsafe(self._begin, answer, store, verb)
        return answer

    def take_back(self, answer: Answer[Any]) -> None:
        """Nobody waits for the answer any more, whether or not the call has begun."""
        loop = self._loop
        if loop is None:
            self._leave(answer)
        elif not answer.is_told:
            with suppress(RuntimeError):  # closed in this very moment
                loop.call_soon_threadsafe(self._take_back, answer)

    def _leave(self, answer: Answer[Any]) -> None:
        with self.lock:
            line = self.in_line.get(answer.place, set())
            line.discard(answer)
            if not line:
                self.in_line.pop(answer.place, None)

    def let_go(self, store: Store) -> None:
        """Nobody uses this store any more: its connections may go. Called by the garbage collector: takes no lock."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._let_go, store)

    def close(self) -> None:
        """At exit: whoever still waits, in a daemon thread, will never hear of it."""
        with self.lock:
            self._is_over, loop, thread = True, self._loop, self._thread
        if loop is not None and thread is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            thread.join(4 * _PATIENCE)

    def _opened(self) -> asyncio.AbstractEventLoop:
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a SyncLimiter was called in its own event loop, e.g. by a store's callback: it would wait for itself"
                " for ever; call it in another thread"
            )
        if self._is_over:
            raise RuntimeError("a SyncLimiter was called when its event loop had ended with the interpreter")
        return self._open() if self._loop is None else self._loop

    def _open(self) -> asyncio.AbstractEventLoop:
        opened: Answer[asyncio.AbstractEventLoop] = Answer()
        threading.Thread(target=self._live, args=(opened,), name="asgi_ratelimit.sync", daemon=True).start()
        return opened.result()

    # What follows runs in the thread of the loop.

    def _live(self, opened: Answer[asyncio.AbstractEventLoop]) -> None:
        try:
            loop = asyncio.new_event_loop()
        except BaseException as error:
            opened.tell(None, error)
            return
        loop.set_debug(False)  # under -X dev it would only report how busy the machine is
        with self._opening:
            is_first = self._loop is None  # there may be another, if a signal interrupted who opened it
            if is_first:
                self._loop, self._thread = loop, threading.current_thread()
        opened.tell(self._loop, None)
        try:
            if is_first:
                self._run(loop)
        finally:
            loop.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:  # at exit, or something in the loop has raised SystemExit: then the next call begins anew
            with self.lock:
                self._loop = self._thread = None
            loop.run_until_complete(self._clear_up())
            loop.run_until_complete(loop.shutdown_asyncgens())

    def _begin(self, answer: Answer[Any], store: Store, verb: Verb[Any]) -> None:
        self._stores[id(store)] = store
        task = self._calls[answer] = asyncio.ensure_future(verb())
        task.add_done_callback(partial(self._end, answer))

    def _end(self, answer: Answer[Any], task: asyncio.Task[Any]) -> None:
        error = _gone() if task.cancelled() else task.exception()
        if self._calls.pop(answer, None) is None or self._is_over:
            return  # taken back; or at exit, when a daemon thread had better sleep on than fail
        self._leave(answer)
        answer.tell(None if error else task.result(), error)

    def _take_back(self, answer: Answer[Any]) -> None:
        task = self._calls.pop(answer, None)
        if task is not None:
            task.cancel()
        self._leave(answer)

    def _let_go(self, store: Store) -> None:
        if self._stores.pop(id(store), None) is not None:
            self._closings.add(closing := asyncio.ensure_future(_closed(store)))
            closing.add_done_callback(self._closings.discard)

    async def _clear_up(self) -> None:
        await _cancelled(set(self._calls.values()))
        await _ended(self._closings | {asyncio.ensure_future(_closed(store)) for store in self._stores.values()})
        self._stores.clear()
        await _cancelled({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})


def _gone() -> StoreUnavailable:
    return StoreUnavailable("the event loop behind the SyncLimiters was stopped before there was an answer")


async def _closed(store: Store) -> None:
    with suppress(Exception):
        await store.aclose()


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await _ended(tasks)


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=_PATIENCE)
        for task in done:
            task.cancelled() or task.exception()  # seen: nobody needs to read of it


class Use:
    """Shared by the SyncLimiters of one store: when the last of them is gone, so are its connections."""

    __slots__ = ("__weakref__", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        weakref.finalize(self, _let_go, store).atexit = False


def use_of(store: Store) -> Use:
    return _uses.get(id(store)) or _uses.setdefault(id(store), Use(store))


def the_room() -> Room:
    """The one of this process."""
    return _room


def _let_go(store: Store) -> None:
    _room.let_go(store)


def _close() -> None:
    _room.close()


def _begin_anew() -> None:
    """In a forked child: the thread is not there, and what it left belongs to the parent, so it is not even closed."""
    global _room
    _left_behind.append(_room)
    _room = Room()


_room = Room()
_left_behind: list[Room] = []  # by the processes that this one was forked from
_uses: weakref.WeakValueDictionary[int, Use] = weakref.WeakValueDictionary()

atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
