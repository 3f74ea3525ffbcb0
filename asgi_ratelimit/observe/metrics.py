"""The metrics of this package: their names and labels, and the share of an event in each of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from weakref import WeakSet

from asgi_ratelimit.events import AnsweredBy, Event, EventKind
from asgi_ratelimit.shown import one_line

__all__ = ["IN_FLIGHT", "KINDS", "METRICS", "STORE_UP", "Change", "Changes", "Labels", "Metric", "MetricsObserver"]

Labels = tuple[str, ...]  # the values of the labels of a metric

_OTHERS: Final = "(others)"
_MOST: Final = {"limiter": 500, "route": 500, "store": 500}  # different values of a label
_MOST_OF_ANY_OTHER: Final = 50
_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, by the conventions of Prometheus.

    known: values of the labels that are there from the start, at zero. Prometheus does not see a counter rise that
        begins at one, so an alert would miss the first event.
    bounds: the upper bounds of a histogram's buckets
    across: of several processes, what a gauge is: the lowest value, or the sum
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    known: tuple[Labels, ...] = ()
    bounds: tuple[float, ...] = ()
    across: Literal["min", "sum"] = "min"


DECISIONS: Final = Metric(
    "ratelimit_decisions_total",
    "counter",
    "Decisions about calls, by their outcome and by the place that decided",
    ("limiter", "outcome", "answered_by"),
)
NEAR: Final = Metric(
    "ratelimit_near_total", "counter", "Calls allowed with at least 80 % of a limit used", ("limiter",)
)
SHED: Final = Metric(
    "ratelimit_shed_total", "counter", "Requests shed under load, by their class", ("limiter", "priority")
)
WAIT: Final = Metric(
    "ratelimit_wait_seconds",
    "histogram",
    "Seconds that calls were held back before they were let in",
    ("limiter",),
    bounds=_SECONDS,
)
UNSETTLED: Final = Metric(
    "ratelimit_unsettled_total",
    "counter",
    "Settlements and refunds that are not counted (lost), or not in full (owed)",
    ("limiter", "cause"),
)
ESCALATIONS: Final = Metric(
    "ratelimit_escalations_total",
    "counter",
    "Blocks that began after too many refusals of a key; not enforced in shadow mode",
    ("limiter", "enforced"),
)
FAILED: Final = Metric(
    "ratelimit_failed_logins_total", "counter", "Log-ins that failed, by the count of a LoginGuard", ("limiter",)
)
IN_FLIGHT: Final = Metric(
    "ratelimit_in_flight", "gauge", "Calls that hold a slot of a Concurrency now", ("limiter",), across="sum"
)
STORE_UP: Final = Metric("ratelimit_store_up", "gauge", "Whether the server of a store answers: 1, or 0", ("store",))
STORE_MISSED: Final = Metric(
    "ratelimit_store_missed_total", "counter", "Checks that were decided without the server of a store", ("store",)
)
DISCORD_REQUESTS: Final = Metric(
    "discord_requests_total", "counter", "Answers of Discord, by route template and status", ("route", "status")
)
DISCORD_WAIT: Final = Metric(
    "discord_wait_seconds",
    "histogram",
    "Seconds that calls to Discord were held back before they went",
    ("cause",),
    bounds=_SECONDS,
)
DISCORD_REFUSED: Final = Metric(
    "discord_refused_total",
    "counter",
    "429s drawn from Discord, by the scope of the limit",
    ("scope",),
    known=(("user",), ("global",), ("shared",), ("cloudflare",)),
)
DISCORD_INVALID: Final = Metric(
    "discord_invalid_requests_total",
    "counter",
    "Answers that count against the budget of 10 000 invalid requests in 10 minutes: 401, 403, 429 unless shared",
    known=((),),
)
DISCORD_RETRIES: Final = Metric("discord_retries_total", "counter", "Calls to Discord sent again", ("status",))
DISCORD_STOPS: Final = Metric(
    "discord_stops_total",
    "counter",
    "429s that stop every call: of Discord's global limit (stopped) or of Cloudflare (banned)",
    ("cause",),
    known=(("stopped",), ("banned",)),
)
DISCORD_REJECTED: Final = Metric(
    "discord_rejected_total",
    "counter",
    "Tokens and webhooks that Discord has rejected",
    ("credential",),
    known=(("token",), ("webhook",)),
)

METRICS: Final = (
    DECISIONS, NEAR, SHED, WAIT, IN_FLIGHT, UNSETTLED, ESCALATIONS, FAILED, STORE_UP, STORE_MISSED,
    DISCORD_REQUESTS, DISCORD_WAIT, DISCORD_REFUSED, DISCORD_INVALID, DISCORD_RETRIES, DISCORD_STOPS, DISCORD_REJECTED,
)  # fmt: skip

Change = tuple[Metric, Labels, float]
"""A counter and how much it rises, a gauge and its new value, or a histogram and one more observation."""


class Changes:
    """What events change. The values of each label are bounded: later ones are counted together as "(others)"."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {label: set() for metric in METRICS for label in metric.labels}

    def of(self, event: Event) -> list[Change]:
        """The changes of an event; none for a kind that is not among KINDS."""
        read = _BY_KIND.get(event.kind)
        return [] if read is None else [self.bounded(*change) for change in read(event)]

    def bounded(self, metric: Metric, labels: Labels, value: float) -> Change:
        """The same change, without label values beyond the bound."""
        return metric, tuple(map(self._bounded, metric.labels, labels)), value

    def _bounded(self, label: str, value: str) -> str:
        seen = self._seen[label]
        if value not in seen:
            if len(seen) >= _MOST.get(label, _MOST_OF_ANY_OTHER):
                return _OTHERS
            seen.add(value)
        return one_line(value)  # a lone surrogate would fail every scrape, and ".*" in a query finds no line end


def _of_decision(event: Event) -> list[Change]:
    return [(DECISIONS, (event.limiter, event.kind, event.answered_by), 1)]


def _of_shed(event: Event) -> list[Change]:
    return [*_of_decision(event), (SHED, (event.limiter, str(event.priority)), 1)]


def _of_near(event: Event) -> list[Change]:
    return [(NEAR, (event.limiter,), 1)]


def _of_escalated(event: Event) -> list[Change]:
    return [(ESCALATIONS, (event.limiter, "false" if event.cause == "shadow" else "true"), 1)]


def _of_failed(event: Event) -> list[Change]:
    return [(FAILED, (event.limiter,), 1)]


def _of_waited(event: Event) -> list[Change]:
    if event.route or event.cause:  # a call to Discord
        return [(DISCORD_WAIT, (event.cause or "unknown",), event.seconds)]
    return [(WAIT, (event.limiter,), event.seconds)]


def _of_unsettled(event: Event) -> list[Change]:
    return [(UNSETTLED, (event.limiter, event.kind), 1)]


def _of_down(event: Event) -> list[Change]:
    return [(STORE_UP, (event.node,), 0)]


def _of_recovered(event: Event) -> list[Change]:
    return [(STORE_UP, (event.node,), 1), *_of_missed(event)]


def _of_missed(event: Event) -> list[Change]:
    return [(STORE_MISSED, (event.node,), event.checks)]


def _of_response(event: Event) -> list[Change]:
    return [(DISCORD_REQUESTS, (event.route, _status(event)), 1)]


def _of_refused(event: Event) -> list[Change]:
    return [(DISCORD_REFUSED, (event.scope,), 1)]


def _of_invalid(event: Event) -> list[Change]:
    return [(DISCORD_INVALID, (), 1)]


def _of_retry(event: Event) -> list[Change]:
    return [(DISCORD_RETRIES, (_status(event),), 1)]


def _of_stop(event: Event) -> list[Change]:
    return [(DISCORD_STOPS, (event.kind,), 1)]


def _of_rejected(event: Event) -> list[Change]:
    return [(DISCORD_REJECTED, (event.kind,), 1)]


def _status(event: Event) -> str:
    return str(event.status) if event.status else "none"


_OUTCOMES: Final = ("allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "shed", "gone")
_BY_KIND: Final[dict[str, Callable[[Event], list[Change]]]] = {
    **dict.fromkeys(_OUTCOMES, _of_decision),
    "shed": _of_shed,
    "near": _of_near,
    "waited": _of_waited,
    "owed": _of_unsettled,
    "lost": _of_unsettled,
    "escalated": _of_escalated,
    "failed": _of_failed,
    "down": _of_down,
    "recovered": _of_recovered,
    "missed": _of_missed,
    "response": _of_response,
    "refused": _of_refused,
    "invalid": _of_invalid,
    "retry": _of_retry,
    "stopped": _of_stop,
    "banned": _of_stop,
    "token": _of_rejected,
    "webhook": _of_rejected,
}
KINDS: Final = frozenset(_BY_KIND)
"""The kinds of events that change a metric."""


class MetricsObserver:
    """An observer that knows the counter of each decision that there was before. Subclasses apply all other changes."""

    kinds = KINDS
    is_quick = True

    def __init__(self) -> None:
        self.changes = Changes()
        self.counts: dict[tuple[str, str, str], Callable[[], object]] = {}  # by limiter, kind and place of the answer
        self.in_flight: dict[Labels, Callable[[float], object]] = {}  # adds to the gauge, by its labels
        _observers.add(self)

    def on_in_flight(self, limiter: str, change: int) -> None:
        """Count calls that have taken a slot, or freed it."""
        add = self.in_flight.get((limiter,))
        if add is None:
            _, labels, _ = self.changes.bounded(IN_FLIGHT, (limiter,), change)
            add = self.in_flight.get(labels) or self.in_flight.setdefault(labels, self.adder(labels))
        add(change)

    def adder(self, labels: Labels) -> Callable[[float], object]:
        """The function that adds to the number of calls in flight."""
        raise NotImplementedError

    def restore(self) -> None:
        """In a forked process: the calls in flight are those of its parent."""
        raise NotImplementedError

    def on_decision(
        self,
        kind: EventKind,
        limiter: str,
        decision: object,
        key: str,
        wall: object,
        answered_by: AnsweredBy,
        secret: bytes,
    ) -> None:
        """What is done with the event of a decision, without making one."""
        count = self.counts.get((limiter, kind, answered_by))
        if count is not None:
            count()
        else:
            self.apply_all(Event(kind, limiter, answered_by=answered_by))

    def __call__(self, event: Event) -> None:
        count = self.counts.get((event.limiter, event.kind, event.answered_by))
        if count is not None and event.kind != "shed":  # which changes two
            count()
        else:
            self.apply_all(event)

    def apply_all(self, event: Event) -> None:
        """Apply the changes of an event."""
        for change in self.changes.of(event):
            self.apply(change, event)

    def apply(self, change: Change, event: Event) -> None:
        """Apply one change. The counter of a decision is noted in `counts`."""
        raise NotImplementedError


_observers: Final[WeakSet[MetricsObserver]] = WeakSet()


def _after_fork() -> None:
    for observer in list(_observers):
        observer.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
