"""The part of the page about overload, as a table, and its plot for the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Score
from benchmarks.overload import OVERLOAD, UNLOADED, Run, added, best, measure
from benchmarks.overload_app import BARE, SHEDDING
from benchmarks.report import table

__all__ = ["sections"]

PLOT = Path(__file__).parents[1] / "docs" / "assets" / "overload.svg"
STEP_S = 0.5  # of the plot
COLOURS = {BARE: "#c2410c", SHEDDING: "#3f51b5"}


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    seconds = 5.0 if quick else 20.0
    most = best(2.0 if quick else 5.0)
    runs = [measure(name, 3 * most, seconds) for name in (BARE, SHEDDING)]
    scores = asyncio.run(added(5 if quick else 31, 2_000))
    if not quick:
        _plot(runs, most)
    text = (
        f"uvicorn with one worker serves an app that takes 4 ms of processor and 10 ms of waiting per request. At its "
        f"best the bare app serves {most:.0f} requests a second. Then it gets three times as many for {seconds:.0f} s, "
        "at random moments, from another process whose clients leave after 3 s. 5 % of the requests are of class 0, "
        "15 % of class 1, 80 % of class 2; 2 % are health checks, which count for themselves. Unloaded: 20 a second. "
        "Latencies are those that clients see. Normal: everything is served, in at most twice the p99 of before. "
        "Delayed: the seconds of the whole run in which other processes of the machine kept the server from working."
    )
    yield "Overload", text, f"{_table(runs, most)}\n\n{_summary(scores)}"


def _table(runs: Sequence[Run], most: float) -> str:
    names = (
        "", "goodput, of its best", "p99, ms", "p99 from second 1 on", "p50, ms", "unloaded p50, p99",
        "health checks", "class 0", "class 1", "class 2", "normal after", "delayed",
    )  # fmt: skip
    return table(names, [_cells(run, most) for run in runs])


def _cells(run: Run, most: float) -> list[str]:
    goodput = run.goodput(OVERLOAD)
    shares = [f"{100 * run.served(OVERLOAD, one):.1f} %" for one in (None, 0, 1, 2)]
    return [
        run.name,
        f"{goodput:.0f}/s, {100 * goodput / most:.0f} %",
        f"{run.percentile(OVERLOAD, 0.99):.1f}",
        f"{run.percentile(OVERLOAD, 0.99, after=1):.1f}",
        f"{run.percentile(OVERLOAD, 0.5):.1f}",
        f"{run.percentile(UNLOADED, 0.5):.1f}, {run.percentile(UNLOADED, 0.99):.1f}",
        *shares,
        f"{run.seconds_to_normal():.1f} s",
        f"{run.delayed:.2f} s",
    ]


def _summary(scores: dict[str, Score]) -> str:
    bare, ours = scores[BARE], scores[SHEDDING]
    if bare.failure or ours.failure:
        return f"What it adds was not measured: {bare.failure or ours.failure}"
    return (
        f"Without load the middleware adds {ours.added(bare) / 1e3:.2f} µs to a request of a Starlette app, called in "
        "process as a server would call it."
    )


def _plot(runs: Sequence[Run], most: float) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "overload"
    figure = Figure(figsize=(8, 6), layout="constrained")
    good, slow, shed = figure.subplots(3, 1, sharex=True)
    for run in runs:
        colour, times, bins = COLOURS[run.name], *_bins(run)
        good.plot(times, [len(each) / STEP_S for each in bins], color=colour, label=run.name)
        slow.plot(times, [1e3 * max(each, default=float("nan")) for each in bins], color=colour)
        shed.plot(times, _health(run, len(times)), color=colour)
    good.axhline(most, color="grey", linewidth=0.8, linestyle=":", label="the best of the bare app")
    good.set(ylabel="served per second", ylim=(0, None))
    slow.set(ylabel="slowest served, ms", yscale="log")
    shed.set(ylabel="health checks and\nclass 0 served, %", xlabel="seconds", ylim=(-5, 105))
    for axes in (good, slow, shed):
        axes.axvspan(runs[0].start(OVERLOAD), runs[0].start(OVERLOAD + 1), color="grey", alpha=0.12, linewidth=0)
        axes.grid(alpha=0.3)
    good.legend(loc="upper left", fontsize="small")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


def _bins(run: Run) -> tuple[list[float], list[list[float]]]:
    """The latencies of what was answered in each step of time."""
    number = int(sum(phase.seconds for phase in run.phases) / STEP_S)
    bins: list[list[float]] = [[] for _ in range(number)]
    for one in run.sent:
        place = int((one.at + one.seconds) / STEP_S)
        if one.status == 200 and not one.is_health_check and place < number:
            bins[place].append(one.seconds)
    return [step * STEP_S for step in range(number)], bins


def _health(run: Run, number: int) -> list[float]:
    """The share of the health checks and of the most important class that was served, by the time of sending."""
    asked: list[list[bool]] = [[] for _ in range(number)]
    for one in run.sent:
        if one.is_health_check or one.priority == 0:
            asked[int(one.at / STEP_S)].append(one.status == 200)
    return [100 * sum(each) / len(each) if each else float("nan") for each in asked]
