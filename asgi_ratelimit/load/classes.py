"""The classes of requests, by their importance: which of them have to be shed."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from itertools import accumulate
from typing import Any, Final

from starlette.types import Scope

from asgi_ratelimit.inbound.options import check_call, connection
from asgi_ratelimit.shown import shown
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["CLASSES", "USUAL", "Demand", "PriorityFunction", "PrioritySource"]

CLASSES: Final = 4  # 0 is the most important one
USUAL: Final = 1  # of a request without a class
_TOO_MANY: Final = 1.25  # times what the app serves
_SECONDS: Final = 0.5  # the time constant of the rates

PriorityFunction = Callable[[Any], int | Awaitable[int]]


class Demand:
    """How much of what the app serves each class wants, counted while there is an overload.

    marginal: the class of which some requests are shed. More important ones are served, as far as there is room; less
        important ones fill what remains
    """

    def __init__(self) -> None:
        self.marginal = CLASSES - 1
        self._arrived, self._rates = [0] * CLASSES, [0.0] * CLASSES
        self._served = 0.0

    def count(self, one: int) -> None:
        """A request of this class has come."""
        self._arrived[one] += 1

    def tick(self, ended: int, seconds: float) -> None:
        """So many requests have ended, in so many seconds of an overload."""
        kept = math.exp(-seconds / _SECONDS)
        self._served = self._served * kept + ended
        self._rates = [rate * kept + arrived for rate, arrived in zip(self._rates, self._arrived, strict=True)]
        sums = accumulate(self._rates)
        self.marginal = next((one for one, sum_ in enumerate(sums) if sum_ >= _TOO_MANY * self._served), CLASSES - 1)
        self._arrived = [0] * CLASSES

    def clear(self) -> None:
        """There is no overload, and the requests of this tick do not count."""
        self.marginal = CLASSES - 1
        self._arrived = [0] * CLASSES


class PrioritySource:
    """The class of a request, by the function of the user's. Raises ValueError if it is no function of a connection."""

    def __init__(self, function: PriorityFunction | None, warn_once: WarnOnce) -> None:
        if function is not None:
            if not callable(function):
                raise ValueError(f"priority is a function such as `def priority(conn)`, not {function!r}")
            check_call("priority", function, "conn")
        self._function, self._warn_once = function, warn_once

    async def of(self, scope: Scope) -> int:
        """From 0, the most important, to 3. Higher numbers count as 3, and anything else as 1, with a warning."""
        if self._function is None:
            return USUAL
        answer = self._function(connection(scope))
        chosen: object = await answer if isawaitable(answer) else answer
        if isinstance(chosen, int) and not isinstance(chosen, bool) and chosen >= 0:
            return min(chosen, CLASSES - 1)
        self._warn_once.warn("ARL206", f"it must return 0 (the most important), 1, 2 or 3, not {shown(chosen)}")
        return USUAL
