"""The controller: how many requests may be in flight, steered by how many of them wait.

It is an integral controller on the queue. Every 50 ms it compares the number of requests that wait with the number
that is to wait, and moves the limit by half of the difference. The number that waits follows from Little's law: the
seconds that the requests of a tick took beyond those that they take when nothing waits, per second. The limit stays
between what the throughput needs when nothing waits, and that plus the wanted queue, so it does not wind up.

If requests are refused for longer than a burst takes, it is looked into at once: a queue has built up, or the limit is
too low. Those that have not begun yet are shed then, as far as there are too many.

A gradient controller, which multiplies the limit by baseline / latency, rests at the same point, but takes more steps
to get there when an overload begins. AIMD needs no baseline. It has no resting point: it climbs until too many wait,
and falls by half. `python -m benchmarks --only controllers` measures them.
"""

from __future__ import annotations

import math
from typing import Final

from asgi_ratelimit.load.baselines import Baselines, Sums
from asgi_ratelimit.load.classes import Demand
from asgi_ratelimit.load.dips import Dips

__all__ = ["Controller"]

_TICK_NS: Final = 50_000_000
_LONGEST_TICK_NS: Final = 2_000_000_000  # of an app with requests as long
_EARLIEST_NS: Final = 10_000_000  # of a tick that begins an overload
_LASTING_NS: Final = 15_000_000  # between the first and the last refusal of more than a burst
_PAUSE_NS: Final = 100_000_000  # without a refusal, after which the next one is the first
_PATIENCE_NS: Final = 500_000_000  # without enough samples
_FEWEST: Final = 5  # samples of a tick
_GAIN: Final = 0.5  # of the difference between the queue that is wanted and the one that is there
_EXCESS_S: Final = 0.2  # the time constants of what is averaged
_NEED_S: Final = 0.3
_PEAK_S: Final = 10.0
_NOISE: Final = 0.06  # of the excess
_WANTED_EXCESS: Final = 0.5  # from this excess on the queue is as short as can be
_BURST_S: Final = 0.05  # of the processor's time, that a burst may take while there is no overload
_BURST: Final = (4.0, 256.0)  # the fewest and the most requests of such a burst
_TURN: Final = 0.08  # of a burst begin in one turn of the loop
_UNKNOWN_BURST: Final = 32.0  # as long as nothing is known of the app
_LOOSER: Final = 1.5  # steps of the slack, which grows if requests are refused though nothing waits
_TIGHTER: Final = 0.7
_LOOSEST: Final = 4.0
_LEAST_QUEUE: Final = 1.3  # requests that wait, so that the app always has something to do
_LEAST_ADDED: Final = 6.0  # requests that more important classes may add, since theirs come at random
_LEAST_WAITING: Final = 2.0  # beyond what is usually in flight, from which on requests wait for their turn
_MOST: Final = 100_000.0
_LONG_NS: Final = 1_000_000_000  # a request that takes longer than this, and than 8 others, is left out
_LONG_TIMES: Final = 8.0
_FREE_LAG_S: Final = 0.005  # a loop that is less late than this does not hold anything back
_IDLE_LAG_S: Final = 0.001  # and in one that is less late than this nothing waits
_DIP_TICK_NS: Final = 10_000_000


class Controller:
    """The requests in flight, and how many there may be.

    in_flight: how many there are
    limit: how many there may be, except for what is more important than the class that is shed
    is_overload: whether more comes than can be served
    free_below: with fewer in flight than this a request comes in and begins at once
    per_turn: how many others may begin in one turn of the event loop
    excess: the share of the requests that comes beyond what ends; about 0 without an overload
    long_ns: a request that is older than this is left out
    """

    def __init__(self, now_ns: int, worked_s: float) -> None:
        self.in_flight = 0
        self.excess = 0.0
        self.demand = Demand()
        self.baselines = Baselines()
        self.long_ns = _LONG_NS
        self._arrived = self._ended = self._refused = self._peak = 0
        self._limit, self._headroom, self._need = _UNKNOWN_BURST, 1.0, 0.0
        self._burst, self._recent_peak, self._usual_s = _UNKNOWN_BURST, 0.0, 0.0
        self._waiting = self._usually_waiting = 0.0
        self.is_overload, self._slack = False, 1.0
        self._first_refusal = self._last_refusal = now_ns - 2 * _PAUSE_NS
        self._calm_below = 1.0
        self._dips = Dips(self.baselines)
        self._since, self._worked_s, self.tick_at = now_ns, worked_s, now_ns + _TICK_NS
        self._set_limits()

    def enter(self) -> bool:
        """One more is in flight. Whether it finds so few others that nothing waits."""
        before = self.in_flight
        self.in_flight = before + 1
        self._arrived += 1
        if before >= self._peak:
            self._peak = before + 1
        return before < self._calm_below

    def leave(self) -> bool:
        """One less is in flight. Whether there were so few that nothing waits."""
        before = self.in_flight
        self.in_flight = before - 1
        self._ended += 1
        return before <= self._calm_below

    @property
    def has_room_for_all(self) -> bool:
        """Whether a request may come in, of any class."""
        return not self.is_overload and self.in_flight < self.limit

    def has_room(self, one: int | None) -> bool:
        """Whether a request of this class may come in. None: one that is never shed."""
        if self.has_room_for_all:
            return True
        self.demand.count(one or 0)
        if one is None:
            return True
        marginal = self.demand.marginal
        if one == 0 < marginal:
            return self.in_flight < self._most
        if one > marginal:
            return self.in_flight < self._calm_below
        return self.in_flight < self.limit + (self._headroom if one < marginal else 0.0)

    def refuse(self, now_ns: int) -> None:
        """Count a request that was refused. If they are refused for longer than a burst, it is looked into at once."""
        self._arrived += 1
        self._refused += 1
        if now_ns - self._last_refusal > _PAUSE_NS:
            self._first_refusal = now_ns
        self._last_refusal = now_ns
        if not self.is_overload and self._is_lasting:
            self.tick_at = min(self.tick_at, max(now_ns, self._since + _EARLIEST_NS))

    def withdraw(self) -> None:
        """One of those in flight is refused, before it has begun."""
        self.in_flight -= 1
        self._refused += 1

    @property
    def surplus(self) -> int:
        """How many more are in flight than may be in an overload; 0 without one, or in a burst."""
        return self.in_flight - int(self.limit + self._headroom) if self.is_overload and self._is_lasting else 0

    @property
    def _is_lasting(self) -> bool:
        return self._last_refusal - self._first_refusal >= _LASTING_NS

    @property
    def is_refusing(self) -> bool:
        """Whether a request was refused in this tick."""
        return self._refused > 0

    def tick(self, now_ns: int, worked_s: float, lag_s: float) -> None:
        """Steer. Called when `tick_at` has passed.

        worked_s: the processor time of this process, in all
        lag_s: how late the event loop is
        """
        elapsed_ns = now_ns - self._since
        loop_is_free = max(lag_s, (now_ns - self.tick_at) / 1e9) < _FREE_LAG_S
        if self._is_too_early(elapsed_ns, loop_is_free):
            self.tick_at = now_ns + _TICK_NS
            return
        sums, seconds = self.baselines.sums(), elapsed_ns / 1e9
        self._measure(sums, seconds, worked_s - self._worked_s)
        is_dip = self._dips.is_running
        if is_dip:
            self._dips.tick(now_ns, sums, usual_s=self._usual_s, loop_is_idle=lag_s < _IDLE_LAG_S)
        else:
            self._steer(sums, loop_is_free)
            present_s = sums.seconds / sums.count if sums.count else self._usual_s
            is_over = self.excess <= _NOISE
            self._dips.plan(now_ns, is_refusing=self.is_refusing, is_over=is_over, seconds=present_s)
        if self.is_overload:
            self.demand.tick(self._ended, seconds)
        else:
            self.demand.clear()
        self.baselines.end_tick(learn=not is_dip and not self._refused and self.excess <= _NOISE)
        self._set_limits()
        self._begin(now_ns, worked_s)

    def _is_too_early(self, elapsed_ns: int, loop_is_free: bool) -> bool:
        """Whether there are too few samples, and nothing that cannot wait for more."""
        is_urgent = self._dips.is_running or (self._refused > 0 and loop_is_free)
        return not is_urgent and self.baselines.count < _FEWEST and elapsed_ns < _PATIENCE_NS

    def _begin(self, now_ns: int, worked_s: float) -> None:
        """Begin the next tick. A limit shows its effect when the requests that it let in have ended."""
        self._arrived = self._ended = self._refused = 0
        self._peak = self.in_flight
        self._since, self._worked_s = now_ns, worked_s
        tick_ns = min(_LONGEST_TICK_NS, max(_TICK_NS, int(self._usual_s * 1e9)))
        self.tick_at = now_ns + (_DIP_TICK_NS if self._dips.is_running else tick_ns)

    def _measure(self, sums: Sums, seconds: float, worked_s: float) -> None:
        excess = max(-1.0, 1 - self._ended / self._arrived) if self._arrived else 0.0
        self.excess += _share(seconds, max(_EXCESS_S, self._usual_s)) * (excess - self.excess)
        self._waiting = (sums.seconds - sums.baseline) / seconds
        slow_s = max(_NEED_S, 2 * self._usual_s)
        self._usually_waiting += _share(seconds, slow_s) * (self._waiting - self._usually_waiting)
        self._need += _share(seconds, slow_s) * (sums.baseline / seconds - self._need)
        self._headroom = max(_LEAST_QUEUE, 0.5 * math.sqrt(self._need), 0.1 * self._need)
        self._recent_peak = max(self._peak, self._recent_peak * (1 - _share(seconds, _PEAK_S)))
        if sums.count:
            usual = sums.baseline / sums.count
            self._usual_s += (0.2 if self._usual_s else 1.0) * (usual - self._usual_s)
            self.long_ns = max(_LONG_NS, int(_LONG_TIMES * self._usual_s * 1e9))
            burst = min(_BURST[1], max(_BURST[0], _BURST_S * sums.count / max(worked_s, 1e-6)))
            self._burst += _share(seconds, _NEED_S) * (burst - self._burst)

    def _steer(self, sums: Sums, loop_is_free: bool) -> None:
        waits = max(self._waiting, self._usually_waiting) > 0.5 * self._headroom
        # While an app gets busier, more comes than ends as well, but does not wait.
        self.is_overload = self.excess > _NOISE and (waits or self.is_overload)
        is_held_back = self._refused > 0 and loop_is_free and self._waiting <= 0.1 * self._need
        if is_held_back:
            self._limit = min(_MOST, (1.25 if self.is_overload else 2.0) * self._limit)
        elif sums.count:
            wanted = self._wanted()
            steered = self._limit + _GAIN * (wanted - self._waiting)
            self._limit = max(1.0, min(steered, self._need + wanted))
        self._slack = min(_LOOSEST, _LOOSER * self._slack) if is_held_back else max(1.0, _TIGHTER * self._slack)

    def _wanted(self) -> float:
        """How many requests are to wait: the fewer, the more are to be refused anyway."""
        most = max(self._burst, 2 * self._recent_peak)
        if not self.is_overload:
            return most
        return min(most, self._headroom * max(self._slack, _WANTED_EXCESS / (self.excess - _NOISE)))

    def _set_limits(self) -> None:
        self._calm_below = max(1.0, self._need / 2)
        self._most = max(self._peak, self._need + self._wanted()) + max(_LEAST_ADDED, self._need)
        self.limit = self._calm_below if self._dips.is_running else self._limit
        usual = self._need + max(_LEAST_WAITING, 2 * math.sqrt(self._need))
        self.free_below = 0.0 if self.is_overload else min(self.limit, usual)
        self.per_turn = max(1, int(_TURN * self._burst))


def _share(seconds: float, time_constant: float) -> float:
    return 1 - math.exp(-seconds / time_constant)
