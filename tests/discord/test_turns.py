"""Of many calls that start at once the first ones leave while the others are still being prepared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient, DiscordTransport
from asgi_ratelimit.discord.turns import Turns
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import API, TOKEN

pytestmark = pytest.mark.anyio

MANY = 400
FEW = 60  # prepared calls before the first one has left; of 8 in each pass of the event loop
CALLBACK = "/interactions/1/aW50ZXJhY3Rpb246MQ/callback"


class Distant(httpx.AsyncBaseTransport):
    """Sends a request after a pass of the event loop, as one over a socket does. Logs what is sent."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        self._log.append(f"sent {request.url.path.removeprefix('/api/v10')}")
        return httpx.Response(200, json={"id": "1"})


class Logged(DiscordClient):
    """Logs the requests that it builds."""

    def __init__(self, clock: ManualClock, **options: Any) -> None:
        self.log: list[str] = []
        options = {"store": MemoryStore(clock=clock), "global_limit": 1_000_000, **options}
        super().__init__(TOKEN, base_url=API, transport=Distant(self.log), **options)

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        self.log.append(f"built {url}")
        return super().build_request(method, url, **options)

    def sent(self) -> list[str]:
        return [line.removeprefix("sent ") for line in self.log if line.startswith("sent")]

    def built_before_the_first(self, path: str) -> int:
        """The number of requests that were built before the first one to this path was sent."""
        return sum(line.startswith("built") for line in self.log[: self.log.index(f"sent {path}")])


def path(number: int) -> str:
    return f"/channels/{number}/messages"


async def streamed(client: DiscordClient, url: str) -> httpx.Response:
    async with client.stream("POST", url, json={}) as response:
        await response.aread()
        return response


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_first_of_many_calls_leaves_before_the_last_one_is_built(
    clock: ManualClock, is_streamed: bool
) -> None:
    async with Logged(clock) as discord:
        post = streamed if is_streamed else DiscordClient.post
        responses = await asyncio.gather(*(post(discord, path(number)) for number in range(MANY)))
        assert discord.built_before_the_first(path(0)) < FEW
        assert {response.status_code for response in responses} == {200}
        assert [line for line in discord.log if line.startswith("built")] == [f"built {path(n)}" for n in range(MANY)]
        assert len(discord.sent()) == MANY


@pytest.mark.parametrize("is_bare", [False, True])
async def test_requests_that_are_built_already_take_turns_as_well(clock: ManualClock, is_bare: bool) -> None:
    """With the client's own `send`, and with a plain httpx client over the transport."""
    log: list[str] = []
    store = MemoryStore(clock=clock)
    transport = DiscordTransport(Distant(log), store=store, global_limit=1_000_000, origins=["http://fake"])
    bare = httpx.AsyncClient(transport=transport, base_url=API)
    async with bare if is_bare else Logged(clock) as client:
        seen = log if is_bare else client.log if isinstance(client, Logged) else []

        async def send(request: httpx.Request) -> None:
            seen.append("started")
            await client.send(request)

        requests = [client.build_request("POST", path(number)) for number in range(MANY)]
        seen.clear()
        line = asyncio.gather(*map(send, requests))
        for _ in range(30):
            await asyncio.sleep(0)
        assert f"sent {path(0)}" in seen
        assert f"sent {path(MANY - 1)}" not in seen
        await line
        assert seen.count("started") == MANY
        assert len(seen) == 2 * MANY


async def test_few_calls_wait_for_no_turn() -> None:
    turns, done = Turns(), []

    async def take(number: int) -> None:
        await turns.take("/users/@me", None)
        done.append(number)

    for _ in range(2):
        calls = asyncio.gather(*map(take, range(10)))
        await asyncio.sleep(0)
        assert done == [*range(8)]
        await calls
        assert done == [*range(10)]
        await turns.take("/users/@me", None)  # nothing is left over
        done.clear()


async def test_cancelled_calls_leave_the_line_and_are_never_built(clock: ManualClock) -> None:
    async with Logged(clock) as discord:
        calls = [asyncio.ensure_future(discord.post(path(number))) for number in range(MANY)]
        await asyncio.sleep(0)
        for call in calls[20:-1]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert sum(call.cancelled() for call in calls) == MANY - 21
        assert sorted(discord.sent()) == sorted(path(number) for number in (*range(20), MANY - 1))
        assert (await discord.get("/users/@me")).status_code == 200, "and the next ones go at once"


async def test_interactions_and_higher_priorities_go_first(clock: ManualClock) -> None:
    async with Logged(clock) as discord:
        calls = [discord.post(path(number)) for number in range(MANY)]
        calls.append(discord.post(path(1000), extensions={"priority": 5}))
        calls.append(discord.post(CALLBACK))
        calls.append(discord.get(httpx.URL("/webhooks/77/aW50ZXJhY3Rpb246MQ/messages/@original")))
        await asyncio.gather(*calls)
        order = [line.removeprefix("built ") for line in discord.log if line.startswith("built")]
    assert order[8] == CALLBACK
    assert order[9].startswith("/webhooks/77")
    assert order[10] == path(1000)
    assert order[11] == path(8)


@pytest.mark.parametrize("whose", ["client", "call"])
async def test_calls_that_are_ordered_keep_their_order_whatever_their_priorities(
    clock: ManualClock, whose: str
) -> None:
    def options(number: int) -> dict[str, Any]:
        return {"priority": number} | ({} if whose == "client" else {"ordered": True})

    async with Logged(clock, ordered=whose == "client") as discord:
        await asyncio.gather(*(discord.post(path(n), extensions=options(n)) for n in range(50)))
        assert [line for line in discord.log if line.startswith("built")] == [f"built {path(n)}" for n in range(50)]


async def test_the_time_in_the_line_counts_towards_the_deadline(clock: ManualClock) -> None:
    seconds: list[float] = []

    class Noted(Logged):
        def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
            seconds.append(options["extensions"]["deadline"])
            return super().build_request(method, url, **options)

    async with Noted(clock) as discord:
        await asyncio.gather(*(discord.post(path(n), extensions={"deadline": 900}) for n in range(50)))
        assert seconds[:8] == [900] * 8
        assert all(0 < each < 900 for each in seconds[8:])
        calls = (discord.post(path(1), extensions={"deadline": value}) for value in ["2", True, 0, -1] * 5)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in outcomes} == {ValueError}, "a bad one is refused as ever"


async def test_a_client_that_is_closed_ends_the_line(clock: ManualClock) -> None:
    discord = Logged(clock)
    calls = [asyncio.ensure_future(discord.post(path(number))) for number in range(MANY)]
    await asyncio.sleep(0)
    await discord.aclose()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert len(discord.sent()) <= 8
    assert sum(isinstance(each, RuntimeError) for each in outcomes) >= MANY - 8


def test_each_event_loop_has_a_line_of_its_own(clock: ManualClock) -> None:
    discord = Logged(clock)

    @asynccontextmanager
    async def abandoned() -> AsyncIterator[None]:
        calls = [asyncio.ensure_future(discord.post(path(number))) for number in range(MANY)]
        yield
        del calls

    async def first() -> None:
        async with abandoned():
            await asyncio.sleep(0)  # the loop ends in the middle of it

    async def second() -> None:
        await asyncio.gather(*(discord.post(path(number)) for number in range(MANY)))

    asyncio.run(first())
    discord.log.clear()
    asyncio.run(second())
    assert len(discord.sent()) == MANY
    assert discord.built_before_the_first(path(0)) < FEW
