"""Counts as tables for a terminal of 80 columns, and with fewer columns for a narrow one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asgi_ratelimit.cli.screen import duration, rows_of
from asgi_ratelimit.observe import LimiterCounts, Outage, Snapshot
from asgi_ratelimit.shown import one_line

__all__ = ["snapshot_view"]

_HEAD: Final = ("limiter", "/s", "minute", "refused", "all", "refused", "share", "busiest")
_NUMBERS: Final = _HEAD[1:-1]
_ESSENTIAL: Final = (0, 1, 4, 5)  # of the columns, for a terminal on which not all have room
_NARROW: Final = 64
_LONGEST: Final = 60  # characters of a name or key: users may choose them
_MOST_KEYS, _MOST_OUTAGES = 5, 3
_NEWEST: Final = 10  # events of Discord


def snapshot_view(
    snapshot: Snapshot, former: Snapshot | None = None, most: int = 20, *, width: int = 80
) -> RenderableType:
    """Tables of the counts. `former`: an earlier snapshot, for the calls per second since then."""
    counts = sorted(snapshot.limiters.values(), key=lambda one: (-_this_minute(one)[0], -_total(one), one.name))
    parts: list[RenderableType] = [Text(_headline(snapshot), "bold")]
    if counts:
        parts += [Text(), _limiters(counts[:most], _rates(snapshot, former), width)]
    if len(counts) > most:
        parts.append(Text(f"and {len(counts) - most} more (--limiters)"))
    notes = [note for one in counts[:most] if (note := _note(one))]
    keys = _heaviest(counts)
    parts += [Text(), keys] if keys else []
    lines = [*notes, *map(_outage, snapshot.outages[-_MOST_OUTAGES:]), *_discord(snapshot)]
    if lines:
        parts += [Text(), *(Text(one_line(line)) for line in lines)]
    return Group(*parts)


def _headline(snapshot: Snapshot) -> str:
    processes = "1 process" if snapshot.processes == 1 else f"{snapshot.processes} processes"
    return f"{processes}, {_clock(snapshot.time, seconds=True)}"


def _limiters(counts: Sequence[LimiterCounts], rates: dict[str, float], width: int) -> Table:
    columns = _ESSENTIAL if width < _NARROW else range(len(_HEAD))
    rows = [_row(one, rates.get(one.name)) for one in counts]
    head, *shown = ([row[column] for column in columns] for row in (_HEAD, *rows))
    return rows_of(head, shown, numbers=_NUMBERS)


def _row(counts: LimiterCounts, rate: float | None) -> list[str]:
    calls, refused = _this_minute(counts)
    total = _total(counts)
    return [
        _short(counts.name),
        "" if rate is None else f"{rate:,.1f}",
        f"{calls:,}",
        f"{refused:,}",
        f"{total:,}",
        f"{counts.refused:,}",
        f"{counts.refused / total:.1%}" if total else "",
        f"{counts.busiest.total:,} at {_clock(counts.busiest.start)}" if counts.busiest else "",
    ]


def _total(counts: LimiterCounts) -> int:
    """All decisions. Requests that are exempt are none."""
    return counts.allowed + counts.shadow + counts.refused


def _this_minute(counts: LimiterCounts) -> tuple[int, int]:
    last = counts.minutes[-1] if counts.minutes else None
    return (last.total, last.refused) if last else (0, 0)


def _rates(snapshot: Snapshot, former: Snapshot | None) -> dict[str, float]:
    seconds = snapshot.time - former.time if former else 0.0
    if former is None or seconds <= 0:
        return {}
    before = {name: _total(counts) for name, counts in former.limiters.items()}
    return {
        name: max(0, _total(counts) - before.get(name, _total(counts))) / seconds
        for name, counts in snapshot.limiters.items()
    }


def _heaviest(counts: Iterable[LimiterCounts]) -> Table | None:
    """The keys with the most decisions, of all limiters."""
    keys = [(one.name, key) for one in counts for key in one.keys]
    if not keys:
        return None
    keys.sort(key=lambda pair: -(pair[1].allowed + pair[1].refused))
    rows = [[_short(key.key), _short(name), f"{key.allowed:,}", f"{key.refused:,}"] for name, key in keys[:_MOST_KEYS]]
    return rows_of(("heaviest keys", "limiter", "allowed", "refused"), rows, numbers=("allowed", "refused"))


def _note(counts: LimiterCounts) -> str:
    """What has no column, of a limiter that has it."""
    said = [
        f"{count:,} {what}"
        for count, what in (
            (counts.blocked, "blocked"),
            (counts.escalated, "blocks begun after many refusals"),
            (counts.failed, "failed log-ins"),
            (counts.unavailable, "answered with 503"),
            (counts.shed, "shed under load"),
            (counts.degraded, "decided without the store"),
            (counts.near, "near the limit"),
            (counts.exempt, "exempt"),
            (counts.waited, "held back and let in"),
            (counts.gone, "left without an answer"),
            (counts.in_flight, "in flight"),
        )
        if count
    ]
    if counts.shadow:
        said.append(f"shadow mode would have refused {counts.shadow:,} calls of {counts.shadow_keys:,} keys")
    return f"{_short(counts.name)}: {', '.join(said)}" if said else ""


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _outage(outage: Outage) -> str:
    since = _clock(outage.start, seconds=True)
    if outage.seconds is None:
        return f"{outage.node} is down since {since}: {outage.cause}"
    decided = f", {outage.checks:,} checks were decided without it" if outage.checks else ""
    return f"{outage.node} was down at {since} for {duration(outage.seconds)}: {outage.cause}{decided}"


def _discord(snapshot: Snapshot) -> list[str]:
    counted = sorted(snapshot.discord.items(), key=lambda pair: -pair[1])[:_NEWEST]
    return [f"Discord: {', '.join(f'{count:,} {kind}' for kind, count in counted)}"] if counted else []


def _clock(moment: float, *, seconds: bool = False) -> str:
    """The time of day, here."""
    try:
        return datetime.fromtimestamp(moment).strftime("%H:%M:%S" if seconds else "%H:%M")
    except (OverflowError, OSError, ValueError):
        return "?"
