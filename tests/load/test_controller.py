"""The parts of the controller: baselines, classes, and what it does with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.load.baselines import Baselines
from asgi_ratelimit.load.classes import CLASSES, Demand
from asgi_ratelimit.load.controller import Controller

SECOND = 1_000_000_000


def learned(*seconds: float, is_calm: bool = True) -> Baselines:
    baselines = Baselines()
    for each in seconds:
        baselines.add("route", each, is_calm)
        baselines.sums()
        baselines.end_tick(learn=True)
    return baselines


def baseline_of(baselines: Baselines, key: object = "route") -> float:
    baselines.add(key, 1.0, False)
    return baselines.sums().baseline


def test_a_baseline_is_the_mean_of_the_first_samples() -> None:
    assert baseline_of(learned(0.1, 0.2, 0.3, 0.4)) == pytest.approx(0.25)


def test_samples_while_others_wait_do_not_move_it() -> None:
    baselines = learned(0.1)
    for _ in range(100):
        baselines.add("route", 5.0, False)
        baselines.end_tick(learn=True)
    assert baseline_of(baselines) == pytest.approx(0.1)
    assert not learned(0.1, is_calm=False).is_sure


def test_routes_have_baselines_of_their_own_up_to_a_number() -> None:
    baselines = Baselines()
    for number in range(2_000):
        baselines.add(number, float(number), True)
        baselines.sums()
        baselines.end_tick(learn=True)
    assert baseline_of(baselines, 7) == 7.0
    assert baselines.sums().count == 1
    baselines.end_tick(learn=False)
    assert baseline_of(baselines, 1_500) == baseline_of(baselines, "new") / 2 > 500


@given(st.floats(0.001, 100), st.booleans())
def test_a_correction_goes_in_the_right_direction(ratio: float, is_exact: bool) -> None:
    baselines = learned(1.0)
    baselines.correct(ratio, is_exact=is_exact)
    found = baseline_of(baselines)
    assert min(1.0, ratio) - 1e-9 <= found <= max(1.0, ratio) + 1e-9
    assert not is_exact or found == pytest.approx(ratio)


def demand(served: int, *arrived: int) -> Demand:
    demand = Demand()
    for one, number in enumerate(arrived):
        for _ in range(number):
            demand.count(one)
    demand.tick(served, 0.05)
    return demand


@pytest.mark.parametrize(
    ("arrived", "marginal"),
    [((0, 100, 0, 0), 1), ((200, 0, 0, 0), 0), ((5, 10, 85, 0), 2), ((5, 25, 10, 1), 3), ((0, 0, 0, 200), 3)],
)
def test_the_class_that_is_shed(arrived: tuple[int, ...], marginal: int) -> None:
    assert demand(40, *arrived).marginal == marginal


def test_without_an_overload_it_is_the_least_important_one() -> None:
    found = demand(40, 200)
    found.clear()
    assert found.marginal == CLASSES - 1


def controller_after(seconds_of: list[float], *, refused: int = 0, ended: int = 10) -> Controller:
    """A controller after ticks of 50 ms in which requests took these seconds."""
    controller, now = Controller(0, 0.0), 0
    for seconds in seconds_of:
        for _ in range(ended):
            controller.enter()
            controller.leave()
            controller.baselines.add("route", seconds, False)
        for _ in range(refused):
            controller.refuse(now + SECOND // 20)
        now += SECOND // 20
        controller.tick(now, now / 1e10, 0.0)
    return controller


def test_slow_requests_alone_are_no_overload() -> None:
    controller = controller_after([0.01] * 5 + [0.5] * 50)
    assert not controller.is_overload
    assert controller.excess == 0.0


def test_more_requests_that_wait_lower_the_limit() -> None:
    calm, busy = controller_after([0.01] * 40), controller_after([0.01] * 5 + [0.05] * 35, refused=20)
    assert busy.limit < calm.limit
    assert busy.is_overload
    assert busy.free_below == 0.0 < calm.free_below


def test_requests_that_are_refused_though_nothing_waits_raise_it() -> None:
    assert controller_after([0.01] * 10, refused=5).limit > controller_after([0.01] * 10).limit


MS = SECOND // 1000


def refused(*moments: int, controller: Controller | None = None) -> Controller:
    controller = controller or Controller(0, 0.0)
    for moment in moments:
        controller.refuse(moment * MS)
    return controller


def test_refusals_that_last_are_looked_into_at_once() -> None:
    assert refused(1, 20).tick_at == 20 * MS
    assert refused(1, 16).tick_at == 16 * MS


@pytest.mark.parametrize("moments", [(20,), (20, 20, 21, 34), (1, 200)])
def test_those_of_a_burst_are_not(moments: tuple[int, ...]) -> None:
    assert refused(*moments).tick_at == Controller(0, 0.0).tick_at


def test_what_is_shed_before_it_begins_is_no_longer_in_flight() -> None:
    controller = controller_after([0.01] * 5 + [0.05] * 35, refused=20)
    for _ in range(40):
        controller.enter()
    surplus = controller.surplus
    assert 40 - controller.limit - 3 < surplus < 40 - controller.limit
    for _ in range(surplus):
        controller.withdraw()
    assert (controller.in_flight, controller.surplus, controller.is_refusing) == (40 - surplus, 0, True)


def test_without_an_overload_nothing_is_shed_before_it_begins() -> None:
    controller = refused(1, 2, 3)
    for _ in range(100):
        controller.enter()
    assert controller.surplus == 0


@pytest.mark.parametrize("length", range(2, 60, 3))
def test_an_overload_may_end_at_any_moment_also_during_a_dip(length: int) -> None:
    controller, now = Controller(0, 0.0), 0
    for ended, refused in [(10, 20)] * length + [(0, 0)] * 100 + [(10, 0)] * 20:
        for _ in range(ended):
            controller.enter()
            controller.leave()
            controller.baselines.add("route", 0.2 if refused else 0.01, False)
        for _ in range(refused):
            controller.refuse(now)
        now += SECOND // 100
        controller.tick(now, now / 1e10, 0.01)
    assert not controller.is_overload
    assert controller.limit > 4


@given(
    ticks=st.lists(
        st.tuples(
            st.integers(0, 30),
            st.integers(0, 60),
            st.floats(0, 100),
            st.floats(0, 3),
            st.integers(1, 10),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_whatever_it_measures_somebody_gets_in(ticks: list[tuple[int, int, float, float, int, bool]]) -> None:
    controller, now = Controller(0, 0.0), 0
    for ended, refused, seconds, lag, length, is_calm in ticks:
        for one in range(ended):
            controller.enter()
            controller.leave()
            controller.baselines.add(one % 3, seconds, is_calm)
        for number in range(refused):
            controller.has_room(number % CLASSES)
            controller.refuse(now)
        now += length * SECOND // 20
        controller.tick(now, now / 1e10, lag)
        assert controller.in_flight == 0
        assert controller.limit >= 1.0
        assert all(controller.has_room(one) for one in (None, *range(CLASSES)))
        assert controller.per_turn >= 1
        assert -1.0 <= controller.excess <= 1.0
