"""The time that requests take when nothing waits, learned for each route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Baselines", "Sums"]

_MOST_ROUTES: Final = 500
_OTHERS: Final = "(others)"
_YOUNG: Final = 20  # samples; a route with fewer learns faster
_MOST_TIMES: Final = 1_000.0
_LONGEST_S: Final = 86_400.0
_LONGEST_STEP: Final = (0.5, 2.5)  # one correction of all baselines is between these factors


@dataclass(frozen=True, slots=True)
class Sums:
    """The requests that ended in one tick: how many, and their seconds as measured and as they take if nothing waits.

    `calm_*`: of those that found few others in flight.
    """

    count: int = 0
    seconds: float = 0.0
    baseline: float = 0.0
    calm_count: int = 0
    calm_seconds: float = 0.0
    calm_baseline: float = 0.0


class Baselines:
    """The mean seconds of each route when nothing waits, and the samples of the present tick.

    A mean, since it is compared with a mean: with the least that was ever seen a route with a cache would always seem
    to wait.

    is_sure: whether any of it was learned while nothing waited
    """

    def __init__(self) -> None:
        self._routes: dict[object, _Route] = {}
        self._in_tick: list[_Route] = []
        self.is_sure = False

    def add(self, key: object, seconds: float, is_calm: bool) -> None:
        """Count the seconds of one request."""
        route = self._routes.get(key) or self._meet(key)
        if not route.count:
            self._in_tick.append(route)
        route.count += 1
        route.seconds += seconds
        if is_calm:
            route.calm_count += 1
            route.calm_seconds += seconds

    @property
    def count(self) -> int:
        """How many requests were counted in this tick."""
        return sum([route.count for route in self._in_tick])

    def sums(self) -> Sums:
        """All samples of this tick. A route that has no baseline yet takes them for it."""
        for route in self._in_tick:
            if not route.known:
                route.baseline = route.seconds / route.count
        routes = self._in_tick
        return Sums(
            sum([route.count for route in routes]),
            sum([route.seconds for route in routes]),
            sum([route.baseline * route.count for route in routes]),
            sum([route.calm_count for route in routes]),
            sum([route.calm_seconds for route in routes]),
            sum([route.baseline * route.calm_count for route in routes]),
        )

    def end_tick(self, *, learn: bool) -> None:
        """Begin a new tick. `learn`: the calm samples move the baselines of their routes."""
        for route in self._in_tick:
            if learn and route.calm_count:
                route.learn()
                self.is_sure = True
            route.known += route.count
            route.count = route.calm_count = 0
            route.seconds = route.calm_seconds = 0.0
        self._in_tick = []

    def correct(self, ratio: float, *, is_exact: bool) -> None:
        """All requests have taken so many times their baselines, though nothing waited: move the baselines there.

        is_exact: nothing can have waited at all, so they are moved all the way
        """
        ratio = min(_MOST_TIMES, max(1 / _MOST_TIMES, ratio))
        lowest, highest = _LONGEST_STEP
        factor = min(highest, max(lowest, 1 + 0.7 * (ratio - 1))) if self.is_sure and not is_exact else ratio
        self.is_sure = True
        for route in self._routes.values():
            route.baseline = min(_LONGEST_S, route.baseline * factor)

    def _meet(self, key: object) -> _Route:
        if len(self._routes) >= _MOST_ROUTES:
            key = _OTHERS
        return self._routes.setdefault(key, _Route())


class _Route:
    """One route: its baseline, how many of its requests are known, and its samples in the present tick."""

    __slots__ = ("baseline", "calm_count", "calm_seconds", "count", "known", "seconds")

    def __init__(self) -> None:
        self.baseline = self.seconds = self.calm_seconds = 0.0
        self.known = self.count = self.calm_count = 0

    def learn(self) -> None:
        share = self.calm_count / (self.calm_count + min(self.known, _YOUNG))
        self.baseline += share * (self.calm_seconds / self.calm_count - self.baseline)
