"""Four workers guard one log-in over Redis: the scenarios have the same counts as in one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from asgi_ratelimit import Decision
from asgi_ratelimit.login import LoginGuard
from tests.support.log_in_process import guard_at
from tests.support.servers import KINDS, Server
from tests.support.workers import WORKERS, WorkerProcesses

Visit = tuple[str, str, bool]
OFFICE, HOME = "203.0.113.1", "198.51.100.7"


class Workers(WorkerProcesses):
    """Processes that log in at the same time."""

    def __init__(self, url: str) -> None:
        super().__init__("tests.support.log_in_process", url)

    def visit(self, guard: str, visits: list[Visit]) -> Counter[str]:
        """Share the visits out. Returns how they have ended."""
        for number, process in enumerate(self.processes):
            self.say(process, [guard, visits[number::WORKERS]])
        return sum((Counter(self.answer(process)) for process in self.processes), Counter())

    def ask(self, question: Callable[[LoginGuard], Coroutine[Any, Any, Decision]]) -> Decision:
        """Ask a guard in this process, which is the fifth worker."""

        async def ask() -> Decision:
            store, guard = guard_at(self.url, self.prefix)
            async with store:
                return await question(guard)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def workers(fresh_server: Callable[[str], Server]) -> Iterator[Workers]:
    started = Workers(fresh_server(KINDS[0]).url)
    yield started
    started.end()


def test_stuffing_a_thousand_accounts_from_one_address(workers: Workers) -> None:
    visits: list[Visit] = [(f"user {number}", HOME, False) for number in range(1000)]
    ends = workers.visit("usual", visits)
    assert ends == {"wrong": 50, "refused": 950}
    refused = workers.ask(lambda guard: guard.peek("someone", HOME))
    assert refused.reason == "blocked"
    assert 40 < refused.retry_after <= 60  # the first block, though every worker has seen its reason


def test_spraying_one_account_and_no_lock_out_of_its_owner(workers: Workers) -> None:
    assert workers.visit("usual", [("ada", OFFICE, True)]) == {"in": 1}
    visits: list[Visit] = [("ada", f"10.0.{number // 250}.{number % 250}", False) for number in range(1000)]
    ends = workers.visit("usual", visits)
    assert ends == {"wrong": 5, "refused": 995}
    assert workers.visit("usual", [("ada", OFFICE, True)] * 4) == {"in": 4}
    refused = workers.ask(lambda guard: guard.peek("ada", HOME))
    assert refused.reason == "blocked"
    assert 40 < refused.retry_after <= 60


def test_twenty_good_log_ins_at_once_from_one_office(workers: Workers) -> None:
    """Each takes 20 ms, and five may be in flight. An attempt that is held for longer than `max_wait` is refused."""
    ends = workers.visit("office", [(f"user {number}", OFFICE, True) for number in range(20)])
    assert ends == {"in": 20}


def test_hundred_bad_log_ins_at_once_from_one_office(workers: Workers) -> None:
    ends = workers.visit("office", [(f"user {number}", "203.0.113.2", False) for number in range(100)])
    assert ends == {"wrong": 5, "refused": 95}


@pytest.mark.anyio
async def test_an_attempt_that_is_cancelled_is_counted_to_the_end(workers: Workers) -> None:
    store, guard = guard_at(workers.url, workers.prefix, account="1/15 minutes", name="cancelled")
    async with store:
        with anyio.CancelScope() as scope:
            async with guard.attempt("ada", HOME):
                scope.cancel()
                await anyio.sleep_forever()
        assert (await guard.peek("ada")).reason == "blocked"


def test_no_name_and_no_address_is_in_redis(workers: Workers) -> None:
    workers.visit("usual", [("Lovelace", HOME, True), ("Hopper", HOME, False)] * 2)
    names = asyncio.run(_names(workers.url))
    assert len(names) > 5
    assert not [name for name in names for text in ("ovelace", "opper", "198.51", "user") if text in name]


async def _names(url: str) -> list[str]:
    async with Redis.from_url(url, decode_responses=True) as client:
        return [name async for name in client.scan_iter(count=1000)]
