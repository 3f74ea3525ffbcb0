"""Decisions as response headers, in Discord's form and in the IETF's.

Everything is rounded so that a client that obeys it is not refused: waits up, what remains down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from asgi_ratelimit.decision import Decision, Policy

__all__ = [
    "HeaderStyle",
    "RawHeaders",
    "check_style",
    "discord_headers",
    "ietf_headers",
    "in_milliseconds",
    "retry_after_header",
]

HeaderStyle = Literal["discord", "ietf", "both"]
RawHeaders = list[tuple[bytes, bytes]]


def check_style(style: object) -> HeaderStyle | None:
    """The style. Raises ValueError if it is unknown."""
    if style not in ("discord", "ietf", "both", None):
        raise ValueError(f'headers must be "discord", "ietf", "both" or None, not {style!r}')
    return style


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


def ietf_headers(decisions: Iterable[Decision], refused_by: Decision | None = None) -> RawHeaders:
    """RateLimit-Policy and RateLimit, one item per limit (draft-ietf-httpapi-ratelimit-headers-10).

    `t` is the time until more quota is there. It is left out of a full bucket's item. In a refusal it is also left out
    where it is later than Retry-After, for a limit that did not refuse.
    """
    parts = _unique([part for decision in decisions for part in decision.parts])
    if not parts:
        return []
    names = _names([part.policy for part in parts])
    longest_s = None if refused_by is None else _retry_after_s(refused_by)
    return [
        (b"ratelimit-policy", b", ".join(_policy_item(name, part) for name, part in zip(names, parts, strict=True))),
        (b"ratelimit", b", ".join(_state_item(name, part, longest_s) for name, part in zip(names, parts, strict=True))),
    ]


def retry_after_header(decision: Decision) -> tuple[bytes, bytes]:
    """Whole seconds, at least 1 (RFC 9110 §10.2.3)."""
    return (b"retry-after", b"%d" % _retry_after_s(decision))


def _retry_after_s(decision: Decision) -> int:
    return max(1, -(-decision.retry_us // 1_000_000))


def in_milliseconds(microseconds: int) -> float:
    """Seconds with three decimals, rounded up, as Discord's bodies have them."""
    return -(-microseconds // 1000) / 1000


def _unique(parts: Sequence[Decision]) -> list[Decision]:
    """The last decision about each bucket."""
    return list({(part.bucket, str(part.bucket_key)): part for part in parts}.values())


def _names(policies: Sequence[Policy]) -> list[bytes]:
    """A policy's own name, else its limiter's; the limit is added where that alone would name two."""
    plain = [policy.limit.name or policy.name for policy in policies]
    return [
        _quoted(name if plain.count(name) == 1 else f"{name} {policy.limit}")
        for name, policy in zip(plain, policies, strict=True)
    ]


def _policy_item(name: bytes, part: Decision) -> bytes:
    return b"%s;q=%d;w=%d" % (name, part.limit, max(1, -(-part.policy.limit.window_us // 1_000_000)))


def _state_item(name: bytes, part: Decision, longest_s: int | None) -> bytes:
    item = b"%s;r=%d" % (name, part.remaining)
    seconds = -(-_more_us(part) // 1_000_000)
    return item if not seconds or (longest_s is not None and seconds > longest_s) else b"%s;t=%d" % (item, seconds)


def _more_us(part: Decision) -> int:
    """Microseconds until more remain; 0 if the bucket is full."""
    if part.remaining >= part.limit:
        return 0
    more_us = part.policy.limit.measure(part.state, part.now_us, part.remaining + 1)[2]
    return more_us or part.retry_us  # less remains than the state shows: the key is blocked


@lru_cache(maxsize=4096)
def _quoted(name: str) -> bytes:
    """An sf-string (RFC 9651 §3.3.3): printable ASCII in quotes."""
    text = "".join(char if " " <= char <= "~" else "?" for char in name)
    return b'"%s"' % text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
