"""OpenTelemetryObserver: the events as metrics of OpenTelemetry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

try:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter
except ImportError as error:
    raise ImportError(
        "OpenTelemetryObserver needs opentelemetry-api: pip install 'asgi-ratelimit-discord[opentelemetry]'"
    ) from error

from asgi_ratelimit.events import Event
from asgi_ratelimit.observe.metrics import IN_FLIGHT, METRICS, STORE_UP, Change, Labels, Metric, MetricsObserver
from asgi_ratelimit.slot import count_lost_slots

__all__ = ["OpenTelemetryObserver"]

_SCOPE: Final = "asgi_ratelimit"


class OpenTelemetryObserver(MetricsObserver):
    """An observer that counts for OpenTelemetry. One is enough for all stores of an app.

    meter_provider: the provider of the instruments; by default the one that `set_meter_provider` sets, even later

    The instruments are named as the metrics of PrometheusObserver. Counters lack the "_total", which an exporter for
    Prometheus adds. Attributes are the names of limiters and route templates, never keys, users, paths or tokens. An
    attribute has at most 500 values; all others are counted as "(others)".

    Counters and states are observed when a reader collects them: a call of the SDK for each decision would take longer
    than the decision. Raises ValueError if the provider is none.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        if meter_provider is not None and not isinstance(meter_provider, MeterProvider):
            raise ValueError(
                f"meter_provider must be OpenTelemetry's, e.g. MeterProvider(), not {meter_provider!r:.80}"
            )
        super().__init__()
        meter = get_meter(_SCOPE, meter_provider=meter_provider)
        self._numbers = {metric.name: _Numbers(metric) for metric in METRICS if metric.kind != "histogram"}
        self._histograms = {metric.name: _histogram(meter, metric) for metric in METRICS if metric.kind == "histogram"}
        for numbers in self._numbers.values():
            numbers.show_to(meter)

    def introduce(self, node: str) -> None:
        """A store names its server, which counts as up until there is an event about it."""
        metric, labels, value = self.changes.bounded(STORE_UP, (node,), 1)
        states = self._numbers[metric.name]
        if labels not in states:
            states.of(labels).set(value)

    def adder(self, labels: Labels) -> Callable[[float], object]:
        return self._numbers[IN_FLIGHT.name].of(labels).add

    def restore(self) -> None:
        for labels in list(self.in_flight):
            self._numbers[IN_FLIGHT.name].of(labels).set(0)

    def apply(self, change: Change, event: Event) -> None:
        metric, labels, value = change
        if metric.kind == "histogram":
            self._histograms[metric.name].record(value, dict(zip(metric.labels, labels, strict=True)))
        elif metric.kind == "gauge":
            self._numbers[metric.name].of(labels).set(value)
        else:
            number = self._numbers[metric.name].of(labels)
            number.add(value)
            if labels and labels[0] == event.limiter:  # a decision, and its limiter is not one of the others
                self.counts[event.limiter, event.kind, event.answered_by] = number.add


class _Number:
    """The count or state of one set of attributes."""

    __slots__ = ("_lock", "attributes", "value")

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.value = 0.0
        self._lock = threading.RLock()  # a destructor may report an event while it is held

    def add(self, amount: float = 1) -> None:
        with self._lock:
            self.value += amount

    def set(self, value: float) -> None:
        self.value = value


class _Numbers:
    """All numbers of one counter or gauge."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._numbers: dict[Labels, _Number] = {}
        for known in metric.known:
            self.of(known)

    def __contains__(self, labels: Labels) -> bool:
        return labels in self._numbers

    def of(self, labels: Labels) -> _Number:
        """The number of these attributes, made if there is none."""
        number = self._numbers.get(labels)
        if number is None:  # two threads get the same one
            made = _Number(dict(zip(self._metric.labels, labels, strict=True)))
            number = self._numbers.setdefault(labels, made)
        return number

    def show_to(self, meter: Meter) -> None:
        """Let the readers of a meter observe the numbers."""
        name, text = self._metric.name, self._metric.text
        if self._metric.kind == "gauge":
            meter.create_observable_gauge(name, [self._observe], description=text)
        else:
            meter.create_observable_counter(name.removesuffix("_total"), [self._observe], description=text)

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        count_lost_slots()
        return [Observation(number.value, number.attributes) for number in list(self._numbers.values())]


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, unit="s", description=metric.text, explicit_bucket_boundaries_advisory=metric.bounds
    )
