"""Redis and memory give and take back permits alike: on the same history every answer, and every record, is equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from asgi_ratelimit.discord.permits.bucket import CallReport, Verdict
from asgi_ratelimit.discord.permits.memory import Granted, MemoryPermits, Permit, Wait
from asgi_ratelimit.discord.permits.shared import SharedPermits, shared_permits
from asgi_ratelimit.redis import RedisStore
from tests.discord.permits.replies import cause_of
from tests.support.servers import KINDS, Cluster, Server
from tests.support.stores import new_store
from tests.support.traces import STARTS, TraceClock

OTHERS = KINDS[1:]
S = 1_000_000
Reply = Granted | Wait
_owners = count()


# What happens


class Want(NamedTuple):
    route: str
    major: str
    per_second: int
    spare: int = 0
    together: bool = False


class Settle(NamedTuple):
    back: int  # which of the permits that are out, the oldest first; some are settled twice
    answer: CallReport
    again: bool = False


class Move(NamedTuple):
    us: int


Step = Want | Settle | Move

ROUTES, MAJORS, BUCKETS = ("GET /a", "GET /b", "PUT /ä {c}"), ("", "1"), ("", "b", "b", "c", "a hash")
VERDICTS: tuple[Verdict, ...] = ("answered", "limited", "sublimited", "stopped", "banned", "lost", "unsent")
RESETS = st.sampled_from([0, 1_000, 200_000, 200_000, 400_000, 1_000_000, 1_000_000, 5_000_000])
MOVES = (1, 500, 999, 1_000, 30_000, 200_000, 401_000, 1_001_000, 5_000_000, 14_999_999, 15_000_000, 62_000_000)

wants = st.builds(
    Want,
    st.sampled_from(ROUTES),
    st.sampled_from(MAJORS),
    st.sampled_from([0, 1, 3, 3, 50]),
    st.sampled_from([0, 0, 1, 5]),
    st.sampled_from([False, False, False, True]),
)


@st.composite
def answers(draw: st.DrawFn) -> CallReport:
    limit = draw(st.sampled_from([0, 2, 5, 5, 5]))
    return CallReport(
        draw(st.sampled_from(VERDICTS[:2]) | st.sampled_from(VERDICTS)),
        draw(st.sampled_from(BUCKETS)),
        limit,
        draw(st.integers(0, max(0, limit - 1))),
        draw(RESETS),
        draw(RESETS),
    )  # fmt: skip


settles = st.builds(Settle, st.integers(0, 3), answers(), st.sampled_from([False] * 9 + [True]))
steps: st.SearchStrategy[Step] = st.one_of(wants, wants, settles, settles, st.sampled_from(MOVES).map(Move))
TRACES = st.lists(steps, min_size=5, max_size=40)


# Playing it. What happens between two moves of the clock is asked of Redis all at once.


class Duel:
    """The permits of one owner in memory and in Redis, by the same clock."""

    def __init__(self, clock: TraceClock, store: RedisStore) -> None:
        owner = f"owner{next(_owners)}"
        self.clock, self.memory, self.redis = clock, MemoryPermits(clock), shared_permits(store, owner)
        self.replies: list[tuple[Reply, Reply]] = []
        self._out: list[Permit] = []
        self._sent: list[tuple[Reply | None, asyncio.Future[Reply | None]]] = []
        self._numbers = count()

    async def play(self, trace: Sequence[Step]) -> None:
        for step in trace:
            match step:
                case Want():
                    self._want(step)
                case Settle() if self._out:
                    self._settle(step)
                case Move(us):
                    await self._read_replies()
                    self.clock.move(us)
        await self._read_replies()

    def _want(self, want: Want) -> None:
        name = f"permit{next(self._numbers)}"
        reply = self.memory.take(name, *want)
        self._sent.append((reply, asyncio.ensure_future(self.redis.take(name, *want))))
        if isinstance(reply, Granted):
            self._out.append(reply.permit)

    def _settle(self, settle: Settle) -> None:
        place = settle.back % len(self._out)
        permit = self._out[place] if settle.again else self._out.pop(place)
        self.memory.settle(permit, settle.answer)
        self._sent.append((None, asyncio.ensure_future(self._send_report(permit, settle.answer))))

    async def _send_report(self, permit: Permit, answer: CallReport) -> None:
        await self.redis.settle(permit, answer)  # in its turn: a `take`, too, is sent when its task begins

    async def _read_replies(self) -> None:
        sent, self._sent = self._sent, []
        heard = await asyncio.gather(*(answer for _, answer in sent))
        self.replies += [(memory, redis) for (memory, _), redis in zip(sent, heard, strict=True) if memory and redis]


def records_in_memory(memory: MemoryPermits, redis: SharedPermits, now: int) -> dict[str, str]:
    return {
        f"{redis.names.base}:bucket:{redis.names.digest(bucket)}:{redis.names.digest(major)}": learned.as_text()
        for (bucket, major), learned in memory._buckets.items()
        if learned.expires_at() > now
    }


def records_in_redis(clients: Sequence[Redis], redis: SharedPermits, now: int) -> dict[str, str]:
    found = {}
    for client in clients:
        for name in map(str, client.keys(f"{redis.names.base}:bucket:*")):
            text = str(client.get(name))
            numbers = [int(word) for word in text.split() if not word.startswith("permit")]
            if max(*numbers[3:6], *numbers[11:]) + 60_000_000 > now:  # Redis keeps them longer for a test's clock
                found[name] = text
    return found


Play = Callable[[int, Sequence[Step]], Duel]


@contextmanager
def playing(url: str) -> Iterator[Play]:
    clock = TraceClock()
    store = new_store(url, clock=clock)

    def play(start_us: int, trace: Sequence[Step]) -> Duel:
        clock.begin(start_us)
        duel = Duel(clock, store)
        runner.run(duel.play(trace))
        return duel

    with asyncio.Runner() as runner:
        runner.run(store.start())
        try:
            yield play
        finally:
            runner.run(store.aclose())


@contextmanager
def connected(servers: Sequence[Server]) -> Iterator[list[Redis]]:
    """A client of each, for all that is read."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.client()) for server in servers]


def assert_equal(clients: Sequence[Redis], duel: Duel) -> None:
    for memory, redis in duel.replies:
        assert redis == memory
    now = duel.clock.now_us()
    assert records_in_redis(clients, duel.redis, now) == records_in_memory(duel.memory, duel.redis, now)


def compare(url: str, servers: Sequence[Server], examples: int) -> set[str]:
    """Why calls were not permitted."""
    refusals: set[str] = set()
    with playing(url) as play, connected(servers) as clients:

        @settings(max_examples=examples)
        @given(STARTS, TRACES)
        def all_is_equal(start_us: int, trace: list[Step]) -> None:
            duel = play(start_us, trace)
            assert_equal(clients, duel)
            refusals.update(cause_of(memory) for memory, _ in duel.replies)

        all_is_equal()
    return refusals


def test_permits_are_granted_and_settled_as_in_memory(any_redis: Server) -> None:
    met = compare(any_redis.url, [any_redis], examples=600)
    assert met == {"", "banned", "stopped", "route", "bucket", "answer", "global"}


# What chance meets too seldom

CALL, SILENT = Want("GET /a", "1", 50), Settle(0, CallReport("answered"))
HIDDEN: list[Step] = [
    CALL,
    SILENT,
    CALL,
    CALL,
    SILENT,
    SILENT,
    CALL,
    Settle(0, CallReport("limited", retry_us=S)),
    Move(S + 1_000),
]
NINE: list[Step] = [CALL, SILENT, Move(400_000)] * 9
CASES: dict[str, list[Step]] = {
    "a hidden limit is refused at once": [*HIDDEN, Move(S), CALL, Settle(0, CallReport("limited", retry_us=1_000))],
    "a hidden limit refuses two of a burst": [
        *HIDDEN, CALL, CALL, SILENT, CALL, Move(1), *[Settle(0, CallReport("limited", "", 9, retry_us=S))] * 2, CALL,
    ],
    "a hidden limit passes more than it is thought to": [
        *HIDDEN, *NINE, CALL, Settle(0, CallReport("limited", retry_us=5 * S)), CALL,
    ],
    "a hidden limit is reported after all": [*HIDDEN, CALL, Settle(0, CallReport("answered", "b", 5, 3, S)), CALL],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_redis_permits_as_memory_does_when(any_redis: Server, case: str) -> None:
    with playing(any_redis.url) as play, connected([any_redis]) as clients:
        assert_equal(clients, play(1_700_000_000_000_000, CASES[case]))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_servers_give_and_take_back_as_memory_does(fresh_server: Callable[[str], Server], kind: str) -> None:
    server = fresh_server(kind)
    compare(server.url, [server], examples=200)


def test_a_cluster_gives_and_takes_back_as_memory_does(cluster: Cluster) -> None:
    compare(cluster.url, cluster.nodes, examples=200)
