"""PrometheusObserver: the events as metrics of prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "PrometheusObserver needs prometheus_client: pip install 'asgi-ratelimit-discord[prometheus]'"
    ) from error

from asgi_ratelimit.events import Event
from asgi_ratelimit.observe.metrics import IN_FLIGHT, METRICS, STORE_UP, Change, Labels, Metric, MetricsObserver
from asgi_ratelimit.slot import count_lost_slots

__all__ = ["PrometheusObserver"]

# Of several processes, one that does not reach the server is enough for a 0.
_ACROSS: Final[dict[str, Literal["livemin", "livesum"]]] = {"min": "livemin", "sum": "livesum"}


class PrometheusObserver(MetricsObserver):
    """An observer that counts for Prometheus. One is enough for all stores of an app.

    registry: where the metrics are registered; prometheus_client's own by default

    Labels are the names of limiters and route templates, never keys, users, paths or tokens. A label has at most 500
    values; all others are counted as "(others)".

    Raises ValueError if the registry is none, or has the metrics of another PrometheusObserver already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__()
        self._families = _Families()
        _register(self._families, REGISTRY if registry is None else registry)
        self._states: dict[str, Change] = {}  # the last one of each server

    def introduce(self, node: str) -> None:
        """A store names its server, which counts as up until there is an event about it."""
        if node not in self._states:
            self._set_state(self.changes.bounded(STORE_UP, (node,), 1))

    def restore(self) -> None:
        """Set the states of the servers again. In a forked process prometheus_client may have set them to 0."""
        for labels in list(self.in_flight):
            self._families.gauge(IN_FLIGHT).labels(*labels).set(0)
        for change in list(self._states.values()):
            self._set_state(change)

    def adder(self, labels: Labels) -> Callable[[float], object]:
        return self._families.gauge(IN_FLIGHT).labels(*labels).inc

    def apply(self, change: Change, event: Event) -> None:
        metric, labels, value = change
        if metric.kind == "gauge":
            self._set_state(change)
        elif metric.kind == "histogram":
            self._families.histogram(metric).labels(*labels).observe(value)
        else:
            counter = self._families.counter(metric)
            child = counter.labels(*labels) if labels else counter
            child.inc(value)
            if labels and labels[0] == event.limiter:  # a decision, and its limiter is not one of the others
                self.counts[event.limiter, event.kind, event.answered_by] = child.inc

    def _set_state(self, change: Change) -> None:
        metric, labels, value = change
        self._states[labels[0]] = change
        self._families.gauge(metric).labels(*labels).set(value)


class _Families(Collector):
    """The metrics as one collector, so that a registry takes all of them or none."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in METRICS:
            self._make(metric)

    def counter(self, metric: Metric) -> Counter:
        return self._counters[metric.name]

    def gauge(self, metric: Metric) -> Gauge:
        return self._gauges[metric.name]

    def histogram(self, metric: Metric) -> Histogram:
        return self._histograms[metric.name]

    def collect(self) -> Iterable[Family]:
        count_lost_slots()
        for family in self._all():
            yield from family.collect()

    def describe(self) -> Iterable[Family]:
        for family in self._all():
            yield from family.describe()

    def _all(self) -> list[Counter | Gauge | Histogram]:
        return [*self._counters.values(), *self._gauges.values(), *self._histograms.values()]

    def _make(self, metric: Metric) -> None:
        name, text, labels = metric.name, metric.text, metric.labels
        if metric.kind == "histogram":
            self._histograms[name] = Histogram(name, text, labels, registry=None, buckets=metric.bounds)
        elif metric.kind == "gauge":
            self._gauges[name] = Gauge(name, text, labels, registry=None, multiprocess_mode=_ACROSS[metric.across])
        else:
            counter = self._counters[name] = Counter(name, text, labels, registry=None)
            for known in filter(None, metric.known):
                counter.labels(*known)


def _register(families: _Families, registry: CollectorRegistry) -> None:
    if not isinstance(registry, CollectorRegistry):
        raise ValueError(f"registry must be prometheus_client's, e.g. CollectorRegistry(), not {registry!r:.80}")
    try:
        registry.register(families)
    except ValueError as error:
        raise ValueError(
            "the registry has metrics of these names already: give all stores the same PrometheusObserver, or each "
            "observer a registry of its own, as in PrometheusObserver(CollectorRegistry())"
        ) from error
