"""Whether a server receives checks: not after a failure, until a probe has succeeded."""

from __future__ import annotations

import logging

import pytest
from redis.exceptions import NoPermissionError

from asgi_ratelimit.redis import StoreEvent
from asgi_ratelimit.redis.breaker import Breaker
from tests.support.servers import wait_until


def tripped(events: list[StoreEvent]) -> Breaker:
    breaker = Breaker("host:1", events.append)
    breaker.trip(OSError("gone"))
    return breaker


def test_a_failure_opens_it_and_the_first_probe_may_go_at_once() -> None:
    breaker = Breaker("host:1", None)
    assert not breaker.is_open
    assert not breaker.may_probe()
    breaker.trip(OSError("gone"))
    assert breaker.is_open
    assert breaker.may_probe()


def test_a_probe_that_fails_is_followed_by_a_pause() -> None:
    breaker = tripped([])
    breaker.record_probe(OSError("still gone"))
    assert breaker.is_open
    assert not breaker.may_probe()
    wait_until(breaker.may_probe, "the pause is over", seconds=5)


def test_the_pause_after_a_probe_counts_from_its_start() -> None:
    breaker = tripped([])
    for _ in range(5):
        breaker.record_probe(OSError("too late"), breaker.now() - 1.0)
        assert breaker.may_probe()


def test_checks_that_missed_it_are_reported_while_it_is_closed_and_else_at_its_end() -> None:
    events: list[StoreEvent] = []
    breaker = tripped(events)
    breaker.missed = 3
    breaker.report_missed("too late")
    breaker.record_probe(None)
    breaker.report_missed("too late")
    breaker.missed = 2
    breaker.report_missed("too late")
    assert [(event.kind, event.cause, event.checks) for event in events] == [
        ("down", "gone", 0),
        ("up", "gone", 3),
        ("missed", "too late", 2),
    ]


def test_a_server_that_is_back_and_does_not_let_us_work_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    breaker = tripped([])
    for _ in range(3):
        breaker.record_probe(NoPermissionError("no permissions to run 'time'"))
        breaker.trip(OSError("gone again"))
    assert breaker.cause == "no permissions to run 'time'"
    assert [record.getMessage() for record in caplog.records] == [
        "host:1 is unavailable: gone",
        "host:1 is still unavailable: no permissions to run 'time'",
    ]


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = tripped([])
    breaker.record_probe(None)
    assert not breaker.is_open
    assert not breaker.may_probe()


def test_each_change_is_emitted_once() -> None:
    events: list[StoreEvent] = []
    breaker = tripped(events)
    breaker.trip(OSError("gone again"))
    breaker.record_probe(OSError("still gone"))
    breaker.record_probe(None)
    assert [(event.kind, event.node, event.cause) for event in events] == [
        ("down", "host:1", "gone"),
        ("up", "host:1", "gone"),
    ]
    assert events[0].seconds == 0.0
    assert 0.0 <= events[1].seconds < 60.0


def test_an_error_without_words_is_called_by_its_name() -> None:
    events: list[StoreEvent] = []
    breaker = Breaker("host:1", events.append)
    breaker.trip(TimeoutError())
    assert (breaker.cause, events[0].cause) == ("TimeoutError", "TimeoutError")


def test_an_event_hook_that_fails_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: StoreEvent) -> None:
        raise RuntimeError("no")

    breaker = Breaker("host:1", fail)
    with caplog.at_level(logging.ERROR, "asgi_ratelimit"):
        breaker.trip(OSError("gone"))
    assert breaker.is_open
    assert "on_event failed" in caplog.text


def test_each_change_is_one_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "asgi_ratelimit"):
        breaker = tripped([])
        breaker.record_probe(None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert caplog.messages[0] == "host:1 is unavailable: gone"
    assert caplog.messages[1].startswith("host:1 answers again after 0.0")
