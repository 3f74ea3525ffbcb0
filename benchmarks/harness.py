"""The harness: in each round every candidate takes one turn, so that a noisy moment hits them all. Medians count."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

__all__ = ["Score", "Turn", "compete", "enter", "ns_per_call"]

Turn = Callable[[], Awaitable[float]]  # plays once and returns ns per operation


@dataclass(frozen=True, slots=True)
class Score:
    """The times of one candidate, in ns per operation and round. `failure` is why there are none."""

    name: str
    rounds: tuple[float, ...] = ()
    failure: str = ""

    @property
    def ns(self) -> float:
        return median(self.rounds)

    def times(self, other: Score) -> float:
        """How many times as long as the other, by the median over the rounds that they shared."""
        return median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))

    def added(self, bare: Score) -> float:
        """How many ns more than the other, by the median over the rounds that they shared."""
        return median(mine - theirs for mine, theirs in zip(self.rounds, bare.rounds, strict=True))


async def enter(builders: Mapping[str, Callable[[], Awaitable[Turn]]]) -> dict[str, Turn | str]:
    """Build every candidate; in place of one that cannot be built, the reason."""
    entered: dict[str, Turn | str] = {}
    for name, build in builders.items():
        try:
            entered[name] = await build()
        except Exception as error:  # a peer that does not run here is reported, not left out
            entered[name] = f"{type(error).__name__}: {error}"
    return entered


async def compete(entered: Mapping[str, Turn | str], rounds: int) -> dict[str, Score]:
    """Play the rounds. Each starts with another candidate. Older objects are hidden from the collector."""
    results: dict[str, list[float]] = {name: [] for name in entered}
    failures = {name: turn for name, turn in entered.items() if isinstance(turn, str)}
    gc.collect()
    gc.freeze()
    for number in range(-1, rounds):  # the first round only warms up
        names = [name for name in entered if name not in failures]
        start = number % len(names)
        for name in names[start:] + names[:start]:
            try:
                needed = await entered[name]()  # type: ignore[operator]
            except Exception as error:
                failures[name] = f"{type(error).__name__}: {error}"
            else:
                results[name] += [needed] if number >= 0 else []
    gc.unfreeze()
    return {
        name: Score(name, () if name in failures else tuple(results[name]), failures.get(name, "")) for name in results
    }


async def ns_per_call(play: Awaitable[object], calls: int) -> float:
    """The processor time per call, where awaiting `play` once makes `calls` calls. Other programs do not count."""
    gc.collect(0)
    started = time.process_time_ns()
    await play
    return (time.process_time_ns() - started) / calls
