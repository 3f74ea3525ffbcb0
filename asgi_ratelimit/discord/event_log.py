"""What whoever runs a bot has to know, in the log: refusals, stops, bans and long waits, without a flood of lines."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Final

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.errors import LONG_WAIT_S, DiscordEvent, EventHook, words_of

__all__ = ["EventLog", "safe_hook"]

logger = logging.getLogger("asgi_ratelimit")

_EVERY_S: Final = 60.0  # from one line about a route to the next one of the same kind
_MOST_TALLIES: Final = 1_000

_COUNTED: Final = {
    "limited": "{name} has drawn {count} 429s ({cause}) in a minute, the last for {seconds:.3f} s {major}",
    "wait": "{name} has to wait for {seconds:.0f} s: {words} (calls in a minute: {count}) {major}",
    "waited": "{name} goes after a wait of {seconds:.0f} s (calls in a minute: {count}) {major}",
}
_STOPS: Final = {
    "stopped": "Discord has stopped the calls of a token for {seconds:.1f} s, by a global 429 at {route}",
    "banned": "Cloudflare has banned this address for {seconds:.0f} s, by a 429 at {route}; nothing is sent",
}


@dataclass(slots=True)
class _Tally:
    """Events of one kind and route: the last one, those since the last line, and when the next line is due."""

    event: DiscordEvent
    due_us: int
    count: int = 0


class EventLog:
    """Logs events, and passes all of them on to a hook."""

    def __init__(self, hook: EventHook, clock: Clock) -> None:
        self._hook, self._clock = hook, clock
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._ends_us = dict.fromkeys(_STOPS, 0)

    def __call__(self, event: DiscordEvent) -> None:
        if event.kind in _STOPS:
            self._log_stop(event)
        elif event.kind in _COUNTED and (event.kind != "wait" or event.seconds >= LONG_WAIT_S):
            self._count(event)
        else:
            logger.debug("%r", event)
        self._hook(event)

    def _log_stop(self, event: DiscordEvent) -> None:
        """One line for each stop, though all calls in flight may have drawn a 429 from it."""
        end_us = self._clock.now_us() + round(event.seconds * 1e6)
        if end_us > self._ends_us[event.kind] + 1_000_000:
            logger.warning("%s", _STOPS[event.kind].format(seconds=event.seconds, route=event.route))
        self._ends_us[event.kind] = max(end_us, self._ends_us[event.kind])

    def _count(self, event: DiscordEvent) -> None:
        """The first one is logged at once, all others of a minute in one line at its end."""
        place = (event.kind, event.route.partition(" [")[0])
        tally = self._tallies.get(place)
        if tally is None:
            self._open(place, event)
            _write(event, 1)
            return
        tally.event, tally.count = event, tally.count + 1
        if self._clock.now_us() >= tally.due_us:  # its timer was lost with its event loop
            self._close(place)

    def _open(self, place: tuple[str, str], event: DiscordEvent) -> None:
        if len(self._tallies) >= _MOST_TALLIES:
            full, self._tallies = self._tallies, {}
            for tally in full.values():
                if tally.count:
                    _write(tally.event, tally.count)
        self._tallies[place] = _Tally(event, self._clock.now_us() + round(_EVERY_S * 1e6))
        self._clock.call_later(_EVERY_S, lambda: self._close(place))

    def _close(self, place: tuple[str, str]) -> None:
        tally = self._tallies.pop(place, None)
        if tally is not None and tally.count:
            self._open(place, tally.event)
            _write(tally.event, tally.count)


def _write(event: DiscordEvent, count: int) -> None:
    level = logging.INFO if event.kind == "waited" else logging.WARNING
    name, _, major = event.route.partition(" [")
    about = {"name": name, "major": major and f"[{major}", "words": words_of(event.cause)}
    line = _COUNTED[event.kind]
    logger.log(level, "%s", line.format(**about, count=count, cause=event.cause, seconds=event.seconds).rstrip())


def safe_hook(on_event: EventHook | None) -> EventHook:
    """A function that calls `on_event`, and logs its exceptions instead of raising them.

    Raises ValueError if it cannot be called, or is a coroutine function.
    """
    if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
        raise ValueError(
            f"on_event must be a plain function of a DiscordEvent, e.g. on_event=print, not {on_event!r:.80}"
        )

    def emit(event: DiscordEvent) -> None:
        if on_event is None:
            return
        try:
            on_event(event)
        except Exception:
            logger.exception("on_event failed at %r", event)

    return emit
