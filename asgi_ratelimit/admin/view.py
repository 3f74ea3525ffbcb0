"""The state of the page as JSON: the counts of Stats, the limits, and the calls that wait for Discord."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from asgi_ratelimit.observe.snapshot import LimiterCounts, Period, Snapshot
from asgi_ratelimit.store import Store

__all__ = ["DiscordSource", "LimiterCount", "WaitsForDiscord", "check_discord", "state_of_page", "waiting_for_discord"]

_MOST_LIMITERS = 200  # that a page shows
_MOST_KEYS = 15  # of each
_MOST_OUTAGES = 20
_MOST_QUEUES = 50


class LimiterCount(Protocol):
    """What the page is about: Stats, or anything that counts like it."""

    def snapshot(self) -> Snapshot:
        """The counts of this process."""
        ...

    async def share(self, store: Store, /) -> Snapshot:
        """The counts of all processes of the store."""
        ...


@runtime_checkable
class WaitsForDiscord(Protocol):
    """A DiscordClient, a transport or a SyncDiscordClient."""

    @property
    def waiting(self) -> Sequence[Any]:
        """The calls that wait."""
        ...


DiscordSource = WaitsForDiscord | Iterable[WaitsForDiscord] | Callable[[], Iterable[WaitsForDiscord]]


def state_of_page(
    snapshot: Snapshot,
    limits: Mapping[str, Sequence[str]],
    about: Mapping[str, str],
    waiting: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Everything that the page shows. `waiting` is None for a page that is not about Discord."""
    counts = dict(snapshot.limiters)
    for name in limits:
        counts.setdefault(name, LimiterCounts(name))
    busiest_first = sorted(counts.values(), key=lambda one: (-(one.allowed + one.refused), one.name))
    shown = busiest_first[:_MOST_LIMITERS]
    return {
        "time": snapshot.time,
        "processes": snapshot.processes,
        "limiters": [_limiter(one, limits.get(one.name, ()), about.get(one.name)) for one in shown],
        "left_out": max(0, len(counts) - _MOST_LIMITERS),
        "outages": [asdict(outage) for outage in reversed(snapshot.outages[-_MOST_OUTAGES:])],
        "discord": dict(snapshot.discord),
        "waiting": None if waiting is None else list(waiting),
    }


def check_discord(discord: object) -> None:
    """Raises ValueError if it cannot be looked at. What a function returns is seen only later."""
    if callable(discord) or isinstance(discord, WaitsForDiscord):
        return
    is_used_up = isinstance(discord, Iterator)  # by one look
    if is_used_up or not isinstance(discord, Iterable) or not all(isinstance(one, WaitsForDiscord) for one in discord):
        raise ValueError(
            f"discord is a DiscordClient, a list of them, or a function that returns one, not {discord!r:.80}: "
            "write discord=client"
        )


def waiting_for_discord(discord: DiscordSource) -> list[dict[str, Any]]:
    """The calls that wait in all of these clients, the longest wait first."""
    source = discord() if callable(discord) else discord
    clients = [source] if isinstance(source, WaitsForDiscord) else source
    waiting = [asdict(one) for client in clients for one in client.waiting]
    return sorted(waiting, key=lambda one: -float(one["seconds"]))[:_MOST_QUEUES]


_PLAIN = (
    "name", "allowed", "limited", "blocked", "unavailable", "shed", "refused", "gone", "shadow", "shadow_keys",
    "exempt", "near", "cached", "degraded", "waited", "waited_seconds", "escalated", "failed", "in_flight",
    "most_in_flight",
)  # fmt: skip


def _limiter(counts: LimiterCounts, limits: Sequence[str], about: str | None) -> dict[str, Any]:
    return {
        "about": about or ("requests that were shed in an overload" if counts.shed and not limits else ""),
        "log_ins": about is not None,
        **{name: getattr(counts, name) for name in _PLAIN},
        "limits": list(limits),
        "busiest": counts.busiest and {"start": counts.busiest.start, "total": counts.busiest.total},
        "minutes": _columns(counts.minutes),
        "hours": _columns(counts.hours),
        "keys": [asdict(key) for key in counts.keys[:_MOST_KEYS]],
    }


def _columns(periods: Sequence[Period]) -> dict[str, list[float]]:
    """Three lists rather than a list of triples: shorter, and as the chart wants them."""
    return {
        "start": [period.start for period in periods],
        "allowed": [period.allowed for period in periods],
        "refused": [period.refused for period in periods],
    }
