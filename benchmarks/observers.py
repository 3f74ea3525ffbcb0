"""What observers add to a decision: the same decision in memory with each of them listening."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from benchmarks.candidates import keys_of
from benchmarks.harness import Score, Turn, compete, enter, ns_per_call

__all__ = ["CASES", "NONE", "OBSERVERS", "added_by_observers"]

NONE = "nobody listening"
CASES = {"one key": 1, "100 keys": 100, "100 000 keys": 100_000}
Observer = Callable[..., object]


def stats() -> Observer:
    from asgi_ratelimit.observe import Stats

    return Stats()


def log() -> Observer:
    from asgi_ratelimit.observe import LogObserver

    return LogObserver()


def prometheus() -> Observer:
    from prometheus_client import CollectorRegistry

    from asgi_ratelimit import observe

    observer: Observer = observe.PrometheusObserver(CollectorRegistry())  # type: ignore[attr-defined,unused-ignore]
    return observer


def opentelemetry() -> Observer:
    from opentelemetry.sdk.metrics import MeterProvider

    from asgi_ratelimit import observe

    observer: Observer = observe.OpenTelemetryObserver(MeterProvider())  # type: ignore[attr-defined,unused-ignore]
    return observer


class Plain:
    """Does nothing with an event: what an event itself costs."""

    is_quick = True

    def __call__(self, event: object) -> None: ...


OBSERVERS: dict[str, Callable[[], Iterable[Observer]]] = {
    NONE: lambda: (),
    "an observer that does nothing": lambda: (Plain(),),
    "**Stats**": lambda: (stats(),),
    "**LogObserver**": lambda: (log(),),
    "**PrometheusObserver**": lambda: (prometheus(),),
    "**OpenTelemetryObserver**": lambda: (opentelemetry(),),
}


async def added_by_observers(rounds: int, calls: int) -> dict[str, dict[str, Score]]:
    """The time of a decision and of its event, by the number of keys that make the calls."""
    return {case: await _added(number, rounds, calls) for case, number in CASES.items()}


async def _added(number: int, rounds: int, calls: int) -> dict[str, Score]:
    keys, dice = keys_of(number), random.Random(3)

    async def build(make: Callable[[], Iterable[Observer]]) -> Turn:
        drive = _drive(make())
        await drive(keys)

        async def turn() -> float:
            return await ns_per_call(drive(dice.choices(keys, k=calls)), calls)

        return turn

    return await compete(await enter({name: partial(build, make) for name, make in OBSERVERS.items()}), rounds)


def _drive(observers: Iterable[Observer]) -> Callable[[Sequence[str]], Awaitable[None]]:
    from asgi_ratelimit import Limiter, MemoryStore

    store = MemoryStore(observers=observers)
    decide, decided = Limiter("1000000/s", store=store, name="app").decide, store.observers.decided

    async def drive(keys: Sequence[str]) -> None:
        for key in keys:
            decision = decide(key, 1, "")
            if isinstance(decision, Awaitable):
                raise TypeError("a store in memory decides at once")
            decided("app", decision, key)

    return drive
