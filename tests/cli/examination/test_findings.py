"""A report: what is worst of several servers, and the lines that it writes."""

from __future__ import annotations

import pytest

from asgi_ratelimit.cli.examination.findings import Finding, is_well, report, worst_of

OK, WARNING = Finding("ok", "clock", "fine."), Finding("warning", "clock", "late.", "Run NTP.")
BAD = Finding("bad", "clock", "a day late.", "Stop.")


def test_what_is_not_well_of_several_servers_is_said_of_each() -> None:
    assert worst_of([("a:1", OK)]) == worst_of([("a:1", OK), ("b:1", OK)]) == OK
    assert worst_of([("a:1", BAD)]) == BAD
    merged = worst_of([("a:1", WARNING), ("b:1", OK), ("c:1", BAD)])
    assert merged == Finding("bad", "clock", "a:1: late. c:1: a day late.", "Stop.")


def test_a_warning_alone_is_well() -> None:
    assert is_well([OK, WARNING])
    assert not is_well([OK, BAD])


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([OK], "Well."),
        ([OK, WARNING], "Well: 1 warning."),
        ([WARNING, BAD, WARNING], "Not well: 1 bad, 2 warnings."),
    ],
)
def test_the_last_line_is_the_verdict(
    findings: list[Finding], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report("Redis: a:1", findings, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("Redis: a:1", verdict)


def test_the_advice_stands_under_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    report("Redis: a:1", [OK, BAD], as_json=False)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "ok   clock  fine.",
        "bad  clock  a day late.",
        "            -> Stop.",
    ]
