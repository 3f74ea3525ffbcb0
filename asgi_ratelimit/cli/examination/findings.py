"""The result of a look at a server or an app, as a report and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from rich.table import Table
from rich.text import Text

from asgi_ratelimit.cli.screen import draw, write, write_json
from asgi_ratelimit.shown import one_line

__all__ = ["Finding", "Level", "is_well", "report", "worst_of"]

Level = Literal["ok", "warning", "bad"]

_STYLES: Final[dict[Level, str]] = {"ok": "green", "warning": "yellow", "bad": "bold red"}
_RANK: Final[dict[Level, int]] = {"ok": 0, "warning": 1, "bad": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    about: the subject, in a word
    says: the finding, and its meaning
    advice: the remedy; "" without one
    """

    level: Level
    about: str
    says: str
    advice: str = ""


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing is bad."""
    return all(finding.level != "bad" for finding in findings)


def worst_of(by_server: Sequence[tuple[str, Finding]]) -> Finding:
    """One finding for several servers: the faults of each, else that of the first."""
    worst = max((finding for _, finding in by_server), key=lambda finding: _RANK[finding.level])
    if len(by_server) == 1 or worst.level == "ok":
        return by_server[0][1]
    says = " ".join(f"{name}: {finding.says}" for name, finding in by_server if finding.level != "ok")
    return Finding(worst.level, worst.about, says, worst.advice)


def report(about: str, findings: Sequence[Finding], *, as_json: bool) -> None:
    """Write them all, and their sum."""
    if as_json:
        write_json({"about": about, "well": is_well(findings), "findings": [asdict(finding) for finding in findings]})
        return
    write(about, style="bold")
    draw(_table(findings))
    write(_verdict(findings))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        says = Text(one_line(finding.says))
        if finding.advice:
            says.append(f"\n-> {one_line(finding.advice)}", style="bold")
        table.add_row(Text(finding.level, _STYLES[finding.level]), Text(finding.about), says)
    return table


def _verdict(findings: Sequence[Finding]) -> str:
    bad, warnings = (sum(finding.level == level for finding in findings) for level in ("bad", "warning"))
    counted = [f"{bad} bad"] if bad else []
    if warnings:
        counted.append("1 warning" if warnings == 1 else f"{warnings} warnings")
    return f"{'Well' if not bad else 'Not well'}{': ' if counted else ''}{', '.join(counted)}."
