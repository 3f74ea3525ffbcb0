"""DiscordHandler: the records of `logging` as messages of a webhook."""

from __future__ import annotations

import atexit
import logging
import math
import os
import re
import time
import weakref
from functools import partial
from multiprocessing import util as process_util
from typing import Final

import httpx

from asgi_ratelimit.discord.client import paced_transports
from asgi_ratelimit.discord.log_outbox import Outbox, is_posting
from asgi_ratelimit.discord.outgoing import RedactedRequest
from asgi_ratelimit.discord.redaction import redacted
from asgi_ratelimit.discord.sync_transport import SyncTransport
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync.loop_thread import current_loop_thread

__all__ = ["DiscordHandler"]

_WEBHOOK: Final = re.compile(r"(?:/api(?:/v\d+)?)?/webhooks/\d+/[^/]+/?")
_SILENT: Final = {"allowed_mentions": {"parse": []}, "flags": 4}  # nobody is pinged, and no link is unfolded
_TIMEOUTS: Final = {"connect": 5.0, "read": 30.0, "write": 5.0, "pool": 5.0}
_EXIT_S: Final = 0.7  # that all handlers together may take at the end of the program
_EXAMPLE: Final = '"https://discord.com/api/webhooks/1234567890/..."'


class DiscordHandler(logging.Handler):
    """A logging.Handler that writes to a webhook. It never blocks the program, and raises nothing into it.

    Lines are posted from a daemon thread, joined to messages of up to 2000 characters. They ping nobody. What this
    package and httpx log about the posting is not posted. A forked process posts its own lines, and none of its
    parent's.

    webhook_url: as Discord shows it; its token appears nowhere
    level: of the records that are posted
    interval: seconds for which a line may wait for others, to be posted with them
    capacity: lines that may wait; more are dropped, and the next message says how many
    timeout: seconds that `flush`, `close` and the end of the program wait for lines to be posted
    store: where the webhook's limits are stored: a RedisStore for several processes; a MemoryStore by default
    egress: as that of DiscordClient

    Raises ValueError for an option that cannot be used.
    """

    def __init__(
        self,
        webhook_url: str,
        *,
        level: int | str = logging.NOTSET,
        interval: float = 1.0,
        capacity: int = 10_000,
        timeout: float = 0.7,
        store: Store | None = None,
        egress: str = "default",
    ) -> None:
        super().__init__(level)
        url, own_store = _checked_url(webhook_url), MemoryStore() if store is None else store
        self._timeout = _seconds(timeout, "timeout", 0.7)
        pacing, _ = paced_transports(
            None,
            url.copy_with(raw_path=b"/"),
            {},
            store=own_store,
            global_limit=50,
            max_wait=None,
            max_retries=5,
            retry_unsafe=False,
            min_remaining=0,
            ordered=True,
            application_id=None,
            egress=egress,
            on_event=None,
        )
        self._transport = SyncTransport(pacing, own_store)
        post = partial(_post, self._transport, url)
        self._outbox = Outbox(
            post, self._transport.start, _seconds(interval, "interval", 1.0), _checked_capacity(capacity)
        )
        self._is_closed = False
        weakref.finalize(self, self._outbox.stop).atexit = False
        _all.add(self)
        process_util.register_after_fork(self, _end_with_process)

    @property
    def dropped(self) -> int:
        """How many lines were not posted and never will be: there was no room for them, or Discord took them not."""
        return self._outbox.dropped

    def handle(self, record: logging.LogRecord) -> bool:
        """As logging does it, but for what is logged about the posting: that would go on for ever."""
        if self._is_closed or is_posting.get():
            return False
        self._outbox.start()  # before the handler is locked, as the threads that start may log as well
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record. It never waits."""
        try:
            self._outbox.put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are posted, for `timeout` seconds at most."""
        if not self._is_closed:
            self._outbox.flush(self._timeout)

    def close(self) -> None:
        """Post what waits, within `timeout` seconds, and drop the rest."""
        self.end(self._timeout)
        self._outbox.stop()
        token = is_posting.set(True)
        try:
            self._transport.close()
        finally:
            is_posting.reset(token)
        super().close()

    def end(self, seconds: float) -> None:
        """Take no more records, and wait for so long at most until those that wait are posted."""
        was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._outbox.flush(min(seconds, self._timeout))

    def renew(self) -> None:
        """Begin anew, in a forked process."""
        self._outbox.renew()


def _post(transport: SyncTransport, url: httpx.URL, content: str) -> None:
    """Post a message. Raises an exception if Discord does not take it."""
    body = {"content": content, **_SILENT}
    response = transport.handle_request(RedactedRequest("POST", url, json=body, extensions={"timeout": _TIMEOUTS}))
    try:
        response.read()
    finally:
        response.close()
    if not response.is_success:
        raise RuntimeError(f"{response.status_code} {response.reason_phrase}: {response.text:.200}")


# Options


def _checked_url(address: object) -> httpx.URL:
    if not isinstance(address, str):
        raise ValueError(
            f"webhook_url must be the address of a webhook, e.g. {_EXAMPLE}, not a {type(address).__name__}"
        )
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme in ("http", "https") and url.host and not url.userinfo and _WEBHOOK.fullmatch(url.path):
        return url
    shown = redacted(address) if "webhooks/" in address else f"a text of {len(address)} characters without /webhooks/"
    raise ValueError(f"webhook_url must be the address of a webhook, e.g. {_EXAMPLE}, not {shown:.100}")


def _seconds(value: object, name: str, example: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be seconds from 0, e.g. {name}={example}, not {value!r}")
    return float(value)


def _checked_capacity(capacity: object) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise ValueError(f"capacity must be a whole number of lines from 1, e.g. capacity=10_000, not {capacity!r}")
    return capacity


# The end of the process, and forks

_all: weakref.WeakSet[DiscordHandler] = weakref.WeakSet()


def _end() -> None:
    """Post what waits. The loop has less time for its own end then."""
    started = time.monotonic()
    for handler in list(_all):
        handler.end(max(0.0, _EXIT_S - (time.monotonic() - started)))
    current_loop_thread().note_exit(time.monotonic() - started)


def _end_with_process(_: object) -> None:
    """A process of multiprocessing ends without `atexit`."""
    process_util.Finalize(None, _end, exitpriority=1)


def _after_fork() -> None:
    for handler in list(_all):
        handler.renew()


# After the loop thread's own function, so that it is called before it.
atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
