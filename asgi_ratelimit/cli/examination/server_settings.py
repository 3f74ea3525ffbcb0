"""The settings of a server that matter for limits: version, role, eviction, room and clock."""

from __future__ import annotations

import re
from typing import Final

from asgi_ratelimit.cli.examination.findings import Finding, Level
from asgi_ratelimit.cli.examination.server_facts import ServerFacts
from asgi_ratelimit.cli.screen import duration

__all__ = ["clock_of", "eviction_of", "role_of", "room_of", "version_of"]

_OLDEST: Final = (6, 2)
_CLOCK_WARNING_S, _CLOCK_BAD_S = 1.0, 60.0
_NOEVICTION: Final = "Set maxmemory-policy noeviction (CONFIG SET, and in the configuration file)."
_UNREAD: Final = "The user may not read INFO."


def version_of(facts: ServerFacts) -> Finding:
    """Its name and version."""
    name = "Valkey" if "valkey_version" in facts.settings else "Redis"
    version = facts.settings.get("valkey_version") or facts.settings.get("redis_version", "")
    if not version:
        return Finding("warning", "version", f"unknown. {_UNREAD}", "Give the user +info, or look by yourself.")
    numbers = tuple(map(int, re.findall(r"[0-9]+", version)[:2]))
    if name == "Redis" and numbers < _OLDEST:
        return Finding("bad", "version", f"{name} {version} is too old for the scripts.", "Use Redis 6.2 or later.")
    return Finding("ok", "version", f"{name} {version}.")


def role_of(facts: ServerFacts, kind: str) -> Finding:
    """Whether it is what the URL says: "single", "sentinel" (the master that sentinels name) or "cluster"."""
    mode, role = facts.settings.get("redis_mode", ""), facts.settings.get("role", "")
    if mode == "sentinel":
        advice = f"Write redis+sentinel://{facts.name}/service."
        return Finding("bad", "role", "This is a sentinel, which keeps no buckets.", advice)
    if kind == "single" and mode == "cluster":
        advice = f"Write redis+cluster://{facts.name}."
        return Finding("bad", "role", "This is a node of a cluster, and has a part of the slots only.", advice)
    if role == "slave":
        return Finding("bad", "role", "This is a replica, which takes no writes.", "Use the address of its master.")
    if not role:
        return Finding("ok", "role", "unknown, but it takes writes if checks work.")
    says = {"single": "A single server.", "sentinel": "The master that the sentinels name.", "cluster": "A master."}
    return Finding("ok", "role", says[kind])


def eviction_of(facts: ServerFacts) -> Finding:
    """Whether a full server throws buckets away."""
    policy, room = facts.settings.get("maxmemory_policy", ""), facts.number("maxmemory")
    evicted = facts.number("evicted_keys")
    lost = f" {evicted} keys were evicted since it started." if evicted else ""
    if not policy:
        return Finding("warning", "eviction", f"unknown. {_UNREAD}", _NOEVICTION)
    if policy == "noeviction":
        return Finding("ok", "eviction", "noeviction: no bucket is thrown away.")
    if not room:
        says = f"{policy}, which evicts nothing as long as there is no maxmemory.{lost}"
        return Finding("warning", "eviction", says, _NOEVICTION)
    says = f"{policy}: a full server throws buckets and blocks away, and their limits begin anew.{lost}"
    return Finding("bad", "eviction", says, _NOEVICTION)


def room_of(facts: ServerFacts) -> Finding:
    """How full it is."""
    used, most = facts.number("used_memory"), facts.number("maxmemory")
    if not used:
        return Finding("warning", "room", f"unknown. {_UNREAD}", "Watch its memory by yourself.")
    whole = most or facts.number("total_system_memory")
    if not whole:
        return Finding("ok", "room", f"{_megabytes(used)} used, no maxmemory.")
    share = used / whole
    says = f"{_megabytes(used)} of {_megabytes(whole)} used ({share:.0%}){'' if most else ', no maxmemory'}."
    if share < 0.75:
        return Finding("ok", "room", says)
    advice = "Raise maxmemory, or find out what fills it: buckets expire by themselves."
    if share < 0.9:
        return Finding("warning", "room", says, advice)
    return Finding("bad", "room", f"{says} Without room every check fails, as in an outage.", advice)


def clock_of(facts: ServerFacts) -> Finding:
    """Its clock against this machine's."""
    if facts.ahead is None:
        return Finding("warning", "clock", "It did not say its time.", "Give the user +time.")
    off = abs(facts.ahead)
    within = max(off, facts.doubt, 0.001)
    if off <= _CLOCK_WARNING_S + facts.doubt:
        return Finding("ok", "clock", f"Within {duration(within)} of this machine's.")
    ahead = "ahead of" if facts.ahead > 0 else "behind"
    says = (
        f"{duration(off)} {ahead} this machine's. Limits go by the server's clock, and hold. X-RateLimit-Reset and the "
        "logs of this machine do not agree with it."
    )
    level: Level = "bad" if off > _CLOCK_BAD_S else "warning"
    return Finding(level, "clock", says, "Run NTP (chrony, systemd-timesyncd) on both machines.")


def _megabytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MB" if number < 2**30 else f"{number / 2**30:,.1f} GB"
