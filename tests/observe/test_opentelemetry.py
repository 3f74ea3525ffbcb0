"""OpenTelemetryObserver: what the readers of the SDK collect, and what an exporter for Prometheus makes of it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint
from prometheus_client import CollectorRegistry, generate_latest

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.observe import Event, OpenTelemetryObserver
from asgi_ratelimit.observe.metrics import KINDS, METRICS
from asgi_ratelimit.testing import ManualClock
from tests.observe.scrapes import Scraped, samples_in
from tests.observe.test_prometheus import EFFECTS, NODE, ROUTE

ALL_EVENTS = [event for event, _ in EFFECTS]


class Collected:
    """An observer, and what the SDK's reader in memory collects from it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(self.provider)

    def metrics(self) -> dict[str, Metric]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        assert {scope.scope.name for scope in scopes} == {"asgi_ratelimit"}
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def point(self, name: str, **attributes: str) -> NumberDataPoint | HistogramDataPoint | None:
        """The point with these attributes."""
        points: list[Any] = [point for point in self.points(name) if dict(point.attributes) == attributes]
        assert len(points) <= 1
        return points[0] if points else None

    def points(self, name: str) -> list[Any]:
        metric = self.metrics().get(name)
        return [] if metric is None else list(metric.data.data_points)

    def number(self, name: str, **attributes: str) -> float | None:
        point = self.point(name, **attributes)
        assert point is None or isinstance(point, NumberDataPoint)
        return None if point is None else point.value


@pytest.fixture
def collected() -> Collected:
    return Collected()


def test_the_instruments_have_the_names_and_units_of_the_metrics(collected: Collected) -> None:
    for event in ALL_EVENTS:
        collected.observer(event)
    collected.observer.on_in_flight("app", 1)
    metrics = collected.metrics()
    assert set(metrics) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        instrument = metrics[metric.name.removesuffix("_total")]
        assert instrument.description == metric.text
        assert instrument.unit == ("s" if metric.kind == "histogram" else "")


def test_each_metric_is_of_its_kind(collected: Collected) -> None:
    for event in ALL_EVENTS:
        collected.observer(event)
    collected.observer.on_in_flight("app", 1)
    kinds = {name: type(metric.data).__name__ for name, metric in collected.metrics().items()}
    expected = {"counter": "Sum", "gauge": "Gauge", "histogram": "Histogram"}
    assert kinds == {metric.name.removesuffix("_total"): expected[metric.kind] for metric in METRICS}


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: str(event.kind))
def test_an_exporter_shows_what_prometheus_counts_itself(event: Event) -> None:
    """Every series with its name, labels and value, the buckets of histograms included."""
    exported, scraped = CollectorRegistry(), Scraped()
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=exported)
    observer = OpenTelemetryObserver(MeterProvider([reader], shutdown_on_exit=False))
    for _ in range(3):
        observer(event)
        scraped.observer(event)
    assert in_order(generate_latest(exported).decode()) == in_order(scraped.text)


def in_order(text: str) -> dict[str, Any]:
    return {
        name: sorted((sorted(labels.items()), value) for labels, value in samples)
        for name, samples in samples_in(text).items()
    }


def test_a_store_goes_down_and_comes_back(collected: Collected) -> None:
    observer = collected.observer
    assert collected.number("ratelimit_store_up", store=NODE) is None
    observer.introduce(NODE)
    assert collected.number("ratelimit_store_up", store=NODE) == 1
    observer(Event("down", node=NODE))
    observer.introduce(NODE)
    assert collected.number("ratelimit_store_up", store=NODE) == 0
    observer(Event("recovered", node=NODE))
    assert collected.number("ratelimit_store_up", store=NODE) == 1


@pytest.mark.anyio
async def test_a_limiter_counts_each_decision_once(clock: ManualClock, collected: Collected) -> None:
    limiter = Limiter("5/hour", store=MemoryStore(clock=clock, observers=[collected.observer]), name="search")
    for _ in range(8):
        await limiter.try_acquire("user:ada")
    for outcome, count in (("allowed", 5), ("limited", 3)):
        number = collected.number("ratelimit_decisions", limiter="search", outcome=outcome, answered_by="store")
        assert number == count
    assert collected.number("ratelimit_near", limiter="search") == 2
    assert "ada" not in repr(collected.metrics())


def test_the_number_of_attributes_is_bounded(collected: Collected) -> None:
    for number in range(600):
        collected.observer(Event("allowed", f"limiter {number}"))
        collected.observer(Event("response", "discord", route=f"GET /{number}", status=200))
    assert len(collected.points("ratelimit_decisions")) == len(collected.points("discord_requests")) == 501
    assert collected.number("discord_requests", route="(others)", status="200") == 100


def test_threads_lose_no_count(collected: Collected) -> None:
    def count(number: int) -> None:
        for _ in range(1_000):
            collected.observer(Event("allowed", "app"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))
    assert collected.number("ratelimit_decisions", limiter="app", outcome="allowed", answered_by="store") == 8_000


def test_two_readers_see_the_same_counts() -> None:
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    observer = OpenTelemetryObserver(MeterProvider(readers, shutdown_on_exit=False))
    observer(Event("response", "discord", route=ROUTE, status=200))
    for reader in (*readers, readers[0]):
        data = reader.get_metrics_data()
        assert data is not None
        assert f'"route": "{ROUTE}"' in data.to_json()


def test_it_asks_for_the_kinds_that_change_a_metric() -> None:
    assert OpenTelemetryObserver.kinds == KINDS


@pytest.mark.parametrize("provider", ["default", 0, MeterProvider])
def test_what_is_no_provider_is_refused(provider: Any) -> None:
    with pytest.raises(ValueError, match=r"meter_provider must be OpenTelemetry's, e\.g\. MeterProvider\(\), not"):
        OpenTelemetryObserver(provider)


LATE = """
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from asgi_ratelimit.observe import Event, OpenTelemetryObserver
observer = OpenTelemetryObserver()
observer(Event("allowed", "app"))
reader = InMemoryMetricReader()
set_meter_provider(MeterProvider([reader]))
print("ratelimit_decisions" in reader.get_metrics_data().to_json())
"""


def test_the_default_is_the_provider_that_is_set_even_later() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"
