"""Permits in Redis when things go wrong: outages, forgotten scripts, foreign records, callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from random import Random

import pytest

from asgi_ratelimit import Limiter, StoreUnavailable
from asgi_ratelimit.discord.permits.bucket import Answer
from asgi_ratelimit.discord.permits.memory import ANSWER, LEASE_US, Ask, Lease, Permit
from asgi_ratelimit.discord.permits.shared import RedisLeases, shared_permits
from asgi_ratelimit.redis import RedisStore
from tests.support.server_counts import clients
from tests.support.servers import Cluster, Proxy, Server, wait_until
from tests.support.stores import PATIENCE, names_of, new_store, spoilt

OWNER, ROUTE, MAJOR = "token.of-a.bot", "POST /channels/{channel_id}/messages", "123456789"
TOLD = Answer("answered", "abcdef0123456789", 5, 4, 60_000_000)
S = 1_000_000

pytestmark = pytest.mark.anyio
_names = count()


def ask(major: str = MAJOR, route: str = ROUTE, per_second: int = 50) -> Ask:
    return Ask(f"permit{next(_names)}", route, major, per_second)


async def permit(leases: RedisLeases, wanted: Ask | None = None) -> Permit:
    lease = await leases.lease(wanted or ask())
    assert lease.permit is not None, lease
    return lease.permit


async def learn(leases: RedisLeases, answer: Answer = TOLD, wanted: Ask | None = None) -> None:
    await leases.settle(await permit(leases, wanted), answer)


@pytest.fixture
async def store(any_redis: Server) -> AsyncIterator[RedisStore]:
    async with new_store(any_redis.url) as store:
        yield store


@pytest.fixture
def leases(store: RedisStore) -> RedisLeases:
    return shared_permits(store, OWNER)


def record_of(server: Server) -> str:
    (name,) = names_of(server, "*:bucket:*")
    return name


# Outages


@pytest.mark.parametrize("outage", ["local", "open"])
async def test_while_the_server_is_away_this_process_goes_on_by_what_it_was_told(outage: str) -> None:
    with Server() as server:
        async with new_store(server.url, outage=outage, timeout=0.5) as store:
            leases = shared_permits(store, OWNER)
            await learn(leases, Answer("answered", "b", 3, 2, 60 * S))
            await learn(leases, Answer("limited", "c", 1, 0, 60 * S, 60 * S), ask("other"))
            server.kill()
            lease = await leases.lease(ask())
            assert (lease.bucket, lease.limit, lease.remaining, lease.in_flight) == ("b", 3, 2, 1)
            assert (await leases.lease(ask())).permit is not None
            assert (await leases.lease(ask())).wait_us == ANSWER
            assert (await leases.lease(ask("other"))).why == "route"


async def test_calls_that_are_in_flight_when_the_server_goes_away_are_counted_here_too() -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.5) as store:
            leases = shared_permits(store, OWNER)
            await learn(leases, Answer("answered", "b", 3, 2, 60 * S))
            held = [await permit(leases), await permit(leases)]
            server.kill()
            assert (await leases.lease(ask())).why == "answer"
            assert (await leases.lease(ask("other", "POST /other", per_second=2))).why == "global"
            for each in held:
                leases.settle(each, Answer("unsent"))
            assert (await leases.lease(ask())).in_flight == 1


async def test_what_was_permitted_without_the_server_is_settled_with_it_when_it_is_back() -> None:
    with Server() as server:
        async with new_store(server.url, outage="local", timeout=0.5) as store:
            leases = shared_permits(store, OWNER)
            await learn(leases)
            server.kill()
            here, lost = await permit(leases), await permit(leases)
            await leases.settle(lost, TOLD)  # nobody fails for it
            server.restart()
            async with asyncio.timeout(PATIENCE):
                while not names_of(server):
                    await leases.lease(ask(str(next(_names)), per_second=0))
                    await asyncio.sleep(0.01)
            await leases.settle(here, TOLD)
            lease = await leases.lease(ask())
            assert (lease.bucket, lease.remaining, lease.in_flight) == (TOLD.bucket, 4, 1)


async def test_a_store_that_is_to_be_closed_permits_nothing_without_its_server() -> None:
    with Server() as server:
        async with new_store(server.url, outage="closed", timeout=0.5) as store:
            leases = shared_permits(store, OWNER)
            given = await permit(leases)
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"Redis cannot answer .*, and no call is to go without it"):
                await leases.lease(ask())
            await leases.settle(given, TOLD)
            assert not leases.sweep()


async def test_a_permit_that_came_too_late_and_is_used_nobody_gives_back(proxy: Proxy, any_redis: Server) -> None:
    """The server gives it after this process has given it itself, and a call goes under its name."""
    async with new_store(proxy.url, outage="local", timeout=0.3) as store:
        leases = shared_permits(store, OWNER)
        await learn(leases)
        proxy.delay(0.2)
        first = await leases.lease(ask())
        assert first.permit is not None
        await asyncio.to_thread(
            wait_until, lambda: first.permit and first.permit.ask.name in flights(any_redis), "it is out"
        )
        proxy.pass_through()


def flights(server: Server) -> list[str]:
    texts = [server.command("GET", name) for name in names_of(server, "*:bucket:*")]
    return [word for text in texts for word in text.split()[11::2]]


async def test_forgotten_scripts_are_no_outage(any_redis: Server, store: RedisStore, leases: RedisLeases) -> None:
    limiter = Limiter("1000/day", store=store)
    for _ in range(5):
        any_redis.command("SCRIPT", "FLUSH")
        lease, decision, again = await asyncio.gather(
            leases.lease(ask("1")), limiter.try_acquire("a"), permit(leases, ask("2"))
        )
        assert lease.permit is not None
        assert decision.reason == "ok"
        await asyncio.gather(leases.settle(lease.permit, TOLD), leases.settle(again, TOLD))
    assert (await leases.lease(ask("1"))).bucket == TOLD.bucket


# Records


async def test_names_tell_nothing_of_owner_route_resource_or_bucket(any_redis: Server, leases: RedisLeases) -> None:
    await learn(leases)
    await learn(leases, Answer("limited", TOLD.bucket, 5, 0, S, 60 * S), ask(route="GET /b"))
    await learn(leases, Answer("banned", retry_us=60 * S), ask("2"))
    names = names_of(any_redis)
    assert {name.split(":")[3] for name in names} == {"held", "stop", "hash", "lock", "bucket"}
    assert len({name[: name.index("}")] for name in names}) == 1
    for secret in (OWNER, "token", ROUTE, "channels", "POST", MAJOR, TOLD.bucket):
        assert not any(secret in name for name in names)


async def test_with_another_secret_names_are_others(any_redis: Server) -> None:
    for secret in ("one", "other"):
        async with new_store(any_redis.url, prefix="same", secret=secret) as store:
            await permit(shared_permits(store, OWNER))
    tags = {name.split("}")[0] for name in names_of(any_redis)}
    routes = {name.split(":bucket:")[1] for name in names_of(any_redis, "*:bucket:*")}
    assert len(tags) == len(routes) == 2


async def test_every_record_goes_by_itself(any_redis: Server, leases: RedisLeases) -> None:
    await learn(leases)
    await learn(leases, Answer("sublimited", retry_us=30 * S), ask(route="GET /b"))
    await learn(leases, Answer("stopped", retry_us=20 * S), ask("2"))
    with any_redis.client() as client:
        left = {name.split(":")[3]: client.pttl(name) for name in names_of(any_redis) if ":bucket:" not in name}
        bucket = max(client.pttl(name) for name in names_of(any_redis, "*:bucket:*"))
    assert 0 < left["held"] <= LEASE_US / 1000 + 1
    assert 15_000 < left["stop"] <= 20_001
    assert 25_000 < left["lock"] <= 30_002
    assert 6 * 86_400_000 < left["hash"] <= 7 * 86_400_000
    assert 115_000 < bucket <= 120_002  # 60 s until it is full, and 60 s more


async def test_the_set_of_what_is_held_outlives_every_permit_in_it(any_redis: Server, leases: RedisLeases) -> None:
    early, late = await permit(leases, ask("1")), await permit(leases, ask("2"))
    await leases.settle(early, TOLD)
    (name,) = names_of(any_redis, "*:held")
    with any_redis.client() as client:
        assert 10_000 < client.pttl(name) <= LEASE_US / 1000 + 1
        assert set(any_redis.command("ZRANGE", name, 0, -1)) == {early.ask.name, late.ask.name}


@pytest.mark.parametrize(
    "value", ["", "x", "1 2 3", "5 0 9 9 9 9 1 0 0 0 0 permit", "5 0 9 9 9 9 1 0 0 0 0 a b", "nan " * 11]
)
async def test_what_is_no_record_counts_as_none(any_redis: Server, leases: RedisLeases, value: str) -> None:
    await learn(leases)
    with spoilt(any_redis, record_of(any_redis), value):
        lease = await leases.lease(ask())
        assert (lease.limit, lease.in_flight, lease.permit is None) == (0, 1, False)


@pytest.mark.parametrize("end", ["stop", "lock", "hash"])
async def test_what_somebody_else_has_written_holds_nobody(any_redis: Server, leases: RedisLeases, end: str) -> None:
    await learn(leases, Answer("answered", "b", 50, 49, 60 * S))
    await learn(leases, Answer("stopped", retry_us=1_000), ask("2"))
    while (await leases.lease(ask("3"))).why == "stopped":
        await asyncio.sleep(0.001)
    await learn(leases, Answer("sublimited", retry_us=3_600 * S))
    any_redis.command("SET", names_of(any_redis, "*:lock:*")[0], "1")
    (name,) = {each for each in names_of(any_redis) if f":{end}" in each} or {f"{leases.names.base}:{end}"}
    for value in ("inf", "inf inf", "0x10 0x10", "9" * 30, "", "nan"):
        any_redis.command("SET", name, value)
        lease = await leases.lease(ask())
        assert lease.permit is not None or (end, lease.why) == ("hash", "answer")


@pytest.mark.parametrize("pattern", ["*:bucket:*", "*:hash:*", "*:lock:*"])
async def test_a_record_of_another_type_concerns_nobody_else(
    any_redis: Server, leases: RedisLeases, pattern: str
) -> None:
    await learn(leases, TOLD)
    await learn(leases, Answer("sublimited", retry_us=S))
    (name,) = names_of(any_redis, pattern)
    with spoilt(any_redis, name, "list"):
        spoiled, fine = await asyncio.gather(
            leases.lease(ask()), leases.lease(ask("2", "GET /b")), return_exceptions=True
        )
        assert isinstance(spoiled, StoreUnavailable)
        assert "WRONGTYPE" in str(spoiled)
        assert isinstance(fine, Lease)
        assert fine.permit is not None


# Many, and those that leave


async def test_a_thousand_at_once_need_one_connection_and_get_what_there_is(
    any_redis: Server, leases: RedisLeases
) -> None:
    asked = [ask(str(number), per_second=600) for number in range(1_000)]
    answers = await asyncio.gather(*(leases.lease(each) for each in asked))
    given = [lease.permit for lease in answers if lease.permit is not None]
    assert len(given) == 600
    assert {lease.why for lease in answers} == {"", "global"}
    await asyncio.gather(*(leases.settle(each, Answer("unsent")) for each in given))
    assert not names_of(any_redis, "*:held")
    assert len(clients(any_redis)) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_leaves_takes_no_permit(any_redis: Server, seed: int) -> None:
    random = Random(seed)
    async with new_store(any_redis.url) as store:
        leases = shared_permits(store, OWNER)
        first = await permit(leases)
        await leases.settle(first, Answer("answered", "b", 500, 499, 60 * S))
        tasks = [asyncio.ensure_future(leases.lease(ask(per_second=1_000))) for _ in range(300)]
        victims = random.sample(tasks, 150)
        while victims:
            for _ in range(random.randrange(20)):
                if victims:
                    victims.pop().cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        given = {lease.permit.ask.name for lease in answers if isinstance(lease, Lease) and lease.permit}
        assert 150 <= len(given) < 300
        async with asyncio.timeout(PATIENCE):
            while set(flights(any_redis)) != given:
                await asyncio.sleep(0.01)
        (name,) = names_of(any_redis, "*:held")
        assert set(any_redis.command("ZRANGE", name, 0, -1)) - given == {first.ask.name}


async def test_a_caller_who_leaves_at_the_moment_of_the_answer_takes_no_permit(
    leases: RedisLeases, any_redis: Server
) -> None:
    await learn(leases)
    waiting = asyncio.ensure_future(leases.lease(ask()))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        while not waiting._fut_waiter.done():  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await leases.lease(ask())).in_flight == 1


async def test_what_is_settled_is_known_to_whoever_asks_next(leases: RedisLeases) -> None:
    given = await permit(leases)
    told = leases.settle(given, TOLD)
    lease = await leases.lease(ask())
    assert (lease.bucket, lease.limit) == (TOLD.bucket, 5)
    await told


# Several processes, and a cluster


async def test_processes_share_what_they_learn(any_redis: Server) -> None:
    async with new_store(any_redis.url, prefix="same") as one, new_store(any_redis.url, prefix="same") as other:
        mine, theirs = shared_permits(one, OWNER), shared_permits(other, OWNER)
        await learn(mine, Answer("answered", "b", 2, 1, 60 * S))
        await permit(theirs)
        assert (await mine.lease(ask())).why == "answer"


async def test_in_a_cluster_each_owner_has_one_slot(cluster: Cluster) -> None:
    async with new_store(cluster.url) as store:
        owners = [shared_permits(store, f"bot{number}") for number in range(12)]
        for _ in range(3):
            leases = await asyncio.gather(*(owner.lease(ask("1")) for owner in owners))
            given = [lease.permit for lease in leases if lease.permit is not None]
            assert len(given) == len(owners)
            await asyncio.gather(*(owner.settle(each, TOLD) for owner, each in zip(owners, given, strict=True)))
    names = [name for node in cluster.nodes for name in names_of(node)]
    slots: dict[str, set[int]] = {}
    for name in names:
        slots.setdefault(name[: name.index("}")], set()).add(cluster.slot_of(name))
    assert len(slots) == len(owners)
    assert all(len(each) == 1 for each in slots.values())
