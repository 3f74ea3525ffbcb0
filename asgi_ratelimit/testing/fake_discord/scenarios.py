"""Scenarios by which clients of Discord's API are measured: their calls, their limits, and the ideal time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal
from urllib.parse import quote

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.testing.fake_discord.app import FakeDiscord
from asgi_ratelimit.testing.fake_discord.buckets import FakeBucket
from asgi_ratelimit.testing.fake_discord.record import LoggedRequest

__all__ = ["GLOBAL_LIMIT", "LATENCY", "SCENARIOS", "WARMING", "Call", "Scenario", "identity_of", "is_done"]

LATENCY = (0.02, 0.06)  # seconds that a request takes, there and back
GLOBAL_LIMIT = 50

SEND = "POST /channels/{channel_id}/messages"
REACT = "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"
DELETE = "DELETE /channels/{channel_id}/messages/{message_id}"
EMOJI = "👍"
SEED = 7
FIRST = 803_511_102_246_790_000  # a snowflake: @discordjs/rest knows a channel by the number's length

SHARED_HASH = "5bd19d4baa1f9a4a9d4a3e1e8b0c2f61"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client. `name` is the message it is about, for "send" the content, for "defer" the interaction.

    `start`: seconds from the start of the run. `cancel`: seconds from the start of the call to its cancellation.
    """

    verb: Literal["send", "react", "delete", "defer"]
    channel: int
    name: int
    start: float = 0.0
    cancel: float | None = None

    @property
    def identity(self) -> str:
        """What the server knows it by."""
        return f"{self.method} {self.name}"

    @property
    def method(self) -> str:
        return _METHODS[self.verb]

    @property
    def path(self) -> str:
        return _PATHS[self.verb].format(channel=self.channel, name=self.name, emoji=EMOJI)

    def as_json(self) -> dict[str, Any]:
        """The request that a client is to make, for whoever writes it. Names of emojis are encoded in its path."""
        bodies = {"send": {"content": str(self.name)}, "defer": {"type": 5}}
        body = {"json": bodies[self.verb]} if self.verb in bodies else {}
        times = {"start": self.start, "cancel": self.cancel}
        return {"method": self.method, "path": quote(self.path, safe="/@"), **body, **times}


_METHODS = {"send": "POST", "react": "PUT", "delete": "DELETE", "defer": "POST"}
_MESSAGE = "/channels/{channel}/messages/{name}"
_PATHS = {
    "send": "/channels/{channel}/messages",
    "react": _MESSAGE + "/reactions/{emoji}/@me",
    "delete": _MESSAGE,
    "defer": "/interactions/{name}/aW50ZXJhY3Rpb246{name}/callback",  # a token as Discord's begin
}


def identity_of(seen: LoggedRequest) -> str:
    """The identity of the call that this request belongs to."""
    segments = [*seen.path.split("/"), "", "", ""]
    name = segments[2] if segments[1] == "interactions" else seen.json.get("content") or segments[4]
    return f"{seen.method} {name}"


def is_done(seen: LoggedRequest) -> bool:
    """Whether it was carried out. To delete what is gone already has nothing left to do."""
    return 200 <= seen.status < 300 or (seen.method, seen.status) == ("DELETE", 404)


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """`calls` by process, `limited` the seconds that the limits make the last call wait at the least.

    key, name: its name in a command, and in a table
    stop: seconds from the first request to a global 429 for everything, interactions included, and for how long
    gone: the messages that are deleted already
    slow: seconds that the first answer takes, though its message is there at once
    global_limit: where Discord has raised it, clients with an option for it receive it
    measure: "extra" shows by how much the last call was longer than the longest way there and back
    """

    key: str
    name: str
    calls: tuple[tuple[Call, ...], ...]
    limited: float
    limits: Mapping[str, FakeBucket | list[FakeBucket]] = field(default_factory=dict)
    stop: tuple[float, float] | None = None
    slow: float = 0.0
    gone: tuple[int, ...] = ()
    global_limit: int = GLOBAL_LIMIT
    measure: Literal["makespan", "extra"] = "makespan"
    is_warm: bool = False  # each process has made a call before: its client knows the route's bucket
    quick: bool = False  # part of a quick run
    is_row: bool = True  # of the benchmark, whose clients have methods for all of its calls

    @property
    def ideal(self) -> float:
        """Seconds from the first arrival to the last answer, for a client that knows every limit beforehand."""
        return max(self.limited, self.slow) + sum(LATENCY) / 2

    @property
    def bound(self) -> float:
        """Seconds after which a client is ended."""
        return 12 + 3 * self.ideal

    def new_fake(self, clock: Clock | None = None) -> FakeDiscord:
        fake = FakeDiscord(self.limits, global_limit=self.global_limit, latency=LATENCY, seed=SEED, clock=clock)
        if self.slow:
            fake.slow(self.slow, route=SEND)
        for message in self.gone:
            fake.delete_message(message)
        return fake

    def all_calls(self) -> Iterator[Call]:
        return (call for calls in self.calls for call in calls)

    @property
    def awaited(self) -> list[Call]:
        """The calls that are not cancelled."""
        return [call for call in self.all_calls() if call.cancel is None]


def windows(number: int, count: int, seconds: float) -> float:
    """When the last one of `number` is let in by a window that allows so many at once, and then all at once again."""
    return (ceil(number / count) - 1) * seconds


def slides(number: int, count: int, seconds: float) -> float:
    """The same where one more is let in after each part of the window."""
    return max(0, number - count) * seconds / count


def sends(number: int, *, channels: int = 1, first: int = 0) -> tuple[Call, ...]:
    return tuple(Call("send", FIRST + i % channels, FIRST + i) for i in range(first, first + number))


def _fixed(limit: str, **more: Any) -> FakeBucket:
    return FakeBucket(limit, window="fixed", **more)


WARMING = Call("send", FIRST - 1, FIRST - 1)

_ALL = (
    Scenario("bucket", "9 at once, 2 per 1 s", (sends(9),), windows(9, 2, 1), {SEND: _fixed("2/1s")}, quick=True),
    Scenario("sliding", "20 at once, sliding 5 per 2 s", (sends(20),), slides(20, 5, 2), {SEND: FakeBucket("5/2s")}),
    Scenario(
        "hidden", "9 at once, hidden 2 per 1 s", (sends(9),), windows(9, 2, 1), {SEND: _fixed("2/1s", hidden=True)}
    ),
    Scenario(
        "routes",
        "two routes, one hash, cold: 6 + 6, 5 per 1 s",
        (tuple(Call(verb, FIRST, FIRST + i) for i in range(6) for verb in ("send", "react")),),
        windows(12, 5, 1),
        dict.fromkeys((SEND, REACT), _fixed("5/1s", hash=SHARED_HASH)),
    ),
    Scenario(
        "own",
        "two routes, one hash, each with a limit of its own: 12 + 12, 5 per 1 s",
        (tuple(Call(verb, FIRST, FIRST + i) for i in range(12) for verb in ("send", "react")),),
        windows(12, 5, 1),
        dict.fromkeys((SEND, REACT), _fixed("5/1s", hash=SHARED_HASH, own=True)),
    ),
    Scenario(
        "global",
        "150 at once, 150 channels of 5 per 5 s, global 50/s",
        (sends(150, channels=150),),
        windows(150, GLOBAL_LIMIT, 1),
        {SEND: _fixed("5/5s")},
        is_warm=True,
        quick=True,
    ),
    Scenario(
        "global-processes",
        "3 processes of 60, 180 channels of 5 per 5 s, global 50/s",
        tuple(sends(60, channels=180, first=60 * i) for i in range(3)),
        windows(180, GLOBAL_LIMIT, 1),
        {SEND: _fixed("5/5s")},
        is_warm=True,
        quick=True,
    ),
    Scenario(
        "bucket-processes",
        "3 processes of 10, one bucket, 5 per 1 s",
        tuple(sends(10, first=10 * i) for i in range(3)),
        windows(30, 5, 1),
        {SEND: _fixed("5/1s")},
        quick=True,
    ),
    Scenario(
        "herd",
        "100 at once, 20 channels behind one bucket of 5 per 1 s",
        (sends(100, channels=20),),
        windows(100, 5, 1),
        {SEND: _fixed("5/1s", per=())},
    ),
    Scenario(
        "slow",
        "3 at once, the first answer takes 6 s",
        (sends(3, channels=3),),
        0.0,
        {SEND: _fixed("5/5s")},
        slow=6.0,
        quick=True,
    ),
    Scenario(
        "many",
        "4000 at once, 200 channels of sliding 5 per 5 s, global 10 000/s",
        (sends(4000, channels=200),),
        slides(20, 5, 5),
        {SEND: FakeBucket("5/5s")},
        global_limit=10_000,
    ),
    Scenario(
        "cancelled",
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
        "purge",
        "60 deletions, half of them done already: two buckets of 5 per 1 s",
        (tuple(Call("delete", FIRST, FIRST + i) for i in range(60)),),
        windows(30, 5, 1),
        {DELETE: [_fixed("5/1s", gone=False), _fixed("5/1s", gone=True)]},
        gone=tuple(range(FIRST, FIRST + 60, 2)),
        is_row=False,
    ),
    Scenario(
        "callbacks",
        "50 callbacks of interactions in a global stop of 1.5 s",
        (tuple(Call("defer", FIRST, FIRST + i) for i in range(50)),),
        1.5,
        stop=(0.0, 1.5),
        is_row=False,
    ),
    Scenario(
        "last",
        "extra wait of the call that empties a bucket, 2 per 1 s",
        ((Call("send", FIRST, FIRST), Call("send", FIRST, FIRST + 1, start=0.1)),),
        0.1,
        {SEND: _fixed("2/1s")},
        measure="extra",
        quick=True,
    ),
)

SCENARIOS = {scenario.key: scenario for scenario in _ALL}
