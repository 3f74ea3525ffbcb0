"""LogObserver: one line a minute for each limiter that refuses, never one for each request."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Final

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.events import Event, Observer

__all__ = ["LogObserver", "with_log"]

_REFUSALS: Final = ("limited", "blocked", "unavailable")
_LONG_WAIT_S: Final = 30.0
_MOST_KEYS: Final = 1_000  # that one line distinguishes
_MOST_LIMITERS: Final = 1_000  # with lines of their own; the others share one
_OTHERS: Final = "(others)"


class LogObserver:
    """Logs the refusals of the limiters of a store, in one line a minute for each limiter.

    every: seconds between two lines of a limiter
    level: of those lines
    logger: where they go; "asgi_ratelimit" by default

    A line names counts, and the digest of the key with the most refusals, never a key. The same values are fields of
    its record (`extra=`): limiter, limited, blocked, unavailable, long_waits (requests that were held for 30 s or
    more), keys, heaviest_key, heaviest_count, seconds. Each store has a LogObserver unless one is
    among its `observers`. Outages, and the refusals of Discord, have log lines of their own.
    Raises ValueError if `every` is not above 0.
    """

    kinds = frozenset((*_REFUSALS, "waited"))
    is_quick = True

    def __init__(self, *, every: float = 60.0, level: int = logging.INFO, logger: logging.Logger | None = None) -> None:
        if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < 1e9:
            raise ValueError(f"every must be seconds above 0, e.g. every=60, not {every!r}")
        self._every, self._level = every, level
        self._logger = logging.getLogger("asgi_ratelimit") if logger is None else logger
        self._clock: Clock | None = None
        self._lock = threading.Lock()
        self._tallies: dict[str, _Refusals] = {}

    def attach(self, clock: Clock) -> None:
        """Go by the clock of this store."""
        self._clock = clock

    def __call__(self, event: Event) -> None:
        if event.kind == "waited" and (event.seconds < _LONG_WAIT_S or event.route):
            return
        with self._lock:
            name = event.limiter if len(self._tallies) < _MOST_LIMITERS or event.limiter in self._tallies else _OTHERS
            tally = self._tallies.get(name)
            is_new = tally is None
            if tally is None:
                tally = self._tallies[name] = _Refusals(event.time)
            tally.count(event)
            is_due = event.time >= tally.since + self._every
        if is_due:  # its timer was lost with its event loop
            self._write(name)
        elif is_new:
            self._write_later(name)

    def _write_later(self, name: str) -> None:
        try:
            if self._clock is not None:
                self._clock.call_later(self._every, lambda: self._write(name))
        except RuntimeError:  # no event loop runs here: the next event writes the line
            return

    def _write(self, name: str) -> None:
        with self._lock:
            tally = self._tallies.pop(name, None)
        if tally is not None:
            fields = {"limiter": name, "seconds": self._every, **tally.fields()}
            self._logger.log(self._level, "%s", _line(fields), extra=fields)


class _Refusals:
    """The refusals of one limiter since its last line."""

    def __init__(self, since: float) -> None:
        self.since = since
        self._kinds: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._digests: dict[str, str] = {}

    def count(self, event: Event) -> None:
        self._kinds[event.kind] += 1
        if event.kind != "waited" and (event.key in self._keys or len(self._keys) < _MOST_KEYS):
            self._keys[event.key] += 1
            if event.key not in self._digests:
                self._digests[event.key] = event.key_digest

    def fields(self) -> dict[str, object]:
        heaviest, count = self._keys.most_common(1)[0] if self._keys else ("", 0)
        fields: dict[str, object] = {kind: self._kinds[kind] for kind in _REFUSALS}
        fields |= {"long_waits": self._kinds["waited"], "keys": len(self._keys)}
        return fields | {"heaviest_key": self._digests.get(heaviest, ""), "heaviest_count": count}


def _line(fields: dict[str, object]) -> str:
    counts = [f"{fields[kind]} {_WORDS[kind]}" for kind in (*_REFUSALS, "long_waits") if fields[kind]]
    keys = f"keys: {fields['keys']}" + ("+" if fields["keys"] == _MOST_KEYS else "")
    heaviest = f", the most of one: {fields['heaviest_count']} ({fields['heaviest_key'] or 'no key'})"
    about = f" ({keys}{heaviest})" if fields["keys"] else ""
    return f"{fields['limiter']}: {', '.join(counts)} in {fields['seconds']:g} s{about}"


_WORDS: Final = {
    "limited": "refused",
    "blocked": "refused as blocked",
    "unavailable": "answered with 503",
    "long_waits": "held for 30 s or more",
}


def with_log(observers: Iterable[Observer]) -> list[Observer]:
    """The observers of a store: a LogObserver is among them. Raises ValueError unless it is a list of observers."""
    if isinstance(observers, str) or not isinstance(observers, Iterable):
        raise ValueError(
            f"observers is a list of functions of an Event, e.g. observers=[Stats()], not {observers!r:.80}"
        )
    listed = [*observers]
    return listed if any(isinstance(one, LogObserver) for one in listed) else [*listed, LogObserver()]
