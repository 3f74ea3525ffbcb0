"""What a scrape of Prometheus reads from the registry of an observer."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asgi_ratelimit.observe import PrometheusObserver

__all__ = ["Scraped", "samples_in"]

Labels = dict[str, str]


def samples_in(text: str) -> dict[str, list[tuple[Labels, float]]]:
    """The samples of an exposition by their name, those about the age of a series left out."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


@dataclass(frozen=True)
class Scraped:
    """An observer with a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    observer: PrometheusObserver = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "observer", PrometheusObserver(self.registry))

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; None: there is none."""
        return self.registry.get_sample_value(name, labels)

    def changed(self) -> dict[str, list[tuple[Labels, float]]]:
        """The samples that are not zero, without the buckets of histograms."""
        values = {
            name: [(labels, value) for labels, value in samples if value]
            for name, samples in samples_in(self.text).items()
            if not name.endswith("_bucket")
        }
        return {name: samples for name, samples in values.items() if samples}
