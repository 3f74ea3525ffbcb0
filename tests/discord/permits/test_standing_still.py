"""Permits in Redis while it stands still, and in a process that has nothing else to send: they are given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pytest

from asgi_ratelimit import StoreUnavailable
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import Granted
from asgi_ratelimit.discord.permits.shared import SharedPermits, shared_permits
from asgi_ratelimit.redis import StoreEvent
from asgi_ratelimit.testing import ManualClock
from tests.discord.permits.replies import cause_of, wait_of
from tests.discord.permits.test_shared import OWNER, S, call, in_flight, learn, permit
from tests.support.server_counts import clients
from tests.support.servers import Server
from tests.support.stores import PATIENCE, calls_of_the_script, names_of, new_store

pytestmark = pytest.mark.anyio
_names = count()


async def until_permitted(permits: SharedPermits) -> None:
    async with asyncio.timeout(PATIENCE):
        while not isinstance(await permits.take(*call()), Granted):
            await asyncio.sleep(0.01)


@contextmanager
def standing_still(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@pytest.mark.parametrize(
    "report", [CallReport("answered", "b", 1, 0, 250_000), CallReport("lost"), CallReport("unsent")]
)
async def test_what_is_settled_while_the_server_stands_still_reaches_it_later(report: CallReport) -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.3) as store:
            permits = shared_permits(store, OWNER)
            await learn(permits, CallReport("answered", "b", 1, 0, 250_000))
            await asyncio.sleep(0.3)
            held = await permit(permits)
            with standing_still(server):
                await permits.settle(held, report)
            await until_permitted(permits)
            assert held.name not in in_flight(server)


@pytest.mark.parametrize("outage", ["local", "closed"])
async def test_so_does_a_permit_that_was_taken_and_never_received(outage: str) -> None:
    with Server() as server:
        async with new_store(server.url, outage=outage, timeout=0.3) as store:
            permits = shared_permits(store, OWNER)
            await learn(permits, CallReport("answered", "b", 1, 0, 250_000))
            await asyncio.sleep(0.3)
            wanted = [call(), call()]
            with standing_still(server):
                replies = await asyncio.gather(*(permits.take(*each) for each in wanted), return_exceptions=True)
                for reply in replies:
                    if isinstance(reply, Granted):
                        await permits.settle(reply.permit, CallReport("unsent"))
            names = {each[0] for each in wanted}
            async with asyncio.timeout(PATIENCE):
                while len(names_of(server, "*:bucket:*")) < 2 or names & set(in_flight(server)):
                    with suppress(StoreUnavailable):
                        await permits.take(*call("other"))
                    await asyncio.sleep(0.01)


async def test_a_refusal_that_reaches_the_server_late_ends_when_it_was_to_end() -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.3) as store:
            permits = shared_permits(store, OWNER)
            held = await permit(permits)
            with standing_still(server):
                await permits.settle(held, CallReport("stopped", retry_us=20 * S))
            async with asyncio.timeout(PATIENCE):
                while not names_of(server, "*:stop"):
                    await permits.take(*call(str(next(_names))))
                    await asyncio.sleep(0.01)
            reply = await permits.take(*call())
            assert cause_of(reply) == "stopped"
            assert wait_of(reply) <= 19 * S, "it was away for a second at least"


# A process that has nothing else to send


class Owing:
    """A store whose server stands still for a while, and does not receive that a permit comes back."""

    def __init__(self, server: Server, clock: ManualClock | None = None) -> None:
        self._events: list[StoreEvent] = []
        self._server = server
        self.store = new_store(server.url, on_event=self._events.append, outage="local", timeout=0.3, clock=clock)
        self._permits = shared_permits(self.store, OWNER)

    async def miss(self) -> list[str]:
        """The permit's name, once the server answers again."""
        first, held = await permit(self._permits, call("1")), await permit(self._permits, call("2"))
        with standing_still(self._server):
            await self._permits.settle(first, CallReport("unsent"))  # from now on nothing is sent to it
            await self._permits.settle(held, CallReport("unsent"))
        async with asyncio.timeout(PATIENCE):
            while self._events[-1].kind != "up" or first.name in in_flight(self._server):
                await asyncio.sleep(0.01)
        return [held.name]

    async def until_given_back(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while in_flight(self._server):
                await asyncio.sleep(0.01)


async def test_an_idle_process_gives_back_what_the_server_has_missed() -> None:
    with Server() as server:
        owing = Owing(server)
        async with owing.store:
            await owing.miss()
            await owing.until_given_back()


async def test_it_tries_that_after_half_a_second_of_its_clock_and_stops_when_nothing_is_owed(
    clock: ManualClock,
) -> None:
    with Server() as server:
        owing = Owing(server, clock)
        async with owing.store:
            held, calls = await owing.miss(), calls_of_the_script(server)
            clock.advance(0.499)
            await asyncio.sleep(0.05)
            assert (in_flight(server), calls_of_the_script(server)) == (held, calls)
            clock.advance(0.001)
            await owing.until_given_back()
            calls = calls_of_the_script(server)
            for _ in range(4):
                clock.advance(0.5)
                await asyncio.sleep(0.01)
            assert calls_of_the_script(server) == calls


async def test_it_does_not_open_a_store_again_that_was_closed(clock: ManualClock) -> None:
    with Server() as server:
        owing = Owing(server, clock)
        async with owing.store:
            held = await owing.miss()
            await owing.store.aclose()
            clock.advance(0.5)
            await asyncio.sleep(0.05)
            assert in_flight(server) == held
            assert not clients(server)


def test_what_one_event_loop_owes_is_given_back_by_the_next(clock: ManualClock) -> None:
    async def miss() -> None:
        async with owing.store:
            await owing.miss()

    async def come_back() -> None:
        async with owing.store:
            await owing.miss()
            clock.advance(0.5)
            await owing.until_given_back()

    with Server() as server:
        owing = Owing(server, clock)
        asyncio.run(miss())
        asyncio.run(come_back())


async def test_a_refusal_that_is_sent_several_times_counts_once(clock: ManualClock) -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.3, clock=clock) as store:
            permits = shared_permits(store, OWNER)
            held, started_us = await permit(permits), clock.now_us()
            server.kill()
            await permits.settle(held, CallReport("stopped", retry_us=20 * S))
            for _ in range(4):
                clock.advance(0.5)
                await asyncio.sleep(0.01)
            assert permits.local.sharers == 1.5
            server.restart()
            async with asyncio.timeout(PATIENCE):
                while not names_of(server, "*:stop"):
                    clock.advance(0.5)
                    await asyncio.sleep(0.1)
            reply = await permits.take(*call())
            assert (cause_of(reply), wait_of(reply)) == ("stopped", 20 * S - clock.now_us() + started_us)
