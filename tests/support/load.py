"""One of the processes that put load on a limit together. test_processes.py starts it and reads its results.

It reads the jobs of a round, reports "ready" once it is connected, reads a line as the start, reports "refused" once
every server has refused it, and in the end its results. Then the next round starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

from asgi_ratelimit import Decision, Limiter, TokenBucket
from asgi_ratelimit.limits import Scope
from asgi_ratelimit.redis import RedisStore

KEY = "everybody"
AT_ONCE = 4  # calls of one process to one store
PAUSE = 0.05  # s after a refusal: the calls come at all times, and leave the machine some time for itself
PATIENCE = 2.0  # s for a store's answer: a busy machine may stand still for longer than 0.1 s


@dataclass(frozen=True, slots=True)
class Job:
    """The target of the load: a store, and limits of a scope each."""

    url: str
    prefix: str
    limits: list[tuple[str, Scope]]
    deny_cache: int
    seconds: float


@dataclass(slots=True)
class Seen:
    """The results of one process at one store. Times are the server's, in µs."""

    admitted: list[int] = field(default_factory=list)  # by the server, when
    refused: dict[int, int] = field(default_factory=dict)  # by the server, when last: by the limit's capacity
    last: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    admitted_alone: int = 0  # while the server did not answer
    gaps: list[tuple[int, int]] = field(default_factory=list)  # the rest when it fell silent, and for how long
    left: int = 0
    alone: bool = False
    ended: int = 0

    def note(self, decision: Decision) -> None:
        self.reasons[decision.reason] = self.reasons.get(decision.reason, 0) + 1
        if decision.reason == "degraded":
            self.alone = True
            self.admitted_alone += decision.allowed
        elif decision.reason != "cached":
            self.note_answer(decision)

    def note_answer(self, decision: Decision) -> None:
        self.end_gap(decision.now_us)
        self.last, self.left = decision.now_us, decision.remaining
        if decision.allowed:
            self.admitted.append(decision.parts[-1].now_us)
        else:
            self.refused[decision.limit] = max(self.refused.get(decision.limit, 0), decision.now_us)

    def end_gap(self, now_us: int) -> None:
        if self.alone:
            self.gaps.append((self.left, now_us - self.last))
            self.alone = False


async def send_load(limiter: Limiter, seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        decision = await limiter.try_acquire(KEY)
        seen.note(decision)
        await asyncio.sleep(0 if decision.allowed else PAUSE)


async def work(jobs: list[Job]) -> list[Seen]:
    seen = [Seen() for _ in jobs]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        limiters = [
            Limiter(
                [TokenBucket(rate, scope=scope) for rate, scope in job.limits],
                store=await stack.enter_async_context(
                    RedisStore(job.url, prefix=job.prefix, deny_cache=job.deny_cache, timeout=PATIENCE)
                ),
            )
            for job in jobs
        ]
        report("ready")
        sys.stdin.readline()
        until = time.monotonic() + jobs[0].seconds
        for limiter, each in zip(limiters, seen, strict=True):
            for _ in range(AT_ONCE):
                tasks.create_task(send_load(limiter, each, until))
        while not all(each.refused for each in seen) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        report("refused")
    for each in seen:
        each.ended = time.time_ns() // 1000  # by the clock of this machine, which is the server's
        each.end_gap(each.ended)
    return seen


def report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    while line := sys.stdin.readline():
        jobs = [Job(**job) for job in json.loads(line)]
        report(json.dumps([asdict(seen) for seen in asyncio.run(work(jobs))]))
