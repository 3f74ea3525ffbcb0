"""Three ways to steer the requests in flight, compared in virtual time: the app of the overload, simulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from asgi_ratelimit.load import LoadShedMiddleware
from asgi_ratelimit.load.baselines import Sums
from asgi_ratelimit.load.controller import Controller
from benchmarks.report import table
from tests.load.simulation import SERVER_S, Phase, Served, Simulation

__all__ = ["sections"]

PHASES: Final = (Phase(20, 5), Phase(750, 20))
MOST: Final = 1_000.0


class InTurns(Controller):
    """The controller of the package."""


class Integral(Controller):
    """The same without its rule about turns."""

    def _set_limits(self) -> None:
        super()._set_limits()
        self.per_turn = 1_000_000


class Gradient(Integral):
    """The limit times baseline / latency, and one queue more."""

    def _steer(self, sums: Sums, loop_is_free: bool) -> None:
        if sums.count:
            gradient = max(0.5, min(1.0, sums.baseline / sums.seconds))
            self._limit = max(1.0, min(MOST, self._limit * gradient + self._headroom))


class Aimd(Integral):
    """One more while requests are refused, and half as many if twice the wanted queue waits."""

    def _steer(self, sums: Sums, loop_is_free: bool) -> None:
        if self._waiting > 2 * self._headroom:
            self._limit = max(1.0, self._limit / 2)
        elif self.is_refusing:
            self._limit = min(MOST, self._limit + 1)


CANDIDATES: Final = {
    "integral, on the queue, in turns (ours)": InTurns,
    "integral, on the queue": Integral,
    "gradient": Gradient,
    "AIMD": Aimd,
}


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    text = (
        "The app of the overload as a simulation: asyncio's own event loop in virtual time, so each run gives the same "
        f"figures. It could serve {1 / (0.004 + SERVER_S):.0f} requests a second and gets 750 for 20 s, all of one "
        "class. Unloaded: 20 a second."
    )
    names = ("", "served per second", "p50, ms", "p99, ms", "p99 from second 1 on", "unloaded p50, p99")
    yield "Controllers of the load", text, table(names, [_row(*candidate) for candidate in CANDIDATES.items()])


def _row(name: str, controller: type[Controller]) -> list[str]:
    middleware = type("Candidate", (LoadShedMiddleware,), {"controller_type": controller})
    served = Simulation(mix=(0, 1), middleware=middleware).run(*PHASES)
    unloaded, loaded = ([one for one in served if one.phase == phase and one.path == "/"] for phase in (0, 1))
    good = sum(one.status == 200 for one in loaded) / PHASES[1].seconds
    later = [one for one in loaded if one.sent >= loaded[0].sent + 1]
    return [
        name,
        f"{good:.0f}",
        _ms(loaded, 0.5),
        _ms(loaded, 0.99),
        _ms(later, 0.99),
        f"{_ms(unloaded, 0.5)}, {_ms(unloaded, 0.99)}",
    ]


def _ms(requests: list[Served], share: float) -> str:
    seconds = sorted(one.seconds for one in requests if one.status == 200)
    return f"{1e3 * seconds[int(share * len(seconds))]:.1f}"
