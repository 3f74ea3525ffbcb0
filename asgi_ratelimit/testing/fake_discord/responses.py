"""The responses of the fake API: successes, errors, refusals, and those of the machines in front of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Any

from asgi_ratelimit.inbound.headers import RawHeaders, in_milliseconds
from asgi_ratelimit.limits import Scope

__all__ = ["DROPPED", "FakeResponse", "banned", "broken", "error_response", "limited", "seconds_of", "success"]

VIA = (b"via", b"1.1 google")
_JSON = (b"content-type", b"application/json")
_HTML = (b"content-type", b"text/html; charset=UTF-8")
DROPPED = 0  # the status of an answer that never comes: its connection breaks


@dataclass(frozen=True, slots=True)
class FakeResponse:
    """One response. `bucket` is the hash that it names, `invalid` whether it counts as an invalid request."""

    status: int
    headers: RawHeaders
    body: bytes = b""
    bucket: str | None = None
    invalid: bool = False
    torn: bool = False  # the connection breaks in the middle of the body


def success(status: int, content: Any, limits: RawHeaders, bucket: str | None) -> FakeResponse:
    """The response to a request that was carried out, with the headers of its bucket."""
    if content is None:
        return FakeResponse(status, [VIA, *limits], b"", bucket)
    invalid = status in (401, 403)
    return FakeResponse(status, [_JSON, VIA, *limits], _encoded(content), bucket, invalid)


def error_response(
    status: int, message: str, code: int, limits: Iterable[tuple[bytes, bytes]] = (), bucket: str | None = None
) -> FakeResponse:
    """An error in Discord's form; 401 and 403 count as invalid requests."""
    body = _encoded({"message": message, "code": code})
    return FakeResponse(status, [_JSON, VIA, *limits], body, bucket, invalid=status in (401, 403))


def seconds_of(wait_us: int) -> float:
    """The `retry_after` of a wait."""
    return max(0.001, in_milliseconds(wait_us))


def limited(
    scope: Scope,
    retry_after: float | None,
    limits: Iterable[tuple[bytes, bytes]] = (),
    bucket: str | None = None,
    *,
    code: int | None = None,
    unit: int = 1,
) -> FakeResponse:
    """A 429 as the API writes it. A global one names no bucket; one of scope "shared" is not an invalid request.

    retry_after: seconds; None: not a word of them. unit: how many of the API's units are a second
    """
    subject = "The resource is" if scope == "shared" else "You are"
    body: dict[str, Any] = {"message": f"{subject} being rate limited.", "global": scope == "global"}
    headers = [_JSON, VIA, *limits, (b"x-ratelimit-scope", scope.encode("ascii"))]
    if retry_after is not None:
        told = retry_after if unit == 1 else ceil(retry_after * unit)
        body["retry_after"] = told
        headers.append((b"retry-after", b"%d" % ceil(told)))
    if code is not None:
        body["code"] = code
    if scope == "global":
        headers.append((b"x-ratelimit-global", b"true"))
    return FakeResponse(429, headers, _encoded(body), bucket, invalid=scope != "shared")


def banned(wait_us: int) -> FakeResponse:
    """A 429 by Cloudflare, which stands before the API: HTML, no Via, and nothing of a bucket."""
    body = b"<!DOCTYPE html>\n<html><head><title>Access denied</title></head><body>error code: 1015</body></html>\n"
    return FakeResponse(429, [_HTML, (b"server", b"cloudflare"), _retry_after(wait_us)], body)


def broken(status: int, *, html: bool) -> FakeResponse:
    """An error that has nothing to do with the request."""
    phrase = f"{status}: {HTTPStatus(status).phrase}" if status in _STATUSES else f"{status}: Error"
    if not html:
        return error_response(status, phrase, 0)
    body = f"<!DOCTYPE html>\n<html><head><title>{phrase}</title></head><body>{phrase}</body></html>\n"
    return FakeResponse(status, [_HTML, (b"server", b"cloudflare")], body.encode("ascii"), invalid=status in (401, 403))


_STATUSES = frozenset(status.value for status in HTTPStatus)


def _retry_after(wait_us: int) -> tuple[bytes, bytes]:
    return (b"retry-after", b"%d" % max(1, -(-wait_us // 1_000_000)))


def _encoded(content: Any) -> bytes:
    return json.dumps(content).encode("ascii")
