"""What the client makes of a Discord that limits, lies, fails and stalls, over real sockets, with three latencies.

The scenarios have nothing to do with each other, so they run at the same time; each test tells what became of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext
from typing import Any

import httpx
import pytest

from tests.support.discord_runs import (
    CHANNEL,
    PATIENCE,
    check_all_sent,
    names_of,
    new_client,
    send,
    send_all,
    undisturbed,
    until_created,
    until_held,
    watched,
)
from tests.support.fake_discord_servers import CREATE, PROFILES, UNUSED_TLS, Town, town

Scenario = Callable[..., Coroutine[Any, Any, None]]
Results = dict[tuple[str, str], "asyncio.Task[None]"]

SCENARIOS: dict[str, Scenario] = {}
ONE_BY_ONE: list[str] = []  # they keep the processor busy
TYPING = "POST /channels/{channel_id}/typing"
RENAME = "PATCH /channels/{channel_id}"
HASH = "ab" * 16
MOST_WHILE_HIDDEN = 3  # those that are in flight when the first refusal comes


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def fixed(limit: str, **options: Any) -> dict[str, Any]:
    return {"limit": limit, "window": "fixed", **options}


def sliding(limit: str, **options: Any) -> dict[str, Any]:
    return {"limit": limit, "window": "sliding", **options}


# True headers: no 429, and hardly longer than it has to take


async def _paced(fakes: Town, profile: str, bucket: dict[str, Any], number: int, ideal: float, windows: int) -> None:
    fake = await fakes.open({CREATE: bucket}, profile=profile)
    async with new_client(fake) as discord, watched() as watch:
        responses = await send_all(discord, names_of(number))
    await check_all_sent(fake, names_of(number), responses)
    watch.check(f"{number} on {bucket['window']} {bucket['limit']}", ideal, windows=windows, profile=profile)


@scenario
async def nine_on_a_window_of_two(fakes: Town, profile: str) -> None:
    await _paced(fakes, profile, fixed("2/1s"), 9, 4.0, 5)


@scenario
async def nine_on_a_bucket_of_two_that_refills_one_by_one(fakes: Town, profile: str) -> None:
    await _paced(fakes, profile, sliding("2/1s"), 9, 3.5, 5)


@scenario
async def twenty_on_a_bucket_of_five_that_refills_one_by_one(fakes: Town, profile: str) -> None:
    await _paced(fakes, profile, sliding("5/2s"), 20, 6.0, 4)


@scenario
async def the_global_limit_over_many_channels(fakes: Town, profile: str) -> None:
    """In any second whatever, which includes the server's own."""
    fake = await fakes.open(profile=profile, global_window="sliding")
    async with new_client(fake) as discord, watched() as watch:
        responses = await send_all(discord, names_of(150), channels=150)
    report = await check_all_sent(fake, names_of(150), responses)
    assert report.most_in(1.0) <= 50
    watch.check("150 on 50 per s", 150 / (0.8 * 50), profile=profile)


ONE_BY_ONE.append(the_global_limit_over_many_channels.__name__)


@scenario
async def two_routes_with_one_hash(fakes: Town, profile: str) -> None:
    """Before it is known that they share a bucket, one 429 may fall."""
    bucket = fixed("4/1s", hash=HASH)
    fake = await fakes.open({CREATE: bucket, TYPING: bucket}, profile=profile)
    async with new_client(fake) as discord, watched() as watch:
        typing = [discord.post(f"/channels/{CHANNEL}/typing") for _ in range(10)]
        responses = await asyncio.gather(*typing, *(send(discord, name) for name in names_of(10)))
    await check_all_sent(fake, names_of(10), responses, refused=range(2))
    watch.check("20 on 4 per s over two routes", 4.0, windows=6, profile=profile)


async def _with_wall_skew(fakes: Town, profile: str, skew: float) -> None:
    fake = await fakes.open({CREATE: fixed("3/1s")}, profile=profile, wall_skew=skew)
    async with new_client(fake) as discord, watched() as watch:
        responses = await send_all(discord, names_of(9))
    await check_all_sent(fake, names_of(9), responses)
    watch.check(f"9 on 3 per s, {skew:+g} s of skew", 2.0, windows=3, profile=profile)


@scenario
async def a_server_whose_clock_is_ahead(fakes: Town, profile: str) -> None:
    await _with_wall_skew(fakes, profile, 30.0)


@scenario
async def a_server_whose_clock_is_behind(fakes: Town, profile: str) -> None:
    await _with_wall_skew(fakes, profile, -30.0)


async def _out_of_order(fakes: Town, profile: str, bucket: dict[str, Any], order: str) -> None:
    fake = await fakes.open({CREATE: bucket}, profile=profile)
    async with new_client(fake) as discord, watched():
        first = await send(discord, "m0")
        await fake.do("hold", order)
        sending = asyncio.ensure_future(send_all(discord, names_of(15)[1:]))
        await until_held(fake, 3)
        await fake.do("release")
        responses = await sending
    await check_all_sent(fake, names_of(15), [first, *responses])


@scenario
async def answers_in_reverse_order(fakes: Town, profile: str) -> None:
    await _out_of_order(fakes, profile, fixed("5/1s"), "reverse")


@scenario
async def answers_in_any_order_of_a_bucket_that_refills_one_by_one(fakes: Town, profile: str) -> None:
    await _out_of_order(fakes, profile, sliding("5/1s"), "shuffled")


@scenario
async def another_hash_while_calls_are_in_flight(fakes: Town, profile: str) -> None:
    fake = await fakes.open({CREATE: fixed("3/1s")}, profile=profile)
    async with new_client(fake) as discord, watched():
        first = await send(discord, "m0")
        await fake.do("hold")
        sending = asyncio.ensure_future(send_all(discord, names_of(12)[1:]))
        await until_held(fake, 2)
        await fake.do("change_hash", CREATE, HASH)  # what is held names the old one
        await fake.do("release")
        await asyncio.sleep(0)
        await fake.do("change_hash", CREATE, "cd" * 16)
        responses = await sending
    report = await check_all_sent(fake, names_of(12), [first, *responses])
    assert len({seen["bucket"] for seen in report.requests}) > 1


# Limits that show themselves in refusals only


async def _hidden(fakes: Town, profile: str, bucket: dict[str, Any]) -> None:
    fake = await fakes.open({CREATE: bucket}, profile=profile)
    async with new_client(fake) as discord, watched():
        responses = await send_all(discord, names_of(9))
    await check_all_sent(fake, names_of(9), responses, refused=range(1, MOST_WHILE_HIDDEN + 1))


@scenario
async def a_hidden_window(fakes: Town, profile: str) -> None:
    await _hidden(fakes, profile, fixed("2/1s", hidden=True))


@scenario
async def a_hidden_bucket_that_refills_one_by_one(fakes: Town, profile: str) -> None:
    await _hidden(fakes, profile, sliding("2/1s", hidden=True))


@scenario
async def a_sub_limit_holds_only_its_kind_of_call(fakes: Town, profile: str) -> None:
    fake = await fakes.open({RENAME: ["20/1s", fixed("2/6s", only_if="renames")]}, profile=profile)
    path = f"/channels/{CHANNEL}"
    async with new_client(fake) as discord, watched():
        renames = [discord.patch(path, json={"name": f"n{i}"}) for i in range(4)]
        others = [discord.patch(path, json={"nsfw": True}) for _ in range(10)]
        responses = await asyncio.gather(*renames, *others)
    report = await check_all_sent(fake, [], responses, refused=1)
    in_time = [seen for seen in report.requests if seen["at"] < report.requests[0]["at"] + 5.9]
    assert Counter(seen["status"] for seen in in_time)[200] == 10 + 2


@scenario
async def a_bucket_that_somebody_else_has_emptied(fakes: Town, profile: str) -> None:
    fake = await fakes.open({CREATE: fixed("5/3s", scope="shared")}, profile=profile)
    headers = {"Authorization": "Bot other"}
    async with httpx.AsyncClient(base_url=fake.base_url, headers=headers, verify=UNUSED_TLS) as other:
        theirs = await send_all(other, names_of(5, "other"))
    async with new_client(fake) as discord, watched():
        responses = await send_all(discord, names_of(5))
    report = await check_all_sent(fake, names_of(5, "other") + names_of(5), [*theirs, *responses], refused=1)
    assert report.refused[0]["scope"] == "shared"
    assert report.requests[6]["at"] > report.requests[0]["at"] + 3.0


# Refusals of everything


async def _stopped_midway(fakes: Town, profile: str, verb: str, scope: str | None) -> None:
    """Those in flight at that moment are refused, each once; then nothing goes until it is over."""
    fake = await fakes.open(profile=profile, global_limit=20)
    async with new_client(fake, global_limit=20) as discord, watched():
        sending = asyncio.ensure_future(send_all(discord, names_of(40), channels=40))
        await until_created(fake, 1)
        await fake.do(verb, 1.5)
        responses = await sending
    report = await check_all_sent(fake, names_of(40), responses, refused=range(1, 21))
    assert set(Counter(seen["path"] for seen in report.refused).values()) == {1}
    assert {seen["scope"] for seen in report.refused} == {scope}


@scenario
async def a_ban_by_cloudflare_stops_everything(fakes: Town, profile: str) -> None:
    await _stopped_midway(fakes, profile, "ban", None)


@scenario
async def a_global_refusal_stops_everything(fakes: Town, profile: str) -> None:
    await _stopped_midway(fakes, profile, "stop", "global")


@scenario
async def a_ban_that_is_met_by_a_line_of_calls_is_met_once(fakes: Town, profile: str) -> None:
    fake = await fakes.open({CREATE: fixed("5/1s")}, profile=profile)
    await fake.do("ban", 3.0)
    async with new_client(fake) as discord, watched():
        responses = await send_all(discord, names_of(10))
    await check_all_sent(fake, names_of(10), responses, refused=1)


# Failures


async def _failing(fakes: Town, profile: str, status: int, verb: str, *values: Any, **options: Any) -> None:
    fake = await fakes.open({CREATE: fixed("5/1s")}, profile=profile)
    await fake.do(verb, *values, times=4, **options)
    async with new_client(fake) as discord, watched():
        responses = await send_all(discord, names_of(10))
    report = await check_all_sent(fake, names_of(10), responses)
    assert report.statuses == {status: 4, 200: 10}


@scenario
async def a_burst_of_503_in_html(fakes: Town, profile: str) -> None:
    await _failing(fakes, profile, 503, "fail", 503, html=True)


@scenario
async def a_burst_of_502_after_the_deed(fakes: Town, profile: str) -> None:
    await _failing(fakes, profile, 502, "fail", 502, when="after")


@scenario
async def connections_that_break_before_the_deed(fakes: Town, profile: str) -> None:
    await _failing(fakes, profile, 0, "drop")


@scenario
async def connections_that_break_after_the_deed(fakes: Town, profile: str) -> None:
    await _failing(fakes, profile, 0, "drop", when="after")


# How they are run


async def _run_all(fakes: Town) -> Results:
    """Each is ended when it fails, and tells so later."""
    turn = asyncio.Lock()

    async def run(name: str, profile: str, delay: float) -> None:
        await asyncio.sleep(delay)  # if all began at the same moment, each would have to wait for the others
        async with turn if name in ONE_BY_ONE else nullcontext():
            await undisturbed(SCENARIOS[name])(fakes=fakes, profile=profile)

    which = [(name, profile) for name in SCENARIOS for profile in PROFILES]
    tasks = {key: asyncio.ensure_future(run(*key, delay=0.04 * i)) for i, key in enumerate(which)}
    await asyncio.wait(tasks.values())
    return tasks


@pytest.fixture(scope="module")
def fakes() -> Iterator[Town]:
    with town() as fakes:
        yield fakes


@pytest.fixture(scope="module")
def results(fakes: Town) -> Results:
    return asyncio.run(_run_all(fakes))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_calls_are_all_carried_out_once_with_no_more_refusals_than_must_be(
    results: Results, name: str, profile: str
) -> None:
    results[name, profile].result()


@pytest.mark.anyio
@pytest.mark.parametrize("connections", [100, 120])
@undisturbed
async def test_no_more_calls_are_in_flight_than_httpx_has_connections(fakes: Town, connections: int) -> None:
    """Its pools take ever longer the more calls wait in them. Ten connections are for interactions."""
    fake = await fakes.open(global_limit=10_000)
    options: dict[str, Any] = {} if connections == 100 else {"limits": httpx.Limits(max_connections=connections + 10)}
    async with new_client(fake, global_limit=10_000, **options) as discord, watched():
        await fake.do("hold")
        sending = asyncio.ensure_future(send_all(discord, names_of(150), channels=150))
        await until_held(fake, connections)
        assert [line.calls for line in discord.waiting] == [1] * (150 - connections)
        await fake.do("release")
        responses = await sending
    await check_all_sent(fake, names_of(150), responses)


def test_four_thousand_messages_over_two_hundred_channels(fakes: Town) -> None:
    async def run() -> None:
        fake = await fakes.open({CREATE: sliding("5/2s")}, global_limit=10_000)
        names = names_of(4_000)
        async with new_client(fake, global_limit=10_000) as discord, watched(2 * PATIENCE) as watch:
            responses = await send_all(discord, names, channels=200)
        await check_all_sent(fake, names, responses)
        watch.check("4 000 on 200 channels", 6.0, windows=4)

    asyncio.run(run())
