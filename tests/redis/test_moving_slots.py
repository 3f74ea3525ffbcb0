"""A site on a cluster: slots that move, nodes that die, replicas that take their place."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore
from tests.support.app_server import PATIENCE, Ask, Site, reasons, statuses
from tests.support.servers import Cluster, Server, wait_until

USER = "ada"
BURST: list[Ask] = [("/", USER)] * 200


def slot_of_user(cluster: Cluster, site: Site) -> int:
    """Where the bucket of the only user is."""
    assert site.ask(("/", USER))[0].reasons == {"ok"}
    return the_slot(cluster)


def the_slot(cluster: Cluster) -> int:
    """Where everything is."""
    keys = {key for node in cluster.nodes for key in node.command("KEYS", "*") if "probe" not in key}
    (slot,) = {cluster.slot_of(key) for key in keys}
    return slot


def other_than(cluster: Cluster, owner: Server) -> Server:
    return next(node for node in cluster.nodes if node is not owner)


def test_a_slot_that_has_moved_is_followed(cluster: Cluster) -> None:
    with Site(cluster.url, timeout=PATIENCE) as site:
        slot = slot_of_user(cluster, site)
        owner = cluster.owner(slot)
        cluster.move_slot(slot, other_than(cluster, owner))
        answers = site.ask(*BURST[:9])
        owner.command("CONFIG", "RESETSTAT")
        answers += site.ask(*BURST)
        assert statuses(answers, "/") == {200: 79, 429: 130}
        assert reasons(answers) <= {"ok", "limited", "cached"}
        assert site.left(cluster.url, USER) == [0]
        assert not is_asked(owner)
        assert (site.events, site.said, site.failures) == ([], [], [])


def test_a_slot_on_the_move_is_never_an_error(cluster: Cluster) -> None:
    with Site(cluster.url, timeout=PATIENCE) as site:
        slot = slot_of_user(cluster, site)
        target = other_than(cluster, cluster.owner(slot))
        cluster.open_slot(slot, target)
        answers = site.ask(*[("/", USER)] * 20)
        cluster.carry_keys(slot, target)
        answers += site.ask(*[("/", USER)] * 20)
        cluster.close_slot(slot, target)
        afterwards = site.ask(*[("/", USER)] * 20)
        assert (site.events, site.said, site.failures) == ([], [], [])
    assert statuses(answers, "/") == {200: 40}
    assert reasons(answers) <= {"ok", "degraded"}
    assert statuses(afterwards, "/") == {200: 20}
    assert reasons(afterwards) == {"ok"}


@pytest.mark.anyio
async def test_whoever_has_moved_already_is_asked_for_at_the_new_place(cluster: Cluster) -> None:
    async with RedisStore(cluster.url, timeout=PATIENCE, deny_cache=0, outage="closed") as store:
        limiter = Limiter("10/day", store=store)
        await limiter.try_acquire(USER)
        await limiter.block(USER, 60)  # both of the user's records exist, else a node knows no more than TRYAGAIN
        slot = the_slot(cluster)
        target = other_than(cluster, cluster.owner(slot))
        cluster.open_slot(slot, target)
        cluster.carry_keys(slot, target)
        decisions = [await limiter.try_acquire(USER) for _ in range(2)]
        cluster.close_slot(slot, target)
    assert [decision.reason for decision in decisions] == ["blocked", "blocked"]
    assert is_asked(target)


def test_a_slot_that_moves_under_load_is_never_an_error(cluster: Cluster) -> None:
    with Site(cluster.url, timeout=PATIENCE, limit="10000/day") as site:
        slot = slot_of_user(cluster, site)

        def move_to_and_fro() -> None:
            for _ in range(3):
                cluster.move_slot(slot, other_than(cluster, cluster.owner(slot)))

        answers = site.ask(*BURST, *BURST, meanwhile=move_to_and_fro)
        afterwards = site.ask(*BURST)
        assert (site.events, site.said, site.failures) == ([], [], [])
    assert {answer.status for answer in answers} == {200}
    assert reasons(answers) <= {"ok", "degraded"}
    assert reasons(afterwards) == {"ok"}


def test_a_dead_node_is_no_trouble_to_the_others() -> None:
    with Cluster(cluster_require_full_coverage="no") as cluster, Site(cluster.url, timeout=1.0) as site:
        slot = slot_of_user(cluster, site)
        dead = cluster.owner(slot)
        users = [f"user {number}" for number in range(200)]
        site.ask(*(("/", user) for user in users))
        dead.kill()
        answers = site.ask(*(("/", user) for user in users))
        served = {reason: sum(answer.reasons == {reason} for answer in answers) for reason in ("ok", "degraded")}
        assert {answer.status for answer in answers} == {200}
        assert sum(served.values()) == len(users)
        assert min(served.values()) > 30
        assert statuses(site.ask(*BURST), "/") == {200: 79, 429: 121}
        dead.restart()
        cluster.wait_until_ok()
        site.wait_until_shared(user=USER)
        site.wait_until_shared(user="somebody else")
        assert {event.node for event in site.events} == {f"127.0.0.1:{dead.port}"}
        assert [event.kind for event in site.events] == ["down", "up"]
        assert len(site.said) == 2
        assert site.failures == []


def test_a_replica_that_takes_over_is_found(record_property: Callable[[str, object], None]) -> None:
    partial = Cluster(replicas=1, cluster_require_full_coverage="no")  # else the others stop as well
    with partial as cluster, Site(cluster.url, timeout=1.0) as site:
        old, new = cluster.master_and_replica(slot_of_user(cluster, site))
        moments: list[float] = []

        def fail_over() -> None:
            time.sleep(0.5)
            moments.append(time.monotonic())
            old.kill()
            wait_until(lambda: new.role == "master", f"{new!r} takes over")
            moments.append(time.monotonic())
            wait_until(lambda: is_asked(new), "the site has found it")
            moments.append(time.monotonic())

        answers = site.ask_all_along(200, fail_over)
        site.wait_until_shared(user=USER)
        assert site.left(cluster.url, USER)[0] < 79
        assert {event.node for event in site.events} == {f"127.0.0.1:{old.port}"}
        assert [event.kind for event in site.events] == ["down", "up"]
        assert "has been replaced" in site.said[1]
        assert site.failures == []
    killed, elected, found = moments
    assert {answer.status for answer in answers} == {200}
    record_property("seconds until a replica took over", round(elected - killed, 3))
    record_property("seconds until the site had found it", round(found - killed, 3))
    print(f"\nA replica after {elected - killed:.2f} s, found after {found - killed:.2f} s")  # noqa: T201


def is_asked(server: Server) -> bool:
    """Whether it has been asked to decide."""
    return "cmdstat_evalsha" in server.command("INFO", "commandstats")
