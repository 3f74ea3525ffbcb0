"""What the lines of INFO mean."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit.cli.examination.findings import Level
from asgi_ratelimit.cli.examination.server_facts import ServerFacts
from asgi_ratelimit.cli.examination.server_settings import clock_of, eviction_of, role_of, room_of, version_of

GB = 2**30


def facts(ahead: float | None = 0.0, doubt: float = 0.001, **settings: object) -> ServerFacts:
    return ServerFacts("a:1", {name: str(value) for name, value in settings.items()}, ahead, doubt)


@pytest.mark.parametrize(
    ("settings", "level", "says"),
    [
        ({"redis_version": "7.2.4"}, "ok", "Redis 7.2.4."),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.0"}, "ok", "Valkey 8.1.0."),
        ({"redis_version": "6.2.0"}, "ok", "Redis 6.2.0."),
        ({"redis_version": "6.0.16"}, "bad", "6.0.16 is too old"),
        ({}, "warning", "unknown"),
    ],
)
def test_version(settings: dict[str, Any], level: Level, says: str) -> None:
    found = version_of(facts(**settings))
    assert found.level == level
    assert says in found.says


@pytest.mark.parametrize(
    ("settings", "kind", "level", "says"),
    [
        ({"redis_mode": "standalone", "role": "master"}, "single", "ok", "single server"),
        ({"redis_mode": "standalone", "role": "slave"}, "single", "bad", "replica"),
        ({"redis_mode": "cluster", "role": "master"}, "single", "bad", "node of a cluster"),
        ({"redis_mode": "cluster", "role": "master"}, "cluster", "ok", "master"),
        ({"redis_mode": "sentinel"}, "single", "bad", "sentinel"),
        ({"redis_mode": "standalone", "role": "master"}, "sentinel", "ok", "sentinels name"),
        ({}, "single", "ok", "unknown"),
    ],
)
def test_role(settings: dict[str, Any], kind: str, level: Level, says: str) -> None:
    found = role_of(facts(**settings), kind)
    assert found.level == level
    assert says in found.says


@pytest.mark.parametrize(
    ("settings", "level", "says"),
    [
        ({"maxmemory_policy": "noeviction", "maxmemory": GB}, "ok", "noeviction"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, "warning", "evicts nothing as long as"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": GB}, "bad", "begin anew"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": GB, "evicted_keys": 7}, "bad", "7 keys were evicted"),
        ({}, "warning", "unknown"),
    ],
)
def test_eviction(settings: dict[str, Any], level: Level, says: str) -> None:
    found = eviction_of(facts(**settings))
    assert found.level == level
    assert says in found.says
    assert bool(found.advice) == (level != "ok")


@pytest.mark.parametrize(
    ("used", "most", "level", "says"),
    [
        (0.5, 1, "ok", "512.0 MB of 1.0 GB used (50%)."),
        (0.74, 1, "ok", "(74%)"),
        (0.75, 1, "warning", "(75%)"),
        (0.91, 1, "bad", "every check fails"),
        (1, 0, "ok", "(25%), no maxmemory"),
    ],
)
def test_room(used: float, most: int, level: Level, says: str) -> None:
    found = room_of(facts(used_memory=int(used * GB), maxmemory=most * GB, total_system_memory=4 * GB))
    assert found.level == level
    assert says in found.says


def test_room_that_is_not_said() -> None:
    assert room_of(facts()).level == "warning"
    assert room_of(facts(used_memory=GB)).says == "1.0 GB used, no maxmemory."


@pytest.mark.parametrize(
    ("ahead", "doubt", "level", "says"),
    [
        (0.0001, 0.0002, "ok", "Within 0.001 s of"),
        (-0.4, 0.001, "ok", "Within 0.4 s of"),
        (2.0, 3.0, "ok", "Within 3 s of"),
        (2.0, 0.001, "warning", "2 s ahead of this machine's"),
        (-90.0, 0.001, "bad", "1 min 30 s behind this machine's"),
        (None, 0.0, "warning", "did not say"),
    ],
)
def test_clock(ahead: float | None, doubt: float, level: Level, says: str) -> None:
    found = clock_of(facts(ahead, doubt))
    assert found.level == level
    assert says in found.says
