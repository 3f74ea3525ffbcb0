"""Permits in Redis when things go wrong: outages, forgotten scripts, foreign records, callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from random import Random

import pytest

from asgi_ratelimit import Limiter, StoreUnavailable
from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import AWAIT_RESPONSE, EXPIRY_US, Granted, Permit
from asgi_ratelimit.discord.permits.shared import SharedPermits, shared_permits
from asgi_ratelimit.redis import RedisStore
from tests.discord.permits.replies import Names, cause_of, new_call, permit_of, wait_of
from tests.support.server_counts import clients
from tests.support.servers import Cluster, Proxy, Server, wait_until
from tests.support.stores import PATIENCE, names_of, new_store, spoilt

OWNER, ROUTE, MAJOR = "token.of-a.bot", "POST /channels/{channel_id}/messages", "123456789"
REPORT = CallReport("answered", "abcdef0123456789", 5, 4, 60_000_000)
S = 1_000_000

pytestmark = pytest.mark.anyio
_names = count()


def call(major: str = MAJOR, route: str = ROUTE, per_second: int = 50) -> Names:
    return new_call(major, route, per_second)


async def permit(permits: SharedPermits, wanted: Names | None = None) -> Permit:
    return permit_of(await permits.take(*(wanted or call())))


async def learn(permits: SharedPermits, report: CallReport = REPORT, wanted: Names | None = None) -> None:
    await permits.settle(await permit(permits, wanted), report)


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        yield store


@pytest.fixture
def permits(store: RedisStore) -> SharedPermits:
    return shared_permits(store, OWNER)


def record_of(server: Server) -> str:
    (name,) = names_of(server, "*:bucket:*")
    return name


# Outages


@pytest.mark.parametrize("outage", ["local", "open"])
async def test_while_the_server_is_away_this_process_goes_on_by_the_last_replies(outage: str) -> None:
    with Server() as server:
        async with new_store(server.url, outage=outage, timeout=0.5) as store:
            permits = shared_permits(store, OWNER)
            await learn(permits, CallReport("answered", "b", 3, 2, 60 * S))
            await learn(permits, CallReport("limited", "c", 1, 0, 60 * S, 60 * S), call("other"))
            server.kill()
            reply = await permits.take(*call())
            assert (reply.bucket, reply.limit, reply.remaining, reply.in_flight) == ("b", 3, 2, 1)
            await permit(permits)
            assert wait_of(await permits.take(*call())) == AWAIT_RESPONSE
            assert cause_of(await permits.take(*call("other"))) == "route"


async def test_calls_that_are_in_flight_when_the_server_goes_away_are_counted_here_too() -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.5) as store:
            permits = shared_permits(store, OWNER)
            await learn(permits, CallReport("answered", "b", 3, 2, 60 * S))
            held = [await permit(permits), await permit(permits)]
            server.kill()
            assert cause_of(await permits.take(*call())) == "answer"
            assert cause_of(await permits.take(*call("other", "POST /other", per_second=2))) == "global"
            for each in held:
                permits.settle(each, CallReport("unsent"))
            assert (await permits.take(*call())).in_flight == 1


async def test_a_permit_granted_without_the_server_is_settled_with_it_when_it_is_back() -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.5) as store:
            permits = shared_permits(store, OWNER)
            await learn(permits)
            server.kill()
            here, lost = await permit(permits), await permit(permits)
            await permits.settle(lost, REPORT)  # nobody fails for it
            server.restart()
            async with asyncio.timeout(PATIENCE):
                while not names_of(server):
                    await permits.take(*call(str(next(_names)), per_second=0))
                    await asyncio.sleep(0.01)
            await permits.settle(here, REPORT)
            reply = await permits.take(*call())
            assert (reply.bucket, reply.remaining, reply.in_flight) == (REPORT.bucket, 4, 1)


async def test_a_store_that_is_to_be_closed_permits_nothing_without_its_server() -> None:
    with Server() as server:
        async with new_store(server.url, outage="closed", timeout=0.5) as store:
            permits = shared_permits(store, OWNER)
            given = await permit(permits)
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"Redis cannot answer .*, and no call is to go without it"):
                await permits.take(*call())
            await permits.settle(given, REPORT)
            assert not permits.sweep()


async def test_a_permit_that_came_too_late_and_is_used_is_not_returned(proxy: Proxy, any_redis: Server) -> None:
    """The server gives it after this process has given it itself, and a call goes under its name."""
    async with new_store(proxy.url, outage="local", timeout=0.3) as store:
        permits = shared_permits(store, OWNER)
        await learn(permits)
        proxy.delay(0.2)
        first = await permit(permits)
        await asyncio.to_thread(wait_until, lambda: first.name in in_flight(any_redis), "it is out")
        proxy.pass_through()


def in_flight(server: Server) -> list[str]:
    texts = [server.command("GET", name) for name in names_of(server, "*:bucket:*")]
    return [word for text in texts if text for word in text.split()[11::2]]  # None: expired since it was listed


async def test_forgotten_scripts_are_no_outage(any_redis: Server, store: RedisStore, permits: SharedPermits) -> None:
    limiter = Limiter("1000/day", store=store)
    for _ in range(5):
        any_redis.command("SCRIPT", "FLUSH")
        reply, decision, again = await asyncio.gather(
            permits.take(*call("1")), limiter.try_acquire("a"), permit(permits, call("2"))
        )
        assert decision.reason == "ok"
        await asyncio.gather(permits.settle(permit_of(reply), REPORT), permits.settle(again, REPORT))
    assert (await permits.take(*call("1"))).bucket == REPORT.bucket


# Records


async def test_names_reveal_no_owner_route_resource_or_bucket(any_redis: Server, permits: SharedPermits) -> None:
    await learn(permits)
    await learn(permits, CallReport("limited", REPORT.bucket, 5, 0, S, 60 * S), call(route="GET /b"))
    await learn(permits, CallReport("banned", retry_us=60 * S), call("2"))
    names = names_of(any_redis)
    assert {name.split(":")[3] for name in names} == {"held", "stop", "hash", "lock", "bucket"}
    assert len({name[: name.index("}")] for name in names}) == 1
    for secret in (OWNER, "token", ROUTE, "channels", "POST", MAJOR, REPORT.bucket):
        assert not any(secret in name for name in names)


async def test_with_another_secret_names_are_others(any_redis: Server) -> None:
    for secret in ("one", "other"):
        async with new_store(any_redis.url, prefix="same", secret=secret) as store:
            await permit(shared_permits(store, OWNER))
    tags = {name.split("}")[0] for name in names_of(any_redis)}
    routes = {name.split(":bucket:")[1] for name in names_of(any_redis, "*:bucket:*")}
    assert len(tags) == len(routes) == 2


async def test_every_record_goes_by_itself(any_redis: Server, permits: SharedPermits) -> None:
    await learn(permits)
    await learn(permits, CallReport("sublimited", retry_us=30 * S), call(route="GET /b"))
    await learn(permits, CallReport("stopped", retry_us=20 * S), call("2"))
    with any_redis.client() as client:
        left = {name.split(":")[3]: client.pttl(name) for name in names_of(any_redis) if ":bucket:" not in name}
        bucket = max(client.pttl(name) for name in names_of(any_redis, "*:bucket:*"))
    assert 0 < left["held"] <= EXPIRY_US / 1000 + 1
    assert 15_000 < left["stop"] <= 20_001
    assert 25_000 < left["lock"] <= 30_002
    assert 6 * 86_400_000 < left["hash"] <= 7 * 86_400_000
    assert 115_000 < bucket <= 120_002  # 60 s until it is full, and 60 s more


async def test_the_set_of_held_permits_outlives_every_permit_in_it(any_redis: Server, permits: SharedPermits) -> None:
    early, late = await permit(permits, call("1")), await permit(permits, call("2"))
    await permits.settle(early, REPORT)
    (name,) = names_of(any_redis, "*:held")
    with any_redis.client() as client:
        assert 10_000 < client.pttl(name) <= EXPIRY_US / 1000 + 1
        assert set(any_redis.command("ZRANGE", name, 0, -1)) == {early.name, late.name}


@pytest.mark.parametrize(
    "value", ["", "x", "1 2 3", "5 0 9 9 9 9 1 0 0 0 0 permit", "5 0 9 9 9 9 1 0 0 0 0 a b", "nan " * 11]
)
async def test_a_text_that_is_no_record_counts_as_none(any_redis: Server, permits: SharedPermits, value: str) -> None:
    await learn(permits)
    with spoilt(any_redis, record_of(any_redis), value):
        reply = await permits.take(*call())
        assert (reply.limit, reply.in_flight, cause_of(reply)) == (0, 1, "")


@pytest.mark.parametrize("end", ["stop", "lock", "hash"])
async def test_records_written_by_other_software_stop_no_call(
    any_redis: Server, permits: SharedPermits, end: str
) -> None:
    await learn(permits, CallReport("answered", "b", 50, 49, 60 * S))
    await learn(permits, CallReport("stopped", retry_us=1_000), call("2"))
    while cause_of(await permits.take(*call("3"))) == "stopped":
        await asyncio.sleep(0.001)
    await learn(permits, CallReport("sublimited", retry_us=3_600 * S))
    any_redis.command("SET", names_of(any_redis, "*:lock:*")[0], "1")
    (name,) = {each for each in names_of(any_redis) if f":{end}" in each} or {f"{permits.names.base}:{end}"}
    for value in ("inf", "inf inf", "0x10 0x10", "9" * 30, "", "nan"):
        any_redis.command("SET", name, value)
        reply = await permits.take(*call())
        assert cause_of(reply) == "" or (end, cause_of(reply)) == ("hash", "answer")


# Many, and those that leave


async def test_a_thousand_at_once_need_one_connection_and_get_all_there_is(
    any_redis: Server, permits: SharedPermits
) -> None:
    calls = [call(str(number), per_second=600) for number in range(1_000)]
    answers = await asyncio.gather(*(permits.take(*each) for each in calls))
    given = [reply.permit for reply in answers if isinstance(reply, Granted)]
    assert len(given) == 600
    assert {cause_of(reply) for reply in answers} == {"", "global"}
    await asyncio.gather(*(permits.settle(each, CallReport("unsent")) for each in given))
    assert not names_of(any_redis, "*:held")
    assert len(clients(any_redis)) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_a_cancelled_caller_takes_no_permit(any_redis: Server, seed: int) -> None:
    random = Random(seed)
    async with new_store(any_redis.url) as store:
        permits = shared_permits(store, OWNER)
        first = await permit(permits)
        await permits.settle(first, CallReport("answered", "b", 500, 499, 60 * S))
        tasks = [asyncio.ensure_future(permits.take(*call(per_second=1_000))) for _ in range(300)]
        victims = random.sample(tasks, 150)
        while victims:
            for _ in range(random.randrange(20)):
                if victims:
                    victims.pop().cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        given = {reply.permit.name for reply in answers if isinstance(reply, Granted)}
        assert 150 <= len(given) < 300
        async with asyncio.timeout(PATIENCE):
            while set(in_flight(any_redis)) != given:
                await asyncio.sleep(0.01)
        (name,) = names_of(any_redis, "*:held")
        assert set(any_redis.command("ZRANGE", name, 0, -1)) - given == {first.name}


async def test_a_caller_cancelled_at_the_moment_of_the_reply_takes_no_permit(
    permits: SharedPermits, any_redis: Server
) -> None:
    await learn(permits)
    waiting = asyncio.ensure_future(permits.take(*call()))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        while not waiting._fut_waiter.done():  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await permits.take(*call())).in_flight == 1


async def test_a_settled_report_counts_for_the_next_call(permits: SharedPermits) -> None:
    given = await permit(permits)
    settling = permits.settle(given, REPORT)
    reply = await permits.take(*call())
    assert (reply.bucket, reply.limit) == (REPORT.bucket, 5)
    await settling


# Several processes, and a cluster


async def test_in_peace_every_record_is_believed(permits: SharedPermits, caplog: pytest.LogCaptureFixture) -> None:
    held = [await permit(permits, call(str(number))) for number in range(3)]
    for each in held:
        await permits.settle(each, REPORT)
    await permit(permits, call("1"))
    assert not caplog.records


async def test_processes_share_their_learned_buckets(any_redis: Server) -> None:
    async with new_store(any_redis.url, prefix="same") as one, new_store(any_redis.url, prefix="same") as other:
        mine, theirs = shared_permits(one, OWNER), shared_permits(other, OWNER)
        await learn(mine, CallReport("answered", "b", 2, 1, 60 * S))
        await permit(theirs)
        assert cause_of(await mine.take(*call())) == "answer"


async def test_in_a_cluster_each_owner_has_one_slot(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        owners = [shared_permits(store, f"bot{number}") for number in range(12)]
        for _ in range(3):
            replies = await asyncio.gather(*(owner.take(*call("1")) for owner in owners))
            given = [reply.permit for reply in replies if isinstance(reply, Granted)]
            assert len(given) == len(owners)
            await asyncio.gather(*(owner.settle(each, REPORT) for owner, each in zip(owners, given, strict=True)))
    names = [name for node in cluster.nodes for name in names_of(node)]
    slots: dict[str, set[int]] = {}
    for name in names:
        slots.setdefault(name[: name.index("}")], set()).add(cluster.slot_of(name))
    assert len(slots) == len(owners)
    assert all(len(each) == 1 for each in slots.values())
