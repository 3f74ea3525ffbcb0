"""Snapshots of several processes, through a store that runs scripts on its server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.observe.packing import pack, unpack
from asgi_ratelimit.observe.snapshot import Snapshot
from asgi_ratelimit.scripts import ScriptKeys, Scripts, ScriptStore
from asgi_ratelimit.store import Store

__all__ = ["EVERY_S", "KEPT_S", "MOST_PROCESSES", "Sharing", "shared_snapshot"]

logger = logging.getLogger("asgi_ratelimit")

EVERY_S: Final = 5.0
KEPT_S: Final = 3_600
MOST_PROCESSES: Final = 64
_GONE_US: Final = 60_000_000  # a process that has written nothing for so long has ended
_PATIENCE_S: Final = 1.0
_AHEAD_S: Final = 60.0
_Found = list[Snapshot] | None
_SOURCE: Final = files("asgi_ratelimit.observe").joinpath("snapshots.lua").read_bytes()


async def shared_snapshot(store: Store) -> Snapshot:
    """The counts of all processes that share theirs through this RedisStore, with `Stats.share` or `Stats.sharing`.

    It only reads: 64 records of 64 kB at most. A process that has ended counts for another hour, but not among
    `processes`. Of any other store it is empty. Raises StoreUnavailable if Redis cannot answer.
    """
    if not isinstance(store, ScriptStore):
        return Snapshot(store.clock.wall(), processes=0)
    scripts, keys = _scripts_of(store)
    replies = await scripts.call(_Exchange(keys, "read", MOST_PROCESSES, is_needed=True))
    if not replies:
        return Snapshot(store.clock.wall(), processes=0)
    return Snapshot.merge([_no_later(one, store.clock.wall()) for one in replies])


class Sharing:
    """The exchange with the other processes that use a store: one call in 5 s at most."""

    def __init__(self, store: Store) -> None:
        self._server = _scripts_of(store) if isinstance(store, ScriptStore) else None
        self._clock = store.clock
        self._asked_us: int | None = None
        self._others: Sequence[Snapshot] = ()

    async def exchange(self, owner: str, snapshot: Snapshot) -> Sequence[Snapshot]:
        """The snapshots of all other processes, as of the last call; none of them while the server cannot answer."""
        if self._server is not None and self._is_due():
            scripts, keys = self._server
            call = _Exchange(keys, "share", MOST_PROCESSES, owner, pack(snapshot), KEPT_S * 1_000_000)
            replies = await scripts.call(call)
            self._others = [_no_later(one, snapshot.time) for one in replies or ()]
        return self._others

    def _is_due(self) -> bool:
        now_us, asked_us = self._clock.now_us(), self._asked_us
        if asked_us is not None and 0 <= now_us - asked_us < EVERY_S * 1_000_000:
            return False
        self._asked_us = now_us
        return True


def _scripts_of(store: ScriptStore) -> tuple[Scripts, ScriptKeys]:
    scripts = store.scripts(_SOURCE, patience=_PATIENCE_S)
    return scripts, scripts.keys_of("snapshots", "stats")


class _Exchange:
    """A call of snapshots.lua. None is its result without the server, unless it is needed."""

    def __init__(self, keys: ScriptKeys, *arguments: str | int, is_needed: bool = False) -> None:
        self.keys, self.arguments, self._is_needed = (keys.base,), arguments, is_needed

    def read(self, reply: Sequence[Any], start: int) -> tuple[_Found, int]:
        end = start + 1 + 2 * reply[start]
        replies = [_unpacked(reply[place], reply[place + 1]) for place in range(start + 1, end, 2)]
        return [snapshot for snapshot in replies if snapshot is not None], end

    def decide_without_server(self, error: BaseException) -> _Found:
        if self._is_needed:
            raise StoreUnavailable(f"Redis cannot answer ({error}), and it has the snapshots") from error
        return None

    def on_delivered(self, result: _Found) -> None:
        """There is no charge to undo."""

    def on_undelivered(self, result: _Found, instead: _Found | None) -> None:
        """There is no charge to undo."""


def _no_later(snapshot: Snapshot, now: float) -> Snapshot:
    """The same. One whose clock is far ahead must not make the last hour of all others an earlier one."""
    return snapshot if snapshot.time <= now + _AHEAD_S else replace(snapshot, time=now)


def _unpacked(age_us: int, text: bytes) -> Snapshot | None:
    try:
        snapshot = unpack(text)
    except ValueError as error:
        logger.debug("a snapshot in Redis is left out: %s", error)
        return None
    return snapshot if age_us < _GONE_US else snapshot.ended()
