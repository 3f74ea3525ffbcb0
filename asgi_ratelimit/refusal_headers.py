"""A decision as Discord's response headers, and a refusal as all headers that its response needs."""

from __future__ import annotations

import time

from asgi_ratelimit.decision import Decision

__all__ = ["VIA", "RawHeaders", "discord_headers", "in_milliseconds", "refusal_headers", "retry_after_header"]

RawHeaders = list[tuple[bytes, bytes]]

VIA = (b"via", b"1.1 asgi_ratelimit")  # without it discord.py and its kin take any 429 for a ban by Cloudflare


def refusal_headers(refusal: Decision) -> dict[str, str]:
    """The headers of a response to a call that is refused now."""
    headers = [VIA, *discord_headers(refusal, time.time(), True), retry_after_header(refusal)]
    return {name.decode("ascii"): value.decode("ascii") for name, value in headers}


def discord_headers(decision: Decision, wall: float, refused: bool = False) -> RawHeaders:
    """Discord's headers for one bucket, `wall` being now in epoch seconds. A global 429 names no bucket.

    https://discord.com/developers/docs/topics/rate-limits#header-format
    """
    if refused and decision.scope == "global":
        return [(b"x-ratelimit-global", b"true"), (b"x-ratelimit-scope", b"global")]
    left, reset_us, _ = decision.measured()
    limit, bucket, scope = decision.policy.raw_headers
    after = reset_us / 1e6 + 0.0004995  # a little less than half a millisecond more rounds it up
    headers = [
        limit,
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%.3f" % (wall + after)),
        (b"x-ratelimit-reset-after", b"%.3f" % after),
        bucket,
    ]
    if refused:
        headers.append(scope)
    return headers


def retry_after_header(decision: Decision) -> tuple[bytes, bytes]:
    """Whole seconds, at least 1 (RFC 9110 §10.2.3)."""
    return (b"retry-after", b"%d" % max(1, -(-decision.retry_us // 1_000_000)))


def in_milliseconds(microseconds: int) -> float:
    """Seconds with three decimals, rounded up, as Discord's bodies have them."""
    return -(-microseconds // 1000) / 1000
