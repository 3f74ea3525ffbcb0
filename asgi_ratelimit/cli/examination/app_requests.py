"""The few requests with which an app is looked at, and the limits in its answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from asgi_ratelimit.cli.http_headers import without_user
from asgi_ratelimit.cli.loopback import is_loopback

__all__ = ["ASKED", "Answer", "Answers", "ask_app"]

_TIMES: Final = 3  # as we are, and as many under made-up addresses
ASKED: Final = 2 * _TIMES
_SECONDS: Final = 10.0  # for one request
_STRANGER: Final = "127.0.0.2"  # another address of this machine; servers trust 127.0.0.1 by default
_LEFT = re.compile(r";\s*r=([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the app."""

    status: int
    headers: httpx.Headers

    def lines(self, name: str) -> list[str]:
        """All lines of a header."""
        return self.headers.get_list(name)

    def text(self, name: str) -> str | None:
        value: str | None = self.headers.get(name)
        return value

    def number(self, name: str) -> float | None:
        """A header as a number; None if it is missing or none."""
        text = self.headers.get(name, "")
        return float(text) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text) else None

    @property
    def date(self) -> float | None:
        """When the app's machine says that it answered, in whole seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return None

    @property
    def left(self) -> int | None:
        """How many requests are left, as the answer says; -1 if it is a refusal."""
        if self.status == 429:
            return -1
        for name in ("x-ratelimit-remaining", "ratelimit-remaining"):
            number = self.number(name)
            if number is not None:
                return int(number)
        items = _LEFT.findall(self.headers.get("ratelimit", ""))
        return min(map(int, items)) if items else None


@dataclass(frozen=True, slots=True)
class Answers:
    """Those to requests as we are, and under a made-up address each.

    is_stranger: whether they were sent from an address that no server trusts by default
    """

    own: Sequence[Answer]
    forged: Sequence[Answer]
    is_local: bool
    is_stranger: bool

    @property
    def every(self) -> list[Answer]:
        return [*self.own, *self.forged]


def ask_app(url: str, headers: Iterable[tuple[str, str]]) -> Answers:
    """Raises the errors of httpx."""
    is_local = is_loopback(httpx.URL(url).host)
    fixed = httpx.Headers([("user-agent", "asgi-ratelimit doctor"), *headers])
    if is_local:
        try:
            return _ask(url, fixed, is_local, httpx.HTTPTransport(local_address=_STRANGER))
        except httpx.ConnectError:  # the system has no such address, or the app listens on ::1
            pass
    return _ask(url, fixed, is_local, None)


def _ask(url: str, headers: httpx.Headers, is_local: bool, transport: httpx.HTTPTransport | None) -> Answers:
    with httpx.Client(headers=headers, timeout=_SECONDS, transport=transport) as client:
        address = without_user(httpx.URL(url), headers)
        own = [_get(client, address) for _ in range(_TIMES)]
        forged = [_get(client, address, **{"x-forwarded-for": _made_up_address()}) for _ in range(_TIMES)]
    return Answers(own, forged, is_local, not is_local or transport is not None)


def _get(client: httpx.Client, url: httpx.URL, **headers: str) -> Answer:
    with client.stream("GET", url, headers=headers) as response:  # its body is not needed
        return Answer(response.status_code, response.headers)


def _made_up_address() -> str:
    """One of 198.18.0.0/15, which is for tests of networks (RFC 2544)."""
    return f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
