"""The limits that a response reports: status, headers and the body of a refusal become a CallReport."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from asgi_ratelimit.discord.permits.bucket import CallReport, Verdict

__all__ = [
    "ALREADY_ANSWERED",
    "INVALID",
    "NOT_CARRIED_OUT",
    "RETRIED",
    "UNKNOWN_WEBHOOK",
    "error_code",
    "object_of",
    "of_refusal",
    "of_response",
    "retry_after",
]

# https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
NOT_CARRIED_OUT: Final = frozenset({408, 425, 503, 521, 522, 523, 525, 526, 530})
RETRIED: Final = frozenset({500, 502, 504, 520, 524}) | NOT_CARRIED_OUT
INVALID: Final = frozenset({401, 403})  # and 429s, except shared ones
ALREADY_ANSWERED: Final = 40060  # "Interaction has already been acknowledged"
UNKNOWN_WEBHOOK: Final = frozenset({10015, 50027})  # "Unknown Webhook", "Invalid Webhook Token"

_OF_A_REFUSAL: Final = ("x-ratelimit-scope", "x-ratelimit-global", "x-ratelimit-bucket")
_MOST = 1 << 40  # µs, twelve days: nothing sensible is beyond
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_BAN_US = 60_000_000  # if Cloudflare gives no time
_LEAST_BAN_US = 1_000_000  # it counts whole seconds
_MOST_STOP_US = 3_600_000_000  # of everything: then one call finds out whether it still holds


def of_response(status: int, headers: Mapping[str, str]) -> CallReport:
    """The report of a response that is no 429. An error without headers may have come from a proxy: "lost"."""
    limit = _whole(headers.get("x-ratelimit-limit"))
    remaining = _whole(headers.get("x-ratelimit-remaining"))
    reset_us = _microseconds(headers.get("x-ratelimit-reset-after"))
    bucket = _name(headers.get("x-ratelimit-bucket"))
    if not limit or remaining is None or reset_us is None:
        return CallReport("lost" if status in RETRIED else "answered", bucket)
    return CallReport("answered", bucket, limit, min(remaining, limit), reset_us)


def of_refusal(headers: Mapping[str, str], body: bytes, *, in_milliseconds: bool = False) -> tuple[CallReport, str]:
    """The report of a 429, and its scope: "user", "shared", "global", or "cloudflare" if it is none of Discord's own.

    `retry_after` in the body is the wait; Retry-After is rounded up, and Reset-After is not the wait where others
    share the bucket. `in_milliseconds`: so old versions of the API count. A stop of everything is not believed for
    longer than an hour. https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit
    """
    content = object_of(body) or {}
    retry_us = _microseconds(content.get("retry_after"))
    header_us = _microseconds(headers.get("retry-after"))
    is_discords = any(name in headers for name in _OF_A_REFUSAL)  # its body may be missing, as that of a HEAD is
    if retry_us is None and not is_discords and ("via" not in headers or not content):
        ban_us = _BAN_US if header_us is None else min(max(_LEAST_BAN_US, header_us), _MOST_STOP_US)
        return CallReport("banned", retry_us=ban_us), "cloudflare"
    if retry_us is None:
        retry_us = header_us if header_us is not None else 1_000_000
    if in_milliseconds:
        retry_us = _of_milliseconds(retry_us, _microseconds(headers.get("x-ratelimit-reset-after")))
    scope = headers.get("x-ratelimit-scope", "user")
    if content.get("global") is True or scope == "global" or "x-ratelimit-global" in headers:
        return CallReport("stopped", retry_us=min(retry_us, _MOST_STOP_US)), "global"
    seen = of_response(429, headers)
    # If a limit within a bucket has refused, `remaining` is the outer bucket's.
    scope = "shared" if scope == "shared" else "user"
    verdict: Verdict = "sublimited" if scope == "shared" or seen.remaining > 0 else "limited"
    return CallReport(verdict, seen.bucket, seen.limit, seen.remaining, seen.reset_us, retry_us), scope


def _of_milliseconds(number: int, reset_us: int | None) -> int:
    """Milliseconds that were read as seconds; unless Reset-After, in seconds always, shows that they are."""
    if reset_us is not None and abs(number - reset_us) <= abs(number // 1_000 - reset_us):
        return number
    return number // 1_000


def error_code(body: bytes) -> int:
    """Discord's own code in the body of an error; 0 if there is none."""
    code = (object_of(body) or {}).get("code")
    return code if isinstance(code, int) else 0


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a response wants the client to stay away; 0.0 if it has no such header."""
    return (_microseconds(headers.get("retry-after")) or 0) / 1e6


def object_of(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body. None: there is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _microseconds(value: object) -> int | None:
    """Seconds as a number or as a header writes them, in whole microseconds."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
        micros = round(seconds * 1e6)
    except (ValueError, OverflowError):
        return None
    return min(max(0, micros), _MOST)


def _name(bucket: str | None) -> str:
    if not bucket:
        return ""
    return bucket if _PLAIN.fullmatch(bucket) else blake2b(bucket.encode(errors="replace"), digest_size=16).hexdigest()
