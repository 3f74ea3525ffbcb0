"""Many bots at once, each with an app and a bucket of its own, and the results."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp

from asgi_ratelimit.limits import Scope
from tests.real_clients.bots import Fetch, discord_py, discord_py_led_to, hikari_rest
from tests.real_clients.discord_api import ByToken, Door, Drained, Exchange, Recorded, limited_api, served

CALLS, AT_A_TIME = 40, 4
LONGEST = 60.0  # seconds after which a bot is taken to hang

BOTS = {"discord.py": discord_py, "hikari": hikari_rest}


@dataclass(frozen=True)
class Case:
    """One bot at one door. `drained`: another client empties the bucket just before its first call."""

    bot: str
    door: Door
    scope: Scope
    drained: bool = False

    @property
    def at_a_time(self) -> int:
        """In a bucket of several bots, refused calls come back at the same moment. More than two would be by luck."""
        return 2 if self.scope == "shared" else AT_A_TIME

    def __str__(self) -> str:
        return "-".join((self.bot, self.door, self.scope, *(["drained"] if self.drained else [])))


@dataclass
class Run:
    """The results of a bot's calls, and the server's record of them."""

    exchanges: list[Exchange]
    answers: dict[int, int | Exception] = field(default_factory=dict)

    @property
    def calls(self) -> dict[int, list[Exchange]]:
        """The tries of each call, in order; without the bot's login."""
        tries: dict[int, list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            if exchange.user.isdecimal():
                tries[int(exchange.user)].append(exchange)
        return tries

    @property
    def refusals(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.refused]

    @property
    def seconds(self) -> float:
        """From the first call's first try to the last answer."""
        tries = [exchange for tries in self.calls.values() for exchange in tries]
        return max(exchange.answered for exchange in tries) - min(exchange.started for exchange in tries)

    def __str__(self) -> str:
        answered = sum(answer == number for number, answer in self.answers.items())
        most = max(sum(exchange.refused for exchange in tries) for tries in self.calls.values())
        return (
            f"{answered} of {CALLS} calls answered in {self.seconds:.2f} s; {len(self.exchanges)} requests, "
            f"{len(self.refusals)} of them refused, one call {most} times"
        )


def run_all(cases: list[Case]) -> dict[Case, Run]:
    """Let every case's bot make its calls. They wait most of the time, so they do it together."""
    apps = {case: Recorded(_app(case)) for case in cases}
    runs = {case: Run(app.exchanges) for case, app in apps.items()}
    with served(ByToken({str(case): app for case, app in apps.items()})) as address, discord_py_led_to(address):
        asyncio.run(_run_together(runs, address))
    return runs


def _app(case: Case) -> ASGIApp:
    app = limited_api(case.door, case.scope)
    return Drained(app) if case.drained else app


async def _run_together(runs: Mapping[Case, Run], address: str) -> None:
    await asyncio.gather(*(_run(case, run, address) for case, run in runs.items()))


async def _run(case: Case, run: Run, address: str) -> None:
    async with BOTS[case.bot](str(case), address) as fetch:
        numbers = iter(range(1, CALLS + 1))
        _, late = await asyncio.wait(
            [asyncio.ensure_future(_work(fetch, numbers, run.answers)) for _ in range(case.at_a_time)], timeout=LONGEST
        )
        for worker in late:
            worker.cancel()


async def _work(fetch: Fetch, numbers: Iterator[int], answers: dict[int, int | Exception]) -> None:
    for number in numbers:
        try:
            answers[number] = await fetch(number)
        except Exception as error:
            answers[number] = error
