"""Sentinel puts a replica in the place of a master that was killed, and a busy app goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.app_server import AppServer, reasons
from tests.support.servers import Sentinels, wait_until

CLIENTS = 200
BOUND = 10.0  # seconds from a new master until it decides; a probe goes out every second at least


def test_a_failover_under_load_is_followed(
    sentinels: Sentinels, record_property: Callable[[str, object], None]
) -> None:
    old = sentinels.master()
    moments: list[float] = []
    with AppServer(sentinels.url, timeout=1.0) as app_server:

        def fail_over() -> None:
            time.sleep(1.0)
            moments.append(time.monotonic())
            old.kill()
            sentinels.wait_for_new_master(old)
            moments.append(time.monotonic())
            wait_until(lambda: [event.kind for event in app_server.events] == ["down", "up"], "the new master decides")
            moments.append(time.monotonic())
            time.sleep(1.0)

        answers = app_server.request_throughout(CLIENTS, fail_over)
        new = sentinels.master()
        assert app_server.request(("/", "ada"))[0].headers["x-ratelimit-remaining"] == "79"
        assert app_server.left(new.url, "ada") == [79]
        assert len(app_server.logged) == 2
        assert app_server.failures == []
    killed, elected, recovered = moments
    record_property("seconds until there was a new master", round(elected - killed, 3))
    record_property("seconds until the app had recovered", round(recovered - killed, 3))
    print(f"\nA new master after {elected - killed:.2f} s, recovered after {recovered - killed:.2f} s")  # noqa: T201
    assert new is not old
    assert {answer.status for answer in answers} == {200}
    assert reasons(answer for answer in answers if answer.sent_at + answer.seconds < killed) == {"ok"}
    assert reasons(answer for answer in answers if answer.sent_at > recovered) == {"ok"}
    assert "degraded" in reasons(answer for answer in answers if killed < answer.sent_at < elected)
    assert recovered - elected < BOUND
