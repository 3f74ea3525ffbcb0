"""The limits in the headers of an app's answers, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asgi_ratelimit.cli.examination.app_requests import Answer
from asgi_ratelimit.cli.examination.findings import Finding
from asgi_ratelimit.cli.screen import duration

__all__ = ["headers_of", "retry_after_of", "states_limit"]

_DISCORD: Final = ("limit", "remaining", "reset", "reset-after", "bucket")
_ONCE: Final = (*(f"x-ratelimit-{name}" for name in _DISCORD), "retry-after")
_SECONDS_OFF: Final = 3.0  # Date has whole seconds


def states_limit(answer: Answer) -> bool:
    """Whether it has any of the headers of a limit."""
    return any(name.startswith(("x-ratelimit", "ratelimit")) for name in answer.headers)


def headers_of(answers: Sequence[Answer]) -> list[Finding]:
    """The headers of limits: their style, and whether they agree with each other."""
    speaking = [answer for answer in answers if states_limit(answer)]
    if not speaking:
        advice = "Ask a path that is limited; in the app, look at exempt=, only= and headers=."
        return [Finding("warning", "headers", "None of the answers says anything of a limit.", advice)]
    faults = list(dict.fromkeys(fault for answer in speaking for fault in _faults(answer)))
    if faults:
        advice = "Look for a second limiter, a cache or a proxy that writes these headers too."
        return [Finding("bad", "headers", fault, advice) for fault in faults]
    return [_style(speaking[0], len(speaking), len(answers)), *_doubts(speaking)]


def _style(answer: Answer, speaking: int, asked: int) -> Finding:
    styles = [
        name
        for name, is_there in (
            ("Discord's X-RateLimit-*", answer.text("x-ratelimit-reset-after") is not None),
            ("the IETF's RateLimit and RateLimit-Policy", answer.text("ratelimit") is not None),
        )
        if is_there
    ]
    if not styles and answer.text("x-ratelimit-global") is not None:
        styles = ["Discord's, of a global limit"]
    where = "each answer" if speaking == asked else f"{speaking} of {asked} answers"
    if styles:
        return Finding("ok", "headers", f"{' and '.join(styles)}, on {where}.{_values(answer)}")
    names = ", ".join(sorted({name for name in answer.headers if "ratelimit" in name}))
    says = f"Neither Discord's nor the IETF's present form ({names}), on {where}.{_values(answer)}"
    return Finding("warning", "headers", says, 'With this package: headers="discord", "ietf" or "both".')


def _values(answer: Answer) -> str:
    limit, after = answer.number("x-ratelimit-limit"), answer.number("x-ratelimit-reset-after")
    said = [] if limit is None else [f"limit {limit:.0f}"]
    if answer.left is not None:
        said.append("refused" if answer.left < 0 else f"{answer.left} left")
    if after is not None:
        said.append(f"full in {duration(after)}")
    return f" The first one: {', '.join(said)}." if said else ""


def _faults(answer: Answer) -> list[str]:
    """What no client can make sense of."""
    faults = [
        f"{name} is there {len(lines)} times: {', '.join(lines)}."
        for name in _ONCE
        if len(lines := answer.lines(name)) > 1
    ]
    for name in ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-reset-after"):
        if not faults and answer.text(name) is not None and answer.number(name) is None:
            faults.append(f"{name} is no number: {answer.text(name)}.")
    limit, left = answer.number("x-ratelimit-limit"), answer.number("x-ratelimit-remaining")
    if limit is not None and left is not None and left > limit:
        faults.append(f"X-RateLimit-Remaining is {left:.0f}, more than X-RateLimit-Limit, {limit:.0f}.")
    return faults


def _doubts(answers: Sequence[Answer]) -> list[Finding]:
    off = max((abs(_seconds_off(answer)) for answer in answers), default=0.0)
    if off <= _SECONDS_OFF:
        return []
    says = f"X-RateLimit-Reset is {duration(off)} away from Date plus X-RateLimit-Reset-After."
    return [Finding("warning", "reset", says, "Compare the clocks of the app's machine and of what stands before it.")]


def _seconds_off(answer: Answer) -> float:
    reset, after = answer.number("x-ratelimit-reset"), answer.number("x-ratelimit-reset-after")
    if reset is None or after is None or answer.date is None:
        return 0.0
    return reset - after - answer.date


def retry_after_of(answers: Sequence[Answer]) -> Finding:
    """Whether each refusal says when to come again, and no other answer does."""
    refused = [answer for answer in answers if answer.status == 429]
    if any(answer.text("retry-after") is None for answer in refused):
        advice = "Send Retry-After with each 429: without it clients come again at once."
        return Finding("bad", "retry-after", "A 429 has no Retry-After.", advice)
    if any(answer.status < 400 and answer.text("retry-after") is not None for answer in answers):
        advice = "Leave it out: some clients wait although they were served."
        return Finding("warning", "retry-after", "An answer that is no refusal has Retry-After.", advice)
    if not refused:
        return Finding("ok", "retry-after", "Not seen, as no request was refused.")
    if not all((answer.text("retry-after") or "").isdecimal() for answer in refused):
        says = f"Retry-After is {refused[0].text('retry-after')}, and not whole seconds."
        return Finding("warning", "retry-after", says, "Write whole seconds, rounded up (RFC 9110, 10.2.3).")
    return Finding("ok", "retry-after", "On each refusal, in whole seconds.")
