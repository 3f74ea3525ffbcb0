"""A decision about a key, as text and as JSON."""

from __future__ import annotations

from typing import Any

import typer

from asgi_ratelimit.cli.screen import draw, duration, rows_of
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.shown import one_line

__all__ = ["as_json_value", "is_untouched", "left_in", "write_decision"]

_HEAD = ("limit", "kind", "scope", "left", "full in")


def is_untouched(decision: Decision) -> bool:
    """Whether nothing is used of the key's own limits; of those of the whole app if there are no others."""
    own = [part for part in decision.parts if part.scope != "global"] or decision.parts
    return decision.allowed and all(part.remaining == part.limit for part in own)


def left_in(decision: Decision) -> str:
    """What is left, in a few words: "37 of 100"; of several limits, for each."""
    if decision.reason == "blocked":
        return f"blocked for another {duration(decision.retry_after)}"
    return ", ".join(f"{part.remaining} of {part.limit} left of {part.policy.limit}" for part in decision.parts)


def write_decision(decision: Decision, key: str, limiter: str) -> None:
    """A table of the limits, with a line about each."""
    for name, value in (("key", key), ("limiter", limiter), ("allowed", _answer(decision))):
        typer.echo(f"{name:<8} {one_line(value)}")
    if decision.reason != "blocked":
        typer.echo()
        draw(rows_of(_HEAD, [_row(part) for part in decision.parts]))


def as_json_value(decision: Decision, key: str, limiter: str) -> dict[str, Any]:
    """The same as values. Seconds are floats."""
    return {
        "key": key,
        "limiter": limiter,
        "allowed": decision.allowed,
        "reason": decision.reason,
        "retry_after": decision.retry_after,
        "limits": [] if decision.reason == "blocked" else [_values(part) for part in decision.parts],
    }


def _answer(decision: Decision) -> str:
    if decision.allowed:
        return "yes"
    wait = duration(decision.retry_after)
    return f"no: the key is blocked for another {wait}" if decision.reason == "blocked" else f"no, in {wait}"


def _row(part: Decision) -> list[str]:
    limit = part.policy.limit
    full = duration(part.reset_after) if part.remaining < part.limit else "now"
    return [str(limit), type(limit).__name__, part.scope, f"{part.remaining} of {part.limit}", full]


def _values(part: Decision) -> dict[str, Any]:
    return {
        "limit": str(part.policy.limit),
        "kind": type(part.policy.limit).__name__,
        "scope": part.scope,
        "capacity": part.limit,
        "remaining": part.remaining,
        "reset_after": part.reset_after,
        "retry_after": part.retry_after,
        "bucket": part.bucket,
    }
