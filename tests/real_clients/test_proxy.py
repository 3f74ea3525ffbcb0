"""Three processes each of discord.py, hikari and @discordjs/rest behind proxies: no 429 at Discord, nothing lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from tests.real_clients.proxies import play, proxies
from tests.support.fake_discord_servers import CREATE, Report, Town, town
from tests.support.servers import KINDS, Server

CLIENTS = ["discord.py", "hikari", "@discordjs/rest"]
PROCESSES = 3
FIRST = 803_511_102_246_790_000  # some libraries know an id by its length
BUSY = 4.0  # seconds that a machine with other work may take


@pytest.fixture(scope="module")
def fakes() -> Iterator[Town]:
    with town() as fakes:
        yield fakes


def calls_of(process: int, count: int, channels: int) -> list[dict[str, Any]]:
    names = range(process * count, (process + 1) * count)
    return [
        {"verb": "send", "channel": f"{FIRST + name % channels}", "start": 0.0, "cancel": None, "name": f"{name}"}
        for name in names
    ]


def first_of_each_channel(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With these a client learns the buckets. Until then hikari makes one call of a kind at a time, to all channels."""
    return list({call["channel"]: call | {"name": f"9{call['name']}"} for call in reversed(calls)}.values())


def run(
    client: str, fakes: Town, limits: dict[str, Any], count: int, channels: int, number: int, rest: float
) -> Report:
    """What Discord saw of a client's processes behind so many proxies."""
    fake = asyncio.run(fakes.open(limits))
    with Server(KINDS[0]) if number > 1 else nullcontext() as redis:
        url = None if redis is None else redis.url
        with proxies(fakes.address, number, url) as addresses:
            jobs = [calls_of(process, count, channels) for process in range(PROCESSES)]
            before = [first_of_each_channel(calls) if rest else [] for calls in jobs]
            outcomes = play(client, [f"{address}/{fake.name}" for address in addresses], jobs, before, rest)
    assert {outcome for process in outcomes for outcome, _ in process} == {"ok"}, outcomes
    return asyncio.run(fake.report())


@pytest.mark.parametrize("number", [1, 2], ids=["one proxy", "two that share a Redis"])
@pytest.mark.parametrize(
    ("count", "channels", "limits", "ideal", "rest"),
    [
        (40, 12, {CREATE: {"limit": "40/1s", "window": "fixed"}}, 2.0, 1.1),
        (6, 1, {CREATE: {"limit": "5/2s", "window": "fixed"}}, 6.0, 0.0),
    ],
    ids=["the global limit", "one bucket"],
)
def test_real_clients_behind_proxies_draw_no_429(
    fakes: Town, number: int, count: int, channels: int, limits: dict[str, Any], ideal: float, rest: float
) -> None:
    with ThreadPoolExecutor() as pool:
        runs = {client: pool.submit(run, client, fakes, limits, count, channels, number, rest) for client in CLIENTS}
        reports = {client: each.result() for client, each in runs.items()}
    for client, report in reports.items():
        moments = [seen["at"] for seen in report.requests if "/messages" in seen["path"]][-PROCESSES * count :]
        took = max(moments) - min(moments)
        sys.stdout.write(f"{client}: {took:.2f} s, ideal {ideal:.2f}, ratio {took / ideal:.3f}\n")
        assert report.refused == [], client
        assert sorted(report.messages[-PROCESSES * count :], key=int) == [
            str(number) for number in range(PROCESSES * count)
        ], client
        assert took <= 1.15 * ideal + BUSY, client
