"""Calls in flight: the same number in every observer, whatever ends a call."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from asgi_ratelimit import Concurrency, Limiter, MemoryStore, Store
from asgi_ratelimit.events import Observer
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.observe import LimiterCounts, OpenTelemetryObserver, Snapshot, Stats
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.observe.scrapes import Scraped
from tests.support.asgi_servers import ROOT
from tests.support.servers import Server

pytestmark = pytest.mark.anyio


class Watched:
    """A limiter of slots, and all observers of its store."""

    def __init__(self) -> None:
        self._scraped, self._reader, self.stats = Scraped(), InMemoryMetricReader(), Stats()
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observers: list[Observer] = [self._scraped.observer, OpenTelemetryObserver(provider), self.stats]

    def limit(self, store: Store, *, name: str = "app", **options: Any) -> Limiter:
        limits: list[Limit | str] = [
            Concurrency(3, lease=1.0, **options),
            Concurrency(5, scope="global", name="all"),
            "1000/minute",
        ]
        return Limiter(limits, store=store, name=name)

    @property
    def number(self) -> float:
        """What all of them say."""
        counts = self.stats.snapshot().limiters.get("app", LimiterCounts("app"))
        scraped = self._scraped.value("ratelimit_in_flight", limiter="app")
        assert {counts.in_flight, scraped or 0, self._collected()} == {counts.in_flight}
        return counts.in_flight

    def _collected(self) -> float:
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        metrics = {metric.name: metric for scope in scopes for metric in scope.metrics}
        metric = metrics.get("ratelimit_in_flight")
        points: list[Any] = list(metric.data.data_points) if metric else []
        return sum(float(point.value) for point in points if point.attributes == {"limiter": "app"})

    @property
    def most(self) -> int:
        return self.stats.snapshot().limiters["app"].most_in_flight


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture(params=["memory", "redis", "outage"])
async def limiter(request: pytest.FixtureRequest, watched: Watched) -> AsyncIterator[Limiter]:
    if request.param == "memory":
        yield watched.limit(MemoryStore(clock=ManualClock(), observers=watched.observers))
        return
    any_redis: Server = request.getfixturevalue("any_redis")
    url = any_redis.url if request.param == "redis" else "redis://127.0.0.1:1"
    async with RedisStore(url, observers=watched.observers) as store:
        yield watched.limit(store)


async def test_a_call_counts_once_until_it_ends(limiter: Limiter, watched: Watched) -> None:
    assert watched.number == 0
    calls = [await limiter.try_acquire("key") for _ in range(4)]
    assert [call.allowed for call in calls] == [True, True, True, False]
    assert watched.number == 3
    await limiter.settle(calls[2], 5)
    assert watched.number == 3
    await limiter.release(calls[0])
    await limiter.refund(calls[1])
    await limiter.refund(calls[3])
    assert watched.number == 1
    for call in calls:
        await limiter.release(call)
        await limiter.refund(call)
    assert (watched.number, watched.most) == (0, 3)


async def test_calls_that_are_cancelled_do_not_count(limiter: Limiter, watched: Watched) -> None:
    async def call() -> None:
        async with limiter.hold("key"):
            await asyncio.sleep(60)

    for turns in range(6):
        tasks = [asyncio.create_task(call()) for _ in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await limiter.peek("key")  # what was sent before is answered
    assert watched.number == 0


async def test_calls_that_are_forgotten_do_not_count(limiter: Limiter, watched: Watched) -> None:
    calls = [await limiter.try_acquire("key") for _ in range(2)]
    assert watched.number == 2
    del calls
    await limiter.peek("key")  # a connection keeps the last answer until the next
    gc.collect()
    assert watched.number == 0


async def test_two_stores_add_up_and_a_later_observer_learns_of_what_there_is() -> None:
    watched = Watched()
    stores = [MemoryStore(clock=ManualClock(), observers=watched.observers) for _ in range(2)]
    calls = [await watched.limit(store).try_acquire("key") for store in stores]
    assert watched.number == 2
    later = Stats()
    stores[0].observers.add(later)
    assert later.snapshot().limiters["app"].in_flight == 1
    watched.stats.reset()
    assert (watched.number, watched.most) == (2, 2)
    del calls
    assert watched.number == later.snapshot().limiters["app"].in_flight == 0


async def test_an_observer_that_fails_is_left_out_and_no_call_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __call__(self, event: object) -> None:
            """It counts nothing."""

        def on_in_flight(self, limiter: str, change: int) -> None:
            raise RuntimeError("the disk is full")

    store = MemoryStore(clock=ManualClock(), observers=[Broken()])
    limiter = Limiter(Concurrency(1), store=store)
    for _ in range(20):
        async with limiter.hold("key"):
            pass
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert len(store.observers) == 1  # the log


def test_processes_add_up_as_long_as_they_live() -> None:
    def of(now: int, most: int) -> Snapshot:
        return Snapshot(0.0, {"app": LimiterCounts("app", in_flight=now, most_in_flight=most)})

    merged = Snapshot.merge([of(2, 3), of(2, 2), of(1, 9).ended()])
    assert (merged.limiters["app"].in_flight, merged.limiters["app"].most_in_flight) == (4, 9)
    assert Snapshot.merge([of(2, 3), of(2, 2)]).limiters["app"].most_in_flight == 4
    assert Snapshot.from_dict(of(2, 3).to_dict()) == of(2, 3)


FORKED = """
import asyncio, os
from prometheus_client import CollectorRegistry, REGISTRY
from prometheus_client.multiprocess import MultiProcessCollector
from asgi_ratelimit import Concurrency, Limiter, MemoryStore
from asgi_ratelimit.observe import PrometheusObserver, Stats

stats = Stats()
limiter = Limiter(Concurrency(9), store=MemoryStore(observers=[PrometheusObserver(), stats]), name="app")
several = CollectorRegistry()
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    MultiProcessCollector(several)

def call():
    return asyncio.run(limiter.try_acquire("key"))

def say():
    registry = several if "PROMETHEUS_MULTIPROC_DIR" in os.environ else REGISTRY
    number = registry.get_sample_value("ratelimit_in_flight", {"limiter": "app"})
    print(number, stats.snapshot().limiters["app"].in_flight, flush=True)

calls = [call(), call()]
if not os.fork():
    calls += [call()]
    say()
    asyncio.run(limiter.release(calls[2]))
    asyncio.run(limiter.release(calls[0]))
    say()
    os._exit(0)
os.wait()
calls.pop()
calls.append(call())
say()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("several", "said"),
    [(False, "1.0 1 0.0 0 2.0 2"), (True, "3.0 1 2.0 0 2.0 2")],  # several add up to all of them
)
def test_a_forked_process_has_none_of_its_parents(several: bool, said: str, tmp_path: Path) -> None:
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if several else {}
    environment = {**os.environ, **folder, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert " ".join(ended.stdout.split()) == said, ended.stderr
