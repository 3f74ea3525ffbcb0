"""The part of the page about served requests, as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from benchmarks.harness import Score
from benchmarks.http_overhead import BARE, FLOOR, OURS
from benchmarks.report import table
from benchmarks.served import CONNECTIONS, served

__all__ = ["sections"]

_WHAT = {"middleware": "a Starlette app", "dependency": "a FastAPI app whose route has a dependency"}


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    for group, app in _WHAT.items():
        allowed = asyncio.run(served(group, 3 if quick else 11))
        refused = asyncio.run(served(group, 3 if quick else 11, refused=True))
        text = (
            f"The processor time of a uvicorn process with uvloop and httptools, by the system's accounts, per request "
            f"of wrk over {CONNECTIONS} connections: {app}. Other work of the machine counts little, cold caches do."
        )
        yield f"A served request: {group}", text, f"{_table(allowed, refused)}\n\n{_summary(allowed, refused)}"


def _table(allowed: Mapping[str, Score], refused: Mapping[str, Score]) -> str:
    head = ["", "allowed, µs", "added, µs", "times the floor", "refused, µs"]
    return table(head, [[name, *_cells(name, allowed), _refusal(refused.get(name))] for name in allowed])


def _cells(name: str, scores: Mapping[str, Score]) -> list[str]:
    score, bare, floor = scores[name], scores[BARE], scores[FLOOR]
    failure = score.failure or bare.failure or floor.failure
    if failure:
        return [f"did not run: {failure}", "-", "-"]
    if name == BARE:
        return [f"{score.ns / 1e3:.1f}", "-", "-"]
    added = score.added(bare)
    return [f"{score.ns / 1e3:.1f}", f"{added / 1e3:.1f}", f"{added / floor.added(bare):.2f}"]


def _refusal(score: Score | None) -> str:
    return "-" if score is None or score.failure or score.name == BARE else f"{score.ns / 1e3:.1f}"


def _summary(allowed: Mapping[str, Score], refused: Mapping[str, Score]) -> str:
    ours, floor, bare, refusal = allowed[OURS], allowed[FLOOR], allowed[BARE], refused[OURS]
    if any(score.failure for score in (ours, floor, bare, refusal)):
        return "No summary: somebody did not run."
    return (
        f"Ours adds {ours.added(bare) / floor.added(bare):.2f} times what the floor adds. "
        f"A refused request pays {refusal.ns / ours.ns:.2f} of what an allowed one pays."
    )
