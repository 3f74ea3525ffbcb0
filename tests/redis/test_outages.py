"""Two hundred requests at once while Redis is down: no error, no wait beyond the deadline, and back by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import faults
from tests.support.app_server import Answer, reasons, statuses
from tests.support.faults import CAUSES, SILENT
from tests.support.outage import AT_ONCE, USED, Case, Seen, lived_through
from tests.support.servers import KINDS

SLACK = 4.0  # seconds for which a small machine may be busy with something else; without a deadline it were ten
LET_IN = {"/": 80 - USED, "/own": 40 - USED}  # by a store in memory that has the earlier charges

MODE_MATTERS = (faults.refused, faults.silent, faults.cut, faults.full)  # each fails in another place
WORDS_MATTER = (faults.replica, faults.full, faults.busy)  # which are not the same in every server
CASES = [
    *(Case(fault) for fault in CAUSES),
    *(Case(fault, mode) for fault in MODE_MATTERS for mode in ("open", "closed")),
    *(Case(fault, kind=kind) for fault in WORDS_MATTER for kind in KINDS[1:]),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def seen(request: pytest.FixtureRequest) -> Seen:
    return lived_through(request.param)


def slowest(answers: list[Answer]) -> float:
    return max(answer.seconds for answer in answers)


def test_no_client_gets_an_error_of_the_server(seen: Seen) -> None:
    assert {answer.status for answer in seen.answers} <= {200, 429, 503}
    assert seen.failures == []


def test_the_answers_are_those_of_the_mode(seen: Seen) -> None:
    assert reasons(seen.before) == {"ok"}
    for path, let_in in LET_IN.items():
        expected = {
            "local": Counter({200: let_in, 429: AT_ONCE - let_in}),
            "open": Counter({200: AT_ONCE}),
            "closed": Counter({503: AT_ONCE}),
        }
        assert statuses(seen.during, path) == expected[seen.case.mode]


def test_every_decision_reports_that_it_was_not_redis(seen: Seen) -> None:
    assert reasons(seen.during + seen.others) == (set() if seen.case.mode == "closed" else {"degraded"})


def test_a_503_says_when_to_come_again(seen: Seen) -> None:
    answers = [answer for answer in seen.during + seen.others if answer.status == 503]
    assert len(answers) == (4 * AT_ONCE if seen.case.mode == "closed" else 0)
    for answer in answers:
        assert int(answer.headers["retry-after"]) >= 1
        assert "x-ratelimit-limit" not in answer.headers


def test_no_client_waits_longer_than_the_deadline(seen: Seen) -> None:
    assert slowest(seen.during) <= seen.case.timeout + slowest(seen.healthy) + SLACK
    assert slowest(seen.others) <= slowest(seen.healthy) + SLACK


def test_redis_is_not_dialled_for_each_request(seen: Seen) -> None:
    assert seen.dialled <= 4 + 2 * seen.seconds


def test_afterwards_the_buckets_in_redis_count(seen: Seen) -> None:
    assert reasons(seen.after) <= {"ok", "limited"}
    assert int(seen.after[0].headers["x-ratelimit-remaining"]) == seen.ada_left
    if seen.case.fault in faults.RECEIVED:
        assert 0 <= seen.ada_left < 80 - USED
    else:
        assert seen.ada_left == (79 if seen.case.fault is faults.killed else 80 - USED - 1)


def test_a_server_that_is_down_receives_nothing(seen: Seen) -> None:
    assert seen.cid_left == 80


def test_one_event_says_that_redis_is_down_and_one_that_it_is_back(seen: Seen) -> None:
    down, up = seen.events
    assert (down.kind, down.seconds, up.kind) == ("down", 0.0, "up")
    assert 0 < up.seconds <= seen.seconds
    assert down.node == up.node
    assert CAUSES[seen.case.fault] in down.cause or SILENT in down.cause  # a busy machine hears nothing in time
    learned = [f"{down.node} is still unavailable: {up.cause}"] if up.cause != down.cause else []
    assert not learned or seen.case.fault is faults.locked  # a call may lose its connection before it is refused
    assert seen.logged == [
        f"{down.node} is unavailable: {down.cause}",
        *learned,
        f"{down.node} answers again after {up.seconds:.3f} s; checks decided without it: {up.checks}",
    ]
    assert "\n" not in down.cause


def test_the_checks_that_were_decided_without_redis_are_counted(seen: Seen) -> None:
    degraded = [answer for answer in seen.answers if answer.status == 503 or "degraded" in answer.reasons]
    assert seen.events[1].checks >= len(degraded) > 0
