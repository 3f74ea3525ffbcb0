"""Several clients of one token share buckets, stops and bans through Redis, and get through an outage in between."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from asgi_ratelimit.discord import DiscordClient
from tests.support.discord_runs import (
    CHANNEL,
    check_all_sent,
    names_of,
    new_client,
    send,
    send_all,
    undisturbed,
    until_created,
    watched,
)
from tests.support.fake_discord_servers import CREATE, Remote, Town, town
from tests.support.servers import KINDS, Server
from tests.support.stores import new_store

WINDOW = {CREATE: {"limit": "3/1s", "window": "fixed"}}


@pytest.fixture(scope="module")
def fakes() -> Iterator[Town]:
    with town() as fakes:
        yield fakes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(KINDS[0]) as server:
        yield server


class Bots(AsyncExitStack):
    """Clients, each with a connection of its own to the same Redis, as in as many processes."""

    def __init__(self, server: Server, prefix: str, **store_options: object) -> None:
        super().__init__()
        self._server, self._options = server, {"prefix": f"{prefix} {secrets.token_hex(4)}", **store_options}

    async def one(self, fake: Remote, token: str = "test") -> DiscordClient:
        store = await self.enter_async_context(new_store(self._server.url, **self._options))
        return await self.enter_async_context(new_client(fake, token, store=store))


@pytest.mark.anyio
@undisturbed
async def test_a_bucket_that_one_has_learned_counts_for_the_other(fakes: Town, server: Server) -> None:
    fake = await fakes.open(WINDOW)
    async with Bots(server, "learned") as bots, watched() as watch:
        one, other = await bots.one(fake), await bots.one(fake)
        first = await send(one, "m0")
        responses = await send_all(other, names_of(9)[1:])
    await check_all_sent(fake, names_of(9), [first, *responses])
    watch.check("9 on 3 per s, learned by another", 2.0, windows=3)


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["stop", "ban"])
@undisturbed
async def test_a_refusal_of_everything_that_one_meets_stops_the_other(fakes: Town, server: Server, verb: str) -> None:
    fake = await fakes.open()
    async with Bots(server, f"all {verb}") as bots, watched():
        one, other = await bots.one(fake), await bots.one(fake)
        await fake.do(verb, 2.0)
        meeting = asyncio.ensure_future(send(one, "m0"))
        while not (await fake.report()).refused:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # its answer is on the way
        responses = await send_all(other, names_of(6)[1:], channels=5)
        first = await meeting
    await check_all_sent(fake, names_of(6), [first, *responses], refused=1)


@pytest.mark.anyio
@undisturbed
async def test_the_limits_of_two_tokens_have_nothing_to_do_with_each_other(fakes: Town, server: Server) -> None:
    fake = await fakes.open(WINDOW)
    async with Bots(server, "tokens") as bots, watched() as watch:
        one, other = await bots.one(fake, "one"), await bots.one(fake, "other")
        results = await asyncio.gather(send_all(one, names_of(6, "one")), send_all(other, names_of(6, "other")))
    await check_all_sent(fake, names_of(6, "one") + names_of(6, "other"), [*results[0], *results[1]])
    watch.check("2 x 6 on 3 per s each", 1.0, windows=2)


@pytest.mark.anyio
@undisturbed
async def test_one_that_is_cut_off_from_redis_goes_on_by_its_last_replies(fakes: Town) -> None:
    fake = await fakes.open(WINDOW)
    with Server(KINDS[0]) as server:
        async with Bots(server, "cut off", outage="local", timeout=2.0) as bots, watched():
            discord = await bots.one(fake)
            sending = asyncio.ensure_future(send_all(discord, names_of(12)))
            await until_created(fake, 4)
            server.kill()
            responses = await sending
    await check_all_sent(fake, names_of(12), responses)


@pytest.mark.anyio
@undisturbed
async def test_three_clients_share_a_hidden_limit_that_one_has_run_into(fakes: Town, server: Server) -> None:
    fake = await fakes.open({CREATE: {"limit": "2/1s", "window": "fixed", "hidden": True}})
    async with Bots(server, "hidden") as bots, watched():
        one, *others = [await bots.one(fake) for _ in range(3)]
        first = await send_all(one, names_of(4, "first"))
        met = len((await fake.report()).refused)
        results = await asyncio.gather(*(send_all(each, names_of(3, f"{i} ")) for i, each in enumerate(others)))
    names = names_of(4, "first") + names_of(3, "0 ") + names_of(3, "1 ")
    report = await check_all_sent(fake, names, [*first, *results[0], *results[1]], refused=range(1, 5))
    assert len(report.refused) == met
    assert {seen["path"] for seen in report.refused} == {f"/channels/{CHANNEL}/messages"}
