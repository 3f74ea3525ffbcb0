"""A decision as Discord's response headers, and a refusal as all headers that its response needs."""

from __future__ import annotations

import time
from functools import lru_cache

from asgi_ratelimit.decision import Decision, Policy

__all__ = ["VIA", "RawHeaders", "discord_headers", "in_milliseconds", "refusal_headers", "retry_after_header"]

RawHeaders = list[tuple[bytes, bytes]]

VIA = (b"via", b"1.1 asgi_ratelimit")  # without it discord.py and its kin take any 429 for a ban by Cloudflare


def refusal_headers(refusal: Decision) -> dict[str, str]:
    """The headers of a response to a call that is refused now."""
    headers = [VIA, *discord_headers(refusal, time.time(), refused=True), retry_after_header(refusal)]
    return {name.decode("ascii"): value.decode("ascii") for name, value in headers}


def discord_headers(decision: Decision, wall: float, *, refused: bool) -> RawHeaders:
    """Discord's headers for one bucket, `wall` being now in epoch seconds. A global 429 names no bucket.

    https://discord.com/developers/docs/topics/rate-limits#header-format
    """
    if refused and decision.scope == "global":
        return [(b"x-ratelimit-global", b"true"), (b"x-ratelimit-scope", b"global")]
    left, reset_us, _ = decision.measure
    limit, bucket, scope = _constant(decision.policy)
    # Formatted at one go, for speed; a little less than half a millisecond more rounds it up.
    after = reset_us / 1e6 + 0.0004995
    remaining, reset, reset_after = (b"%d %.3f %.3f" % (left, wall + after, after)).split()
    headers = [
        limit,
        (b"x-ratelimit-remaining", remaining),
        (b"x-ratelimit-reset", reset),
        (b"x-ratelimit-reset-after", reset_after),
        bucket,
    ]
    if refused:
        headers.append(scope)
    return headers


@lru_cache(maxsize=4096)
def _constant(policy: Policy) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-ratelimit-limit", b"%d" % policy.limit.capacity),
        (b"x-ratelimit-bucket", policy.bucket.encode("ascii")),
        (b"x-ratelimit-scope", policy.limit.scope.encode("ascii")),
    )


def retry_after_header(decision: Decision) -> tuple[bytes, bytes]:
    """Whole seconds, at least 1 (RFC 9110 §10.2.3)."""
    return (b"retry-after", b"%d" % max(1, -(-decision.retry_us // 1_000_000)))


def in_milliseconds(microseconds: int) -> float:
    """Seconds with three decimals, rounded up, as Discord's bodies have them."""
    return -(-microseconds // 1000) / 1000
