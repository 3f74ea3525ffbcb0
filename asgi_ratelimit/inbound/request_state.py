"""What one request has passed on its way in. It travels in the scope, so that every door can read and add."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.inbound.headers import (
    HeaderStyle,
    RawHeaders,
    discord_headers,
    ietf_headers,
    retry_after_header,
)
from asgi_ratelimit.store import Store

__all__ = ["LEDGER", "Ledger", "ledger_of"]

LEDGER = "asgi_ratelimit"  # where it stands in the scope
_MOST_PATHS = 64  # that one middleware leaves alone


class Ledger:
    """The decisions about one request, and who writes them on its response."""

    __slots__ = ("charged_at", "decisions", "left_alone", "refused_by", "store", "style")

    def __init__(self, store: Store | None = None) -> None:
        self.store = store  # of the innermost middleware: its routes use it too
        self.style: HeaderStyle | None = None  # what the outermost middleware that writes headers has promised
        self.decisions: list[Decision] = []
        self.refused_by: Decision | None = None
        self.charged_at: list[tuple[set[str], str]] = []  # for each middleware: the paths it leaves alone, and this one
        self.left_alone = False

    def add(self, decision: Decision, *, enforced: bool) -> bool:
        """Note a decision. False if one of its buckets had been charged by this request before."""
        self.decisions.append(decision)
        if not decision.allowed:
            if enforced:
                self.refused_by = decision
            return True
        if len(self.decisions) == 1:
            return True
        earlier = {(part.bucket, part.bucket_key) for d in self.decisions[:-1] for part in d.parts}
        return earlier.isdisjoint((part.bucket, part.bucket_key) for part in decision.parts)

    def leave_alone(self) -> None:
        """Said by an endpoint that limits itself, once it knows who asks: no middleware counts POSTs to it any more."""
        for paths, path in self.charged_at:
            if len(paths) < _MOST_PATHS:
                paths.add(path)
        self.left_alone = True
        self.decisions.clear()

    @property
    def shown(self) -> Decision | None:
        """The one bucket that Discord's headers are about: the one that refused, else the one with least left."""
        if self.refused_by is not None or not self.decisions:
            return self.refused_by
        return min(self.decisions, key=lambda d: d.remaining) if len(self.decisions) > 1 else self.decisions[0]

    def headers(self, style: HeaderStyle | None, wall: float) -> RawHeaders:
        """The headers that a response to this request carries in that style."""
        if style == "discord" and self.refused_by is None and len(self.decisions) == 1:
            return discord_headers(self.decisions[0], wall, refused=False)
        shown = self.shown
        if shown is None:
            return []
        refused = self.refused_by is not None
        headers: RawHeaders = []
        if style in ("discord", "both"):
            headers += discord_headers(shown, wall, refused=refused)
        if style in ("ietf", "both"):
            headers += ietf_headers(self.decisions)
        if refused:
            headers.append(retry_after_header(shown))
        return headers


def ledger_of(scope: MutableMapping[str, Any]) -> Ledger:
    """The request's ledger, begun if it has none."""
    ledger = scope.get(LEDGER)
    if not isinstance(ledger, Ledger):
        ledger = scope[LEDGER] = Ledger()
    return ledger


def merged(headers: Iterable[tuple[bytes, bytes]], ours: RawHeaders) -> RawHeaders:
    """The response's own headers, then ours, except those that it carries already: two values would be joined."""
    present = [*headers]
    for name, _ in present:
        if name in _OURS or not name.islower():
            return _without_twins(present, ours)
    present += ours
    return present


def _without_twins(present: RawHeaders, ours: RawHeaders) -> RawHeaders:
    names = {name.lower() for name, _ in present}
    if (names - {b"retry-after"}) & _OURS:
        ours = [header for header in ours if header[0] == b"retry-after"]
    return present + [header for header in ours if header[0] not in names]


_NAMES = (
    *(f"x-ratelimit-{part}" for part in ("limit", "remaining", "reset", "reset-after", "bucket", "scope", "global")),
    *("ratelimit", "ratelimit-policy", "retry-after"),
)
_OURS = frozenset(name.encode("ascii") for name in _NAMES)
