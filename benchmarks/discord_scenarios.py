"""The rows of the Discord benchmark: the calls of each client, their limits, and the ideal time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from asgi_ratelimit.testing import FakeBucket

__all__ = ["GLOBAL_LIMIT", "LATENCY", "SCENARIOS", "WARMING", "Call", "Scenario", "identity"]

LATENCY = (0.02, 0.06)  # seconds that a request takes, there and back
GLOBAL_LIMIT = 50

SEND = "POST /channels/{channel_id}/messages"
REACT = "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"
METHODS = {"send": "POST", "react": "PUT"}
FIRST = 803_511_102_246_790_000  # a snowflake: @discordjs/rest knows a channel by the number's length

SHARED_HASH = "5bd19d4baa1f9a4a9d4a3e1e8b0c2f61"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client. `name` is the message it is about. For "send" it is the content.

    `start`: seconds from the start of the run. `cancel`: seconds from the start of the call to its cancellation.
    """

    verb: Literal["send", "react"]
    channel: int
    name: int
    start: float = 0.0
    cancel: float | None = None

    @property
    def identity(self) -> str:
        return identity(METHODS[self.verb], self.name)


def identity(method: str, name: object) -> str:
    """The identity of a call on the server's side."""
    return f"{method} {name}"


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One row: `calls` by process, `limited` the seconds that the limits make the last call wait at the least.

    `stop`: seconds from the first request to a global 429 for everything, and for how long. `global_limit`: where
    Discord has raised it, clients with an option for it receive it. `measure`: "extra" shows
    by how much the last call was longer than the longest way there and back.
    """

    name: str
    calls: tuple[tuple[Call, ...], ...]
    limited: float
    limits: Mapping[str, FakeBucket] = field(default_factory=dict)
    stop: tuple[float, float] | None = None
    global_limit: int = GLOBAL_LIMIT
    measure: Literal["makespan", "extra"] = "makespan"
    is_warm: bool = False  # each process has made a call before: its client knows the route's bucket
    quick: bool = False  # part of a quick run

    @property
    def ideal(self) -> float:
        """Seconds from the first arrival to the last answer, for a client that knows every limit beforehand."""
        return self.limited + sum(LATENCY) / 2

    @property
    def bound(self) -> float:
        """Seconds after which a client is ended."""
        return 12 + 3 * self.ideal

    @property
    def awaited(self) -> list[Call]:
        """The calls that are not cancelled."""
        return [call for calls in self.calls for call in calls if call.cancel is None]


def windows(number: int, count: int, seconds: float) -> float:
    """When the last one of `number` is let in by a window that allows so many at once, and then all at once again."""
    return (ceil(number / count) - 1) * seconds


def slides(number: int, count: int, seconds: float) -> float:
    """The same where one more is let in after each part of the window."""
    return max(0, number - count) * seconds / count


def sends(number: int, *, channels: int = 1, first: int = 0) -> tuple[Call, ...]:
    return tuple(Call("send", FIRST + i % channels, FIRST + i) for i in range(first, first + number))


def _fixed(limit: str, *, shared_hash: str | None = None, hidden: bool = False) -> FakeBucket:
    return FakeBucket(limit, window="fixed", hash=shared_hash, hidden=hidden)


WARMING = Call("send", FIRST - 1, FIRST - 1)

SCENARIOS = (
    Scenario("9 at once, 2 per 1 s", (sends(9),), windows(9, 2, 1), {SEND: _fixed("2/1s")}, quick=True),
    Scenario("20 at once, sliding 5 per 2 s", (sends(20),), slides(20, 5, 2), {SEND: FakeBucket("5/2s")}),
    Scenario("9 at once, hidden 2 per 1 s", (sends(9),), windows(9, 2, 1), {SEND: _fixed("2/1s", hidden=True)}),
    Scenario(
        "two routes, one hash, cold: 6 + 6, 5 per 1 s",
        (tuple(Call(verb, FIRST, FIRST + i) for i in range(6) for verb in ("send", "react")),),
        windows(12, 5, 1),
        dict.fromkeys((SEND, REACT), _fixed("5/1s", shared_hash=SHARED_HASH)),
    ),
    Scenario(
        "150 at once, 150 channels of 5 per 5 s, global 50/s",
        (sends(150, channels=150),),
        windows(150, GLOBAL_LIMIT, 1),
        {SEND: _fixed("5/5s")},
        is_warm=True,
        quick=True,
    ),
    Scenario(
        "3 processes of 60, 180 channels of 5 per 5 s, global 50/s",
        tuple(sends(60, channels=180, first=60 * i) for i in range(3)),
        windows(180, GLOBAL_LIMIT, 1),
        {SEND: _fixed("5/5s")},
        is_warm=True,
        quick=True,
    ),
    Scenario(
        "3 processes of 10, one bucket, 5 per 1 s",
        tuple(sends(10, first=10 * i) for i in range(3)),
        windows(30, 5, 1),
        {SEND: _fixed("5/1s")},
        quick=True,
    ),
    Scenario(
        "4000 at once, 200 channels of sliding 5 per 5 s, global 10 000/s",
        (sends(4000, channels=200),),
        slides(20, 5, 5),
        {SEND: FakeBucket("5/5s")},
        global_limit=10_000,
    ),
    Scenario(
        "cancelled during a global 429: the call that drew it, and one of 6 that wait",
        (
            (
                Call("send", FIRST, FIRST),  # after it the client has the bucket
                Call("send", FIRST, FIRST + 1, start=0.3, cancel=0.5),
                Call("send", FIRST, FIRST + 2, start=0.6, cancel=0.2),
                *(Call("send", FIRST, FIRST + i, start=0.6) for i in range(3, 8)),
            ),
        ),
        1.7,
        {SEND: _fixed("20/1s")},
        stop=(0.2, 1.5),
        quick=True,
    ),
    Scenario(
        "extra wait of the call that empties a bucket, 2 per 1 s",
        ((Call("send", FIRST, FIRST), Call("send", FIRST, FIRST + 1, start=0.1)),),
        0.1,
        {SEND: _fixed("2/1s")},
        measure="extra",
        quick=True,
    ),
)
