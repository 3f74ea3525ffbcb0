"""LogObserver: one line a minute for each limiter that refuses, never one for each request."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.events import Event, Observer
from asgi_ratelimit.shown import one_line

__all__ = ["LogObserver", "with_log"]

_REFUSALS: Final = ("limited", "blocked", "unavailable", "shed")
_WITHOUT_KEY: Final = ("gone", "escalated", "owed", "lost")
_LONG_WAIT_S: Final = 30.0
_MOST_KEYS: Final = 1_000  # that one line distinguishes
_MOST_LIMITERS: Final = 1_000  # with lines of their own; the others share one
_OTHERS: Final = "(others)"
_LONG_NAME: Final = 200  # characters of a limiter in a line
_LONG_KEY: Final = 200  # characters; a longer one is counted under its digest


class LogObserver:
    """Logs the refusals of the limiters of a store, in one line a minute for each limiter.

    every: seconds between two lines of a limiter
    level: of those lines; of a line about requests that were shed at least WARNING
    logger: where they go; "asgi_ratelimit" by default

    A line names counts, and the digest of the key with the most refusals, never a key. The same values are fields of
    its record (`extra=`): limiter, limited, blocked, unavailable, shed, gone (callers that left before they were let
    in), long_waits (requests that were held for 30 s or more), owed (calls that have cost more than a bucket can owe),
    lost (settlements and refunds that the server has not answered), escalated (blocks that began after too many
    refusals), keys, heaviest_key, heaviest_count, seconds. Each store has a LogObserver unless one is among its
    `observers`. Outages, and the refusals of Discord, have log lines of their own.
    Raises ValueError if `every` is not above 0.
    """

    kinds = frozenset((*_REFUSALS, "waited", *_WITHOUT_KEY))
    is_quick = True

    def __init__(self, *, every: float = 60.0, level: int = logging.INFO, logger: logging.Logger | None = None) -> None:
        if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < 1e9:
            raise ValueError(f"every must be seconds above 0, e.g. every=60, not {every!r}")
        self._every, self._level = every, level
        self._logger = logging.getLogger("asgi_ratelimit") if logger is None else logger
        self._clock: Clock | None = None
        self._lock = threading.RLock()  # a destructor may report an event while it is held
        self._tallies: dict[str, _Refusals] = {}
        _all.add(self)

    def attach(self, clock: Clock) -> None:
        """Go by the clock of this store."""
        self._clock = clock

    def __call__(self, event: Event) -> None:
        if (event.kind == "waited" and (event.seconds < _LONG_WAIT_S or event.route)) or event.cause == "shadow":
            return
        with self._lock:
            name = event.limiter if len(self._tallies) < _MOST_LIMITERS or event.limiter in self._tallies else _OTHERS
            tally = self._tallies.get(name)
            is_new = tally is None
            if tally is None:
                tally = self._tallies[name] = _Refusals(event.time)
            tally.count(event)
            is_due = not 0 <= event.time - tally.since < self._every
        if is_due:  # its timer was lost with its event loop, or the clock went back
            self._write(name, tally, event.time)
        elif is_new:
            self._write_later(name, tally)

    def begin_anew(self) -> None:
        """Count from zero, as another process: after a fork, for example."""
        self._lock = threading.RLock()
        self._tallies = {}

    def _write_later(self, name: str, tally: _Refusals) -> None:
        clock = self._clock
        try:
            if clock is not None:
                clock.call_later(self._every, lambda: self._write(name, tally, clock.wall()))
        except RuntimeError:  # no event loop runs here: the next event writes the line
            return

    def _write(self, name: str, tally: _Refusals, now: float) -> None:
        with self._lock:
            if self._tallies.get(name) is not tally:  # it has been written
                return
            del self._tallies[name]
        fields = {"limiter": name, "seconds": round(max(0.0, now - tally.since), 3), **tally.fields()}
        level = max(self._level, logging.WARNING) if fields["shed"] else self._level
        self._logger.log(level, "%s", _line(fields), extra=fields)


class _Refusals:
    """The refusals of one limiter since its last line."""

    def __init__(self, since: float) -> None:
        self.since = since
        self._kinds: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._digests: dict[str, str] = {}

    def count(self, event: Event) -> None:
        self._kinds[event.kind] += 1
        if event.kind not in _REFUSALS:
            return
        key = event.key if len(event.key) <= _LONG_KEY else event.key_digest
        if key in self._keys or len(self._keys) < _MOST_KEYS:
            self._keys[key] += 1
            if key not in self._digests:
                self._digests[key] = event.key_digest

    def fields(self) -> dict[str, object]:
        heaviest, count = self._keys.most_common(1)[0] if self._keys else ("", 0)
        fields: dict[str, object] = {kind: self._kinds[kind] for kind in _REFUSALS}
        fields |= {"long_waits": self._kinds["waited"], **{kind: self._kinds[kind] for kind in _WITHOUT_KEY}}
        return fields | {
            "keys": len(self._keys),
            "heaviest_key": self._digests.get(heaviest, ""),
            "heaviest_count": count,
        }


def _line(fields: dict[str, object]) -> str:
    counts = [f"{fields[kind]} {_WORDS[kind]}" for kind in _WORDS if fields[kind]]
    keys = f"keys: {fields['keys']}" + ("+" if fields["keys"] == _MOST_KEYS else "")
    heaviest = f", the most of one: {fields['heaviest_count']} ({fields['heaviest_key'] or 'no key'})"
    about = f" ({keys}{heaviest})" if fields["keys"] else ""
    return f"{one_line(fields['limiter']):.{_LONG_NAME}}: {', '.join(counts)} in {fields['seconds']:g} s{about}"


_WORDS: Final = {
    "limited": "refused",
    "blocked": "refused as blocked",
    "unavailable": "answered with 503",
    "shed": "shed under load",
    "gone": "left without an answer",
    "escalated": "blocks begun after many refusals",
    "long_waits": "held for 30 s or more",
    "owed": "cost more than a bucket can owe",
    "lost": "not settled, as the server did not answer",
}


def with_log(observers: Iterable[Observer]) -> list[Observer]:
    """The observers of a store: a LogObserver is among them. Raises ValueError unless it is a list of observers."""
    if isinstance(observers, str) or not isinstance(observers, Iterable):
        raise ValueError(
            f"observers is a list of functions of an Event, e.g. observers=[Stats()], not {observers!r:.80}"
        )
    listed = [*observers]
    return listed if any(isinstance(one, LogObserver) for one in listed) else [*listed, LogObserver()]


_all: WeakSet[LogObserver] = WeakSet()


def _after_fork() -> None:
    for observer in list(_all):
        observer.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
