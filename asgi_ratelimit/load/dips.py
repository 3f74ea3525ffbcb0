"""Dips: moments of an overload with so few requests in flight that nothing waits, to measure what they take then."""

from __future__ import annotations

from typing import Final

from asgi_ratelimit.load.baselines import Baselines, Sums

__all__ = ["Dips"]

_FIRST_NS: Final = 500_000_000  # after the first request that is refused
_NEXT_NS: Final = 10_000_000_000
_RETRY_NS: Final = 2_000_000_000  # after a dip that has measured nothing
_TIMES: Final = 50.0  # a dip that has found the baselines right is followed by so many requests' time without one
_REQUESTS: Final = 3.5  # it lasts as long as so many requests, one after the other
_LEAST_NS: Final = 50_000_000
_SAMPLES: Final = 3  # are enough
_RIGHT: Final = 1.25  # a baseline that is off by less than this factor stays, unless nothing can have waited


class Dips:
    """The present dip, or when the next one is to come.

    is_running: whether there is one now
    """

    def __init__(self, baselines: Baselines) -> None:
        self.is_running = False
        self._baselines = baselines
        self._at_ns = 0  # 0: none is planned
        self._until_ns = 0
        self._count, self._seconds, self._baseline = 0, 0.0, 0.0

    def plan(self, now_ns: int, *, is_refusing: bool, is_over: bool, seconds: float) -> None:
        """Plan the first dip of an overload, or begin the one that is due. `seconds`: what a request takes now."""
        if is_refusing and not self._at_ns:
            self._at_ns = now_ns + (_FIRST_NS if self._baselines.is_sure else 1)
        elif is_over:
            self._at_ns = 0
        elif self._at_ns and now_ns >= self._at_ns:
            self.is_running, self._until_ns = True, now_ns + max(_LEAST_NS, int(_REQUESTS * seconds * 1e9))
            self._count, self._seconds, self._baseline = 0, 0.0, 0.0

    def tick(self, now_ns: int, sums: Sums, *, usual_s: float, loop_is_idle: bool) -> None:
        """Count the samples of a tick. If they are enough, or the time is over, it ends and corrects the baselines."""
        self._count += sums.calm_count
        self._seconds += sums.calm_seconds
        self._baseline += sums.calm_baseline
        if now_ns < self._until_ns and self._count < _SAMPLES:
            return
        self.is_running = False
        ratio = self._seconds / self._baseline if self._baseline > 0 else 0.0
        if ratio and (loop_is_idle or not 1 / _RIGHT < ratio < _RIGHT):
            self._baselines.correct(ratio, is_exact=loop_is_idle)
        self._at_ns = now_ns + _pause_ns(ratio, usual_s)


def _pause_ns(ratio: float, usual_s: float) -> int:
    """How long it is to the next dip, after one that has measured this ratio; 0: nothing."""
    if not ratio:
        return _RETRY_NS
    return _FIRST_NS if ratio > _RIGHT else max(_NEXT_NS, int(_TIMES * usual_s * 1e9))
