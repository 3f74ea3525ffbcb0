"""The servers and the environment that the examples name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import asgi_ratelimit.discord.client
from asgi_ratelimit.testing import FakeDiscord
from tests.frameworks.apps import django_app
from tests.support.servers import Server
from tests.support.signing import PUBLIC_KEY


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """The Redis of the examples."""
    with Server() as server:
        yield server


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, str]:
    """The files of networks of the examples, by their names there."""
    files = {"partners.txt": "192.0.2.0/24\n2001:db8::/32\n", "blocklist.txt": "198.51.100.0/24\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in files}


@pytest.fixture
def discord(monkeypatch: pytest.MonkeyPatch) -> FakeDiscord:
    """The Discord of the examples' clients, and the environment that they read."""
    fake = FakeDiscord({"POST /channels/{channel_id}/messages": "5/250ms"}, token="test")
    monkeypatch.setenv("DISCORD_TOKEN", "test")
    monkeypatch.setenv("PUBLIC_KEY", PUBLIC_KEY)

    def inner(options: dict[str, Any], origin: object) -> httpx.AsyncBaseTransport:
        given: httpx.AsyncBaseTransport | None = options.pop("transport", None)
        return given or httpx.ASGITransport(app=fake)

    monkeypatch.setattr(asgi_ratelimit.discord.client, "_inner_transport", inner)
    return fake


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Some frameworks configure the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def django() -> None:
    """Django with settings, as a project of its own would have them."""
    django_app([])
