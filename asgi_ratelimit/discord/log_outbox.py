"""Log lines on their way out: a bounded queue, and a thread that posts them in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Final

from asgi_ratelimit.discord.log_messages import Message, Packer
from asgi_ratelimit.discord.redaction import redacted

__all__ = ["Outbox", "is_posting"]

logger = logging.getLogger("asgi_ratelimit")

Post = Callable[[str], object]

is_posting: ContextVar[bool] = ContextVar("is_posting", default=False)  # what is logged then is about log lines
_WARN_EVERY_S: Final = 60.0


class Outbox:
    """Takes lines at once, and posts them from a daemon thread. A line that finds no room is dropped and counted.

    post: sends one message; its exceptions make the lines dropped ones
    prepare: starts what `post` needs; at the end of the program that would be too late
    interval: seconds for which a line may wait for others
    capacity: the most lines that wait
    """

    def __init__(self, post: Post, prepare: Callable[[], object], interval: float, capacity: int) -> None:
        self._post, self._prepare, self._interval, self._capacity = post, prepare, interval, capacity
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a forked process: the lines that wait, and the thread, are the parent's."""
        self._queue: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_starting = threading.Lock()
        self._crowded_out = self._failed = self._reported = 0  # lines
        self._next_warning = 0.0

    @property
    def dropped(self) -> int:
        """The lines that were not posted, and never will be."""
        return self._crowded_out + self._failed

    def start(self) -> None:
        """Start the thread, if there is none. What that logs is not for the outbox. It waits for no other thread."""
        if self._thread is not None or not self._is_starting.acquire(blocking=False):
            return
        token = is_posting.set(True)
        try:
            if self._thread is None:
                self._prepare()
                thread = threading.Thread(target=self._work, name="asgi_ratelimit.log", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError as error:  # the interpreter ends
            logger.debug("log lines cannot be posted any more: %s", error)
        finally:
            is_posting.reset(token)
            self._is_starting.release()

    def put(self, line: str) -> None:
        if self._queue.qsize() >= self._capacity:
            self._crowded_out += 1
        else:
            self._queue.put(line)

    def flush(self, seconds: float) -> bool:
        """Wait until all lines up to now are posted or dropped, for so long at most. Returns whether they are."""
        if self._thread is None or self._thread is threading.current_thread() or is_posting.get():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(seconds)

    def stop(self) -> None:
        """Let the thread end after the lines that wait."""
        if self._thread is not None:
            self._queue.put(None)

    # The rest runs in the thread

    def _work(self) -> None:
        is_posting.set(True)
        queue, packer, is_over = self._queue, Packer(), False
        while not is_over:
            done: threading.Event | None = None
            for item in self._batch(queue):
                if isinstance(item, str):
                    self._post_all(packer.add(item))
                else:
                    done, is_over = item, item is None
            self._post_rest(packer)
            if done is not None:
                done.set()

    def _batch(self, queue: SimpleQueue[str | threading.Event | None]) -> Iterator[str | threading.Event | None]:
        """Lines until the interval is over, or somebody asks for them to be posted: that is the last item."""
        item = queue.get()
        until = time.monotonic() + self._interval
        while True:
            yield item
            if not isinstance(item, str):
                return
            try:
                item = queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return

    def _post_rest(self, packer: Packer) -> None:
        """Post what does not fill a message, and how many lines were dropped, if no message says so yet."""
        dropped = self.dropped - self._reported
        if dropped:
            words = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
            self._post_all(packer.add(f"({words} dropped)", lines=0))
        if self._post_all(packer.take()):
            self._reported += dropped

    def _post_all(self, messages: Iterator[Message]) -> bool:
        """Whether all of them have arrived."""
        have_arrived = True
        for message in messages:
            try:
                self._post(message.content)
            except Exception as error:
                have_arrived = False
                self._failed += message.lines
                self._warn(error)
        return have_arrived

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARN_EVERY_S
            said = redacted(str(error)) or type(error).__name__
            logger.warning("log lines do not arrive at Discord (lost so far: %d): %s", self.dropped, said)
