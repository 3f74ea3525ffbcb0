"""The way out for observers of the store: answers, 429s, waits, stops and retries, by route template."""

from __future__ import annotations

from typing import Final

from asgi_ratelimit.discord.errors import DiscordEvent, EventHook
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.events import Event, EventKind, Observers

__all__ = ["DISCORD", "CallObserver"]

DISCORD: Final = "discord"  # in place of a limiter's name
_KINDS: Final[dict[str, EventKind]] = {
    "wait": "wait",
    "limited": "refused",
    "retry": "retry",
    "stopped": "stopped",
    "banned": "banned",
    "token": "token",
    "webhook": "webhook",
}


class CallObserver:
    """Passes on the events of the calls of one client."""

    def __init__(self, observers: Observers) -> None:
        self._observers = observers

    def hook(self, on_event: EventHook) -> EventHook:
        """A hook that calls the user's, and then the observers."""

        def pass_on(event: DiscordEvent) -> None:
            on_event(event)
            kind = _KINDS.get(event.kind)
            if kind is not None and self._observers.listens_to(kind):
                self._emit(kind, event.route.partition(" [")[0], event.seconds, event.cause, event.status)

        return pass_on

    def answered(self, route: Route, status: int) -> None:
        """An answer came."""
        if self._observers.listens_to("response"):
            self._emit("response", route.name, status=status)

    def waited(self, route: Route, seconds: float, cause: str) -> None:
        """A call that was held back goes now. An event of the client says so of long waits only."""
        if self._observers.listens_to("waited"):
            self._emit("waited", route.name, seconds, cause)

    def _emit(self, kind: EventKind, route: str, seconds: float = 0.0, cause: str = "", status: int = 0) -> None:
        scope = cause if kind == "refused" else ""
        fields = {"route": route, "seconds": seconds, "cause": cause, "status": status, "scope": scope}
        self._observers.emit(Event(kind, DISCORD, **fields))
