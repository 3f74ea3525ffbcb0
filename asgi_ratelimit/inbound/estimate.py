"""Estimate: the cost of a call before it is known, learned from the real costs of earlier calls."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_ratelimit.inbound.route_names import matched_route, route_template

__all__ = ["Estimate"]

_MOST_ROUTES = 1_000
_MOST_COSTS = 200  # the last ones of each route
_FEWEST_COSTS = 20  # that say more than `start` does


class Estimate:
    """A cost that learns: `cost=Estimate(quantile=0.95, start=4000)`.

    quantile: the share of the calls that are to cost no more than the estimate, above 0 and at most 1
    start: the estimate until something is known. The first 20 calls of a route are charged at least that

    It learns from `RateLimit.settle` and from the middleware's `settle=`, per route: a path template, or one value for
    all requests where the door does not know the route yet, as a middleware around the app. It keeps the last 200 costs
    of each of 1000 routes. A cost of 0 is not learned. The door charges at most the capacity. Any number of threads may
    use one. Raises ValueError if an option is out of range.
    """

    def __init__(self, *, quantile: float = 0.95, start: int) -> None:
        if isinstance(quantile, bool) or not isinstance(quantile, (int, float)) or not 0 < quantile <= 1:
            raise ValueError(f"quantile is a share above 0, at most 1, e.g. quantile=0.95, not {quantile!r}")
        if isinstance(start, bool) or not isinstance(start, int) or start < 1:
            raise ValueError(f"start is a whole number from 1, e.g. start=4000, not {start!r}")
        self.quantile, self.start = float(quantile), start
        self._lock = threading.Lock()
        self._costs: OrderedDict[str, _Costs] = OrderedDict()

    def __repr__(self) -> str:
        return f"Estimate(quantile={self.quantile}, start={self.start})"

    def __call__(self, conn: HTTPConnection) -> int:
        """The estimate for a request."""
        return self.of(self.route_of(conn.scope))

    def of(self, route: str = "") -> int:
        """The estimate for a call of this route."""
        with self._lock:
            costs = self._costs.get(route)
            if costs is None:
                return self.start
            learned = costs.quantile(self.quantile)
            return learned if len(costs) >= _FEWEST_COSTS else max(self.start, learned)

    def learn(self, used: int, route: str = "") -> None:
        """Note what a call of this route has really cost."""
        if used < 1:
            return
        with self._lock:
            costs = self._costs.get(route)
            if costs is None:
                costs = self._costs[route] = _Costs()
                if len(self._costs) > _MOST_ROUTES:
                    self._costs.popitem(last=False)
            self._costs.move_to_end(route)
            costs.add(used)

    def route_of(self, scope: Scope) -> str:
        """The path template of a request; "" where no route has been matched yet."""
        return "" if matched_route(scope) is None else route_template(scope)


class _Costs:
    """The last costs of one route, also in order."""

    def __init__(self) -> None:
        self._last: deque[int] = deque()
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._last)

    def add(self, cost: int) -> None:
        self._last.append(cost)
        insort(self._sorted, cost)
        if len(self._last) > _MOST_COSTS:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]

    def quantile(self, share: float) -> int:
        """The smallest of the costs that at least this share of them does not exceed."""
        return self._sorted[math.ceil(len(self._sorted) * share) - 1]
