"""Accidents of a server while an app is busy: scripts lost, killed and back, locked, half reachable."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from asgi_ratelimit import TokenBucket
from asgi_ratelimit.limits import Outage
from tests.support.app_server import PATIENCE, Answer, AppServer, ClientRequest, reasons, statuses
from tests.support.faults import loading, refused
from tests.support.servers import Proxy, Server, wait_until

CLIENTS = 200
BURST: list[ClientRequest] = [("/", "ada")] * CLIENTS


def has_event(app_server: AppServer, kind: str) -> bool:
    return any(event.kind == kind for event in app_server.events)


def refusal_to_start(url: str) -> str:
    """The log of an app that does not start."""
    with pytest.raises(RuntimeError) as failed, AppServer(url):
        pass
    return str(failed.value)


def test_no_charge_is_sent_twice(proxy: Proxy, any_redis: Server) -> None:
    users = [f"user {number}" for number in range(CLIENTS)]
    with AppServer(proxy.url) as app_server:
        proxy.cut_answers(to=["EVALSHA"])
        answers = app_server.request(*(("/", user) for user in users))
        proxy.pass_through()
        charged = Counter(80 - left for left in app_server.left(any_redis.url, *users))
    assert {answer.status for answer in answers} == {200}
    assert charged.keys() <= {0, 1}
    assert charged[1]


def test_forgotten_scripts_are_no_outage(any_redis: Server) -> None:
    def forget() -> None:
        for _ in range(20):
            any_redis.command("SCRIPT", "FLUSH")

    with AppServer(any_redis.url, timeout=PATIENCE) as app_server:
        any_redis.command("CONFIG", "RESETSTAT")
        answers = app_server.request(*BURST, meanwhile=forget) + app_server.request(*BURST, meanwhile=forget)
        assert app_server.events == []
    assert statuses(answers, "/") == {200: 80, 429: 2 * CLIENTS - 80}
    assert reasons(answers) <= {"ok", "limited", "cached"}
    assert int(any_redis.command("INFO", "errorstats")["errorstat_NOSCRIPT"]["count"]) > 0


def test_a_server_that_is_killed_and_comes_back_is_used_again() -> None:
    with Server() as server, AppServer(server.url, timeout=1.0) as app_server:

        def kill_and_restart() -> None:
            time.sleep(0.5)
            server.kill()
            wait_until(lambda: has_event(app_server, "down"), "the outage is noticed")
            server.restart()
            wait_until(lambda: has_event(app_server, "up"), "its end is noticed")

        answers = app_server.request_throughout(CLIENTS, kill_and_restart)
        app_server.wait_until_shared()
        afterwards = app_server.request(*BURST[:80])
        assert app_server.left(server.url, "ada") == [0]
        assert app_server.failures == []
    assert {answer.status for answer in answers} == {200}
    assert statuses(afterwards, "/") == {200: 80}
    assert reasons(afterwards) == {"ok"}


def test_a_server_that_is_down_is_not_dialled_for_each_request(proxy: Proxy, any_redis: Server) -> None:
    with AppServer(proxy.url) as app_server, loading(any_redis, proxy):
        started, before = time.monotonic(), proxy.connections
        for number in range(200):
            app_server.request(("/", f"user {number}"))
        assert proxy.connections - before <= 4 + 2 * (time.monotonic() - started)
        assert len(app_server.logged) == len(app_server.events) == 1


def test_an_app_starts_without_redis_and_connects_later(proxy: Proxy, any_redis: Server) -> None:
    with refused(any_redis, proxy), AppServer(proxy.url) as app_server:
        assert statuses(app_server.request(*BURST), "/") == {200: 80, 429: CLIENTS - 80}
        assert [event.kind for event in app_server.events] == ["down"]
        proxy.pass_through()
        app_server.wait_until_shared()
        assert app_server.request(("/", "ada"))[0].headers["x-ratelimit-remaining"] == "79"
        assert [event.kind for event in app_server.events] == ["down", "up"]
        assert app_server.failures == []


@pytest.mark.parametrize("credentials", ["", ":guess@", "nobody:guess@"])
def test_an_app_with_the_wrong_password_does_not_start(credentials: str) -> None:
    with Server(requirepass="secret") as server:
        where = f"127.0.0.1:{server.port}"
        message = refusal_to_start(f"redis://{credentials}{where}")
    assert message.startswith(where)
    assert "redis://user:password@" in message
    assert "guess" not in message
    assert "Application startup failed" in message


def test_a_user_without_the_right_to_run_scripts_gets_an_error() -> None:
    with Server(user=("app", "on", ">word", "~*", "+@all", "-eval")) as server:
        message = refusal_to_start(f"redis://app:word@127.0.0.1:{server.port}")
    assert "no permissions to run the 'eval' command" in message
    assert "Application startup failed" in message


@pytest.mark.parametrize(
    ("store", "limit", "own", "expected"),
    [
        ("open", ["80/day", TokenBucket("1000/week", outage="closed")], "40/day", (503, 503)),
        ("open", "80/day", TokenBucket("40/day", outage="closed"), (200, 503)),
        ("local", "80/day", TokenBucket("40/day", outage="closed"), (200, 503)),
        ("closed", TokenBucket("80/day", outage="local"), TokenBucket("40/day", outage="open"), (200, 200)),
        ("closed", TokenBucket("80/day", outage="open"), "40/day", (200, 503)),
    ],
)
def test_a_limit_of_its_own_mind_wins_over_the_store(
    proxy: Proxy, any_redis: Server, store: Outage, limit: Any, own: Any, expected: tuple[int, int]
) -> None:
    with refused(any_redis, proxy), AppServer(proxy.url, outage=store, limit=limit, own=own) as app_server:
        answers = app_server.request(("/", "ada"), ("/own", "bob"))
    assert tuple(answer.status for answer in answers) == expected
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 503)


def test_of_a_list_only_local_limits_are_counted(proxy: Proxy, any_redis: Server) -> None:
    limit = [TokenBucket("20/week", outage="open"), TokenBucket("80/day", outage="local")]
    with refused(any_redis, proxy), AppServer(proxy.url, outage="closed", limit=limit) as app_server:
        assert statuses(app_server.request(*BURST), "/") == {200: 80, 429: CLIENTS - 80}


def test_where_only_probes_get_through_the_log_is_not_flooded(proxy: Proxy) -> None:
    answers: list[Answer] = []
    with AppServer(proxy.url) as app_server:
        started = time.monotonic()
        proxy.cut_answers(to=["EVALSHA"])
        while time.monotonic() < started + 1.5:
            answers += app_server.request(*[("/", "ada")] * 20)
        assert {answer.status for answer in answers} == {200, 429}
        assert 2 <= len(app_server.logged) == len(app_server.events) <= 12
        assert proxy.connections <= 12
        assert app_server.failures == []
