"""Decisions as response headers, in Discord's form and in the IETF's.

Everything is rounded so that a client that obeys it is not refused: waits up, what remains down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from asgi_ratelimit.decision import Decision, Policy
from asgi_ratelimit.refusal_headers import RawHeaders, discord_headers, in_milliseconds, retry_after_header

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


def check_style(style: object) -> HeaderStyle | None:
    """The style. Raises ValueError if it is unknown."""
    if style not in ("discord", "ietf", "both", None):
        raise ValueError(f'headers must be "discord", "ietf", "both" or None, not {style!r}')
    return style


def ietf_headers(decisions: Iterable[Decision], refused_by: Decision | None = None) -> RawHeaders:
    """RateLimit-Policy and RateLimit, one item per limit (draft-ietf-httpapi-ratelimit-headers-10).

    `t` is the time until more quota is there. It is left out of a full bucket's item. In a refusal it is also left out
    where it is later than Retry-After, for a limit that did not refuse. `qu` is the unit of a limit that has one. A
    soft limit that this request has exceeded has `over`, a boolean, which is no parameter of the draft.
    """
    parts = _unique([part for decision in decisions for part in decision.parts])
    if not parts:
        return []
    names = _names([part.policy for part in parts])
    longest_s = None if refused_by is None else int(retry_after_header(refused_by)[1])
    return [
        (b"ratelimit-policy", b", ".join(_policy_item(name, part) for name, part in zip(names, parts, strict=True))),
        (b"ratelimit", b", ".join(_state_item(name, part, longest_s) for name, part in zip(names, parts, strict=True))),
    ]


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
    limit = part.policy.limit
    unit = b";qu=" + _quoted(limit.unit) if limit.unit else b""
    return b"%s;q=%d%s;w=%d" % (name, part.limit, unit, max(1, -(-limit.window_at(part.now_us) // 1_000_000)))


def _state_item(name: bytes, part: Decision, longest_s: int | None) -> bytes:
    item = b"%s;r=%d" % (name, part.remaining) + (b";over" if part.over else b"")
    seconds = -(-_more_us(part) // 1_000_000)
    return item if not seconds or (longest_s is not None and seconds > longest_s) else b"%s;t=%d" % (item, seconds)


def _more_us(part: Decision) -> int:
    """Microseconds until more remain; 0 if the bucket is full."""
    if part.remaining >= part.limit > 0:
        return 0
    more_us = part.policy.limit.measure(part.state, part.now_us, part.remaining + 1)[2]
    return more_us or part.retry_us  # less remains than the state shows: the key is blocked


@lru_cache(maxsize=4096)
def _quoted(name: str) -> bytes:
    """An sf-string (RFC 9651 §3.3.3): printable ASCII in quotes."""
    text = "".join(char if " " <= char <= "~" else "?" for char in name)
    return b'"%s"' % text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
