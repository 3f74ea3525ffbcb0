"""A look at an app from outside: its limits in its headers, and the way around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import httpx

from asgi_ratelimit.cli.examination.app_requests import ASKED, Answer, Answers, ask_app
from asgi_ratelimit.cli.examination.findings import Finding
from asgi_ratelimit.cli.examination.rate_headers import headers_of, retry_after_of, states_limit
from asgi_ratelimit.cli.running import cause_of

__all__ = ["examine_app"]

_DOCS: Final = "https://asgi-ratelimit-discord.readthedocs.io/en/latest/proxies/"
_ADVICE: Final = (
    f"Trust the addresses of your proxies only: uvicorn --forwarded-allow-ips, ClientIP(trusted_proxies=). See {_DOCS}"
)


def examine_app(url: str, headers: Iterable[tuple[str, str]]) -> tuple[str, list[Finding]]:
    """The question, and the findings. Raises ValueError if it is no URL."""
    shown = _shown(url)
    about = f"App: {shown}, {ASKED} requests (GET)"
    try:
        answers = ask_app(url, headers)
    except httpx.HTTPError as error:
        cause = f"{cause_of(error)}" if str(error) else type(error).__name__
        return about, [Finding("bad", "connection", f"{shown} does not answer: {cause}.", "Check the address.")]
    found = [_status_of(answers.every), *headers_of(answers.every), retry_after_of(answers.every)]
    if any(map(states_limit, answers.every)) or any(answer.status == 429 for answer in answers.every):
        found += [_counting_of(answers.own), _forwarded_of(answers)]
    return about, found


def _shown(url: str) -> str:
    """The URL without its user, password and query."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ValueError("this is no URL: a URL of an app is written https://example.com/path") from None
    if not re.fullmatch(r"[\w.:-]+", parsed.host):
        raise ValueError(f"a URL of an app has a host, as in https://example.com/path, not {parsed.host!r}")
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))


def _status_of(answers: Sequence[Answer]) -> Finding:
    statuses = ", ".join(str(status) for status in dict.fromkeys(answer.status for answer in answers))
    first = answers[0]
    if any(answer.status >= 500 for answer in answers):
        return Finding("bad", "answers", f"Status {statuses}.", "See the log of the app.")
    if 300 <= first.status < 400:
        where = f" to {first.text('location')}" if first.text("location") else ""
        return Finding("warning", "answers", f"Status {statuses}: a redirect{where}.", "Ask that address instead.")
    return Finding("ok", "answers", f"Status {statuses}.")


def _lefts(answers: Sequence[Answer]) -> list[int]:
    return [left for answer in answers if (left := answer.left) is not None]


def _shown_left(left: int) -> str:
    return "refused" if left < 0 else f"{left} left"


def _is_falling(lefts: Sequence[int]) -> bool:
    """Whether each request was counted, and faster than the limit refills; or the last one was refused."""
    return len(lefts) > 1 and (lefts[-1] <= lefts[0] - len(lefts) + 1 or lefts[-1] < 0)


def _counting_of(own: Sequence[Answer]) -> Finding:
    lefts = _lefts(own)
    shown = ", ".join(map(_shown_left, lefts))
    if _is_falling(lefts):
        return Finding("ok", "counting", f"Each request counts: {shown}.")
    says = f"What is left does not fall with each request: {shown or 'it is not said'}."
    advice = (
        "The limit may refill faster than we ask, a cache may answer, or each worker counts by itself: "
        "then give the store a Redis."
    )
    return Finding("warning", "counting", says, advice)


def _forwarded_of(answers: Answers) -> Finding:
    """Whether a made-up X-Forwarded-For makes a new client of us."""
    own, forged = _lefts(answers.own), _lefts(answers.forged)
    if not _is_falling(own) or not forged:
        says = "Whether X-Forwarded-For is believed cannot be told, as the count of our own requests is unclear."
        return Finding("warning", "forwarded", says, "Ask a path with a slower limit.")
    if not all(left > own[-1] for left in forged):
        return Finding("ok", "forwarded", "A made-up X-Forwarded-For changes nothing.")
    says = f"A made-up X-Forwarded-For starts a fresh bucket ({_shown_left(own[-1])}, then {_shown_left(forged[0])}): "
    if answers.is_local and not answers.is_stranger:
        says += "the app trusts this machine, which uvicorn does by default."
        return Finding("warning", "forwarded", says, "Ask from another machine, as a client would.")
    return Finding("bad", "forwarded", f"{says}from here the limit can be walked around.", _ADVICE)
