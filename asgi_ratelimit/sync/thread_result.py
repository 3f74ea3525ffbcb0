"""The result that one thread waits for and another one sets."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["ThreadResult"]

Value = TypeVar("Value")

_RECHECK_S: Final = 1.0  # after which a waiting thread looks for a signal that it slept through


class ThreadResult(Generic[Value]):
    """The result of one call. It is set once and read once.

    A signal may raise an exception anywhere in the waiting thread. A concurrent.futures.Future could then stay locked
    for ever, and with it the loop's thread. So the thread that sets this result takes no lock.
    """

    __slots__ = ("_is_pending", "error", "is_set", "queue", "value")
    value: Value

    def __init__(self, queue: Hashable = None) -> None:
        self.queue = queue  # the queue in which the thread waits
        self.error: BaseException | None = None
        self.is_set = False
        self._is_pending = threading.Lock()
        self._is_pending.acquire()

    def set(self, value: Value) -> None:
        """Let the waiting thread go on."""
        self.value, self.is_set = value, True
        self._is_pending.release()

    def fail(self, error: BaseException) -> None:
        """Let the waiting thread go on with an exception."""
        self.error, self.is_set = error, True
        self._is_pending.release()

    def wait(self) -> Value:
        """The value as soon as it is set. Raises the error if there is one."""
        while not self._is_pending.acquire(timeout=_RECHECK_S):
            pass
        if self.error is None:
            return self.value
        try:
            raise self.error
        finally:
            del self
