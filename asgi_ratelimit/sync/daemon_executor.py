"""Blocking functions of an event loop, such as the look-up of a name, in threads that the end of a program spares."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["DaemonExecutor"]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

_MOST: Final = 8  # threads


class DaemonExecutor(ThreadPoolExecutor):
    """An executor with daemon threads. Python joins the threads of its own one at exit, and lets it do nothing then."""

    def __init__(self) -> None:
        super().__init__(1)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._number = 0  # of threads

    def start(self) -> None:
        """Start the first thread, if there is none: at the end of a program no thread can start."""
        if not self._number:
            threading.Thread(target=self._work, name="asgi_ratelimit.blocking", daemon=True).start()
            self._number = 1

    def submit(
        self, function: Callable[Arguments, Value], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Value]:
        future: Future[Value] = Future()
        self.start()
        if not self._calls.empty() and self._number < _MOST:
            threading.Thread(target=self._work, name="asgi_ratelimit.blocking", daemon=True).start()
            self._number += 1
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after their calls, without waiting for them."""
        for _ in range(self._number):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del call, future, function
