"""The addresses of host names, found in threads of their own, so that a slow resolver holds up nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

__all__ = ["Resolver"]

_PATIENCE = 0.3  # seconds; then the addresses of an earlier look-up are used
_AGAIN = 1.0  # seconds after which a look-up counts as stuck, and another is started beside it
_MOST_LOOKUPS = 30  # of one name, since a stuck one cannot be ended

Addresses = tuple[str, ...]


class Resolver:
    """Remembers the last addresses of each name, for the time when the resolver does not answer."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._process = os.getpid()

    async def addresses(self, host: str) -> Sequence[str]:
        """Raises OSError if the name is unknown, or cannot be looked up and never was."""
        if _is_address(host):
            return (host,)
        if self._process != os.getpid():  # the threads are the parent's
            self._names, self._process = {}, os.getpid()
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name(host)
        return await name.addresses()


class _Name:
    def __init__(self, host: str) -> None:
        self._host = host
        self._known: Addresses = ()
        self._lookups: list[Future[Addresses]] = []
        self._latest: Future[Addresses] | None = None
        self._started_at = 0.0
        self._lock = threading.Lock()  # loops of several threads may use one store

    async def addresses(self) -> Addresses:
        """The addresses of the latest look-up, or else of an earlier one."""
        found = asyncio.wrap_future(self._lookup())
        try:
            async with asyncio.timeout(_PATIENCE if self._known else None):
                return await found
        except TimeoutError:
            return self._known
        except OSError as error:
            unknown = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            if unknown or not self._known:
                raise
            return self._known

    def _lookup(self) -> Future[Addresses]:
        """The look-up under way, or a new one if there is none or it is stuck."""
        with self._lock:
            now = time.monotonic()
            self._lookups = [each for each in self._lookups if not each.done()]
            latest = self._latest
            is_new = latest is not None and not latest.done() and now < self._started_at + _AGAIN
            if latest is not None and (is_new or len(self._lookups) >= _MOST_LOOKUPS):
                return latest
            self._latest = lookup = Future[Addresses]()
            lookup.set_running_or_notify_cancel()  # its waiters cannot cancel it
            self._lookups.append(lookup)
            self._started_at = now
        threading.Thread(target=self._run, args=(lookup,), name=f"look-up of {self._host}", daemon=True).start()
        return lookup

    def _run(self, lookup: Future[Addresses]) -> None:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except Exception as error:  # UnicodeError too
            failure = error if isinstance(error, OSError) else OSError(f"{self._host!r} is no host name")
            lookup.set_exception(failure)
            return
        addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
        self._known = addresses
        lookup.set_result(addresses)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False
