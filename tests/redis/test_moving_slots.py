"""An app on a cluster: slots that move, nodes that die, replicas that take their place."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore
from tests.support.app_server import PATIENCE, AppServer, ClientRequest, reasons, statuses
from tests.support.servers import Cluster, Server, wait_until

USER = "ada"
BURST: list[ClientRequest] = [("/", USER)] * 200


def slot_of_user(cluster: Cluster, app_server: AppServer) -> int:
    """Where the bucket of the only user is."""
    assert app_server.request(("/", USER))[0].reasons == {"ok"}
    return the_slot(cluster)


def the_slot(cluster: Cluster) -> int:
    """Where everything is."""
    keys = {key for node in cluster.nodes for key in node.command("KEYS", "*") if "probe" not in key}
    (slot,) = {cluster.slot_of(key) for key in keys}
    return slot


def other_than(cluster: Cluster, owner: Server) -> Server:
    return next(node for node in cluster.nodes if node is not owner)


def test_a_slot_that_has_moved_is_followed(cluster: Cluster) -> None:
    with AppServer(cluster.url, timeout=PATIENCE) as app_server:
        slot = slot_of_user(cluster, app_server)
        owner = cluster.owner(slot)
        cluster.move_slot(slot, other_than(cluster, owner))
        answers = app_server.request(*BURST[:9])
        owner.command("CONFIG", "RESETSTAT")
        answers += app_server.request(*BURST)
        assert statuses(answers, "/") == {200: 79, 429: 130}
        assert reasons(answers) <= {"ok", "limited", "cached"}
        assert not receives_checks(owner)
        assert app_server.left(cluster.url, USER) == [0]
        assert (app_server.events, app_server.logged, app_server.failures) == ([], [], [])


def test_a_slot_on_the_move_is_never_an_error(cluster: Cluster) -> None:
    with AppServer(cluster.url, timeout=PATIENCE) as app_server:
        slot = slot_of_user(cluster, app_server)
        target = other_than(cluster, cluster.owner(slot))
        cluster.open_slot(slot, target)
        answers = app_server.request(*[("/", USER)] * 20)
        cluster.carry_keys(slot, target)
        answers += app_server.request(*[("/", USER)] * 20)
        cluster.close_slot(slot, target)
        afterwards = app_server.request(*[("/", USER)] * 20)
        assert (app_server.events, app_server.logged, app_server.failures) == ([], [], [])
    assert statuses(answers, "/") == {200: 40}
    assert reasons(answers) <= {"ok", "degraded"}
    assert statuses(afterwards, "/") == {200: 20}
    assert reasons(afterwards) == {"ok"}


@pytest.mark.anyio
async def test_a_key_that_has_moved_is_checked_at_its_new_node(cluster: Cluster) -> None:
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
    assert receives_checks(target)


def test_a_slot_that_moves_under_load_is_never_an_error(cluster: Cluster) -> None:
    with AppServer(cluster.url, timeout=PATIENCE, limit="10000/day") as app_server:
        slot = slot_of_user(cluster, app_server)

        def move_to_and_fro() -> None:
            for _ in range(3):
                cluster.move_slot(slot, other_than(cluster, cluster.owner(slot)))

        answers = app_server.request(*BURST, *BURST, meanwhile=move_to_and_fro)
        afterwards = app_server.request(*BURST)
        assert {event.kind for event in app_server.events} <= {"missed"}  # half of a slot's keys were elsewhere
        assert app_server.failures == []
    assert {answer.status for answer in answers} == {200}
    assert reasons(answers) <= {"ok", "degraded"}
    assert reasons(afterwards) == {"ok"}


def test_a_dead_node_is_no_trouble_to_the_others() -> None:
    with Cluster(cluster_require_full_coverage="no") as cluster, AppServer(cluster.url, timeout=1.0) as app_server:
        slot = slot_of_user(cluster, app_server)
        dead = cluster.owner(slot)
        users = [f"user {number}" for number in range(200)]
        app_server.request(*(("/", user) for user in users))
        dead.kill()
        answers = app_server.request(*(("/", user) for user in users))
        served = {reason: sum(answer.reasons == {reason} for answer in answers) for reason in ("ok", "degraded")}
        assert {answer.status for answer in answers} == {200}
        assert sum(served.values()) == len(users)
        assert min(served.values()) > 30
        assert statuses(app_server.request(*BURST), "/") == {200: 79, 429: 121}
        dead.restart()
        cluster.wait_until_ok()
        app_server.wait_until_shared(user=USER)
        app_server.wait_until_shared(user="another")
        assert {event.node for event in app_server.events} == {f"127.0.0.1:{dead.port}"}
        assert [event.kind for event in app_server.events] == ["down", "up"]
        assert len(app_server.logged) == 2
        assert app_server.failures == []


def test_a_replica_that_takes_over_receives_the_checks(record_property: Callable[[str, object], None]) -> None:
    partial = Cluster(replicas=1, cluster_require_full_coverage="no")  # else the others stop as well
    with partial as cluster, AppServer(cluster.url, timeout=1.0) as app_server:
        old, new = cluster.master_and_replica(slot_of_user(cluster, app_server))
        moments: list[float] = []

        def fail_over() -> None:
            time.sleep(0.5)
            moments.append(time.monotonic())
            old.kill()
            wait_until(lambda: new.role == "master", f"{new!r} takes over")
            moments.append(time.monotonic())
            wait_until(lambda: receives_checks(new), "the app uses it")
            moments.append(time.monotonic())

        answers = app_server.request_throughout(200, fail_over)
        app_server.wait_until_shared(user=USER)
        assert app_server.left(cluster.url, USER)[0] < 79
        assert {event.node for event in app_server.events} == {f"127.0.0.1:{old.port}"}
        assert [event.kind for event in app_server.events] == ["down", "up"]
        assert "has been replaced" in app_server.logged[1]
        assert app_server.failures == []
    killed, elected, followed = moments
    assert {answer.status for answer in answers} == {200}
    record_property("seconds until a replica took over", round(elected - killed, 3))
    record_property("seconds until the app used it", round(followed - killed, 3))
    print(f"\nA replica after {elected - killed:.2f} s, used after {followed - killed:.2f} s")  # noqa: T201


def receives_checks(server: Server) -> bool:
    """Whether it has run the script."""
    return "cmdstat_evalsha" in server.command("INFO", "commandstats")
