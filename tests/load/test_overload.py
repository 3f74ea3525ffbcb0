"""An app under more load than it can bear, in virtual time: each run gives the same figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.load.simulation import SERVER_S, Phase, Served, Simulation

CAPACITY = 1 / (0.004 + SERVER_S)
CALM, OVERLOAD = Phase(20, 5), Phase(750, 15)


def of(served: Iterable[Served], phase: int, *, since: float = 0.0) -> list[Served]:
    """The requests of a phase, health checks left out."""
    chosen = [one for one in served if one.phase == phase and one.path == "/"]
    return [one for one in chosen if one.sent >= chosen[0].sent + since]


def p99_ms(requests: Iterable[Served]) -> float:
    seconds = sorted(one.seconds for one in requests if one.status == 200)
    return 1e3 * seconds[int(0.99 * len(seconds))]


def share(requests: Iterable[Served]) -> float:
    statuses = [one.status == 200 for one in requests]
    return sum(statuses) / len(statuses)


def goodput(requests: Iterable[Served], phase: Phase) -> float:
    return sum(one.status == 200 for one in requests) / phase.seconds


def test_one_class() -> None:
    served = Simulation(mix=(0, 1)).run(CALM, OVERLOAD)
    unloaded = p99_ms(of(served, 0))
    assert goodput(of(served, 1), OVERLOAD) > 0.9 * CAPACITY
    assert p99_ms(of(served, 1)) < 2 * unloaded
    assert share(of(served, 0)) == 1.0


def test_three_classes() -> None:
    served = Simulation(mix=(0.05, 0.15, 0.80)).run(CALM, OVERLOAD)
    loaded = of(served, 1)
    shares = [share(one for one in loaded if one.priority == priority) for priority in range(3)]
    assert shares[0] >= 0.99
    assert shares[0] > shares[1] > 2 * shares[2]
    assert goodput(loaded, OVERLOAD) > 0.91 * CAPACITY
    assert p99_ms(loaded) < 2.4 * p99_ms(of(served, 0))
    assert share(one for one in served if one.path == "/health") == 1.0


def test_the_bare_app_collapses_in_the_same_run() -> None:
    served = Simulation(mix=(0, 1), middleware=None).run(CALM, Phase(750, 3))
    assert p99_ms(of(served, 1)) > 100 * p99_ms(of(served, 0))


def test_afterwards_it_is_as_before() -> None:
    served = Simulation(mix=(0.05, 0.15, 0.80)).run(CALM, OVERLOAD, Phase(125, 10))
    assert share(of(served, 2, since=5)) == 1.0
    assert p99_ms(of(served, 2, since=5)) < 40


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_shed_while_there_is_enough_for_all(seed: int) -> None:
    served = Simulation(seed=seed).run(Phase(20, 3), Phase(125, 5), Phase(40, 3))
    assert share(served) == 1.0


class Bursts(Simulation):
    """So many requests at once, each second."""

    async def _run(self, phases: Sequence[Phase]) -> None:
        app, tasks = self._app(), list[asyncio.Task[None]]()
        for number in range(10):
            for _ in range(int(phases[0].rate)):
                tasks.append(asyncio.create_task(self._request(app, self._new(number, self.loop.time()))))
            await asyncio.sleep(1.0)
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("size", [6, 12, 32])
def test_bursts_are_no_overload(size: int) -> None:
    served = Bursts(mix=(0, 1)).run(Phase(size, 10))
    assert share(served) == 1.0


def test_an_app_that_only_waits_is_not_held_back() -> None:
    served = Simulation(work=0.0002, wait=0.1, mix=(0, 1)).run(Phase(20, 3), Phase(2000, 3))
    assert share(of(served, 1)) > 0.99


def test_an_app_that_starts_in_an_overload_learns_what_it_can() -> None:
    served = Simulation(mix=(0, 1)).run(Phase(750, 8))
    assert p99_ms(of(served, 0, since=2)) < 70
    assert share(of(served, 0)) > 0.25


class SlowerSimulation(Simulation):
    """Its app waits for a backend that is three times as slow after five seconds."""

    @property
    def wait(self) -> float:
        return 0.03 if self.loop.time() < self.loop.started + 5 else 0.09

    @wait.setter
    def wait(self, seconds: float) -> None:
        """The one of the constructor."""


def test_a_backend_that_becomes_slower_is_no_overload_for_long() -> None:
    served = SlowerSimulation(work=0.001, mix=(0, 1)).run(Phase(200, 5), Phase(200, 15))
    assert share(of(served, 1, since=8)) > 0.99


@settings(max_examples=25)
@given(
    work=st.floats(0.0001, 0.03),
    wait=st.floats(0, 0.3),
    factor=st.floats(0.2, 4),
    seed=st.integers(0, 1_000),
)
def test_every_request_gets_its_answer_and_every_place_is_free_again(
    work: float, wait: float, factor: float, seed: int
) -> None:
    simulation = Simulation(work=work, wait=wait, seed=seed)
    rate = min(1_000.0, factor / work)
    served = simulation.run(Phase(rate, 2), Phase(max(1.0, rate / 20), 2))
    assert {one.status for one in served} <= {200, 503}
    assert {one.status for one in served if one.path == "/health"} <= {200}
    assert simulation.in_flight == 0
