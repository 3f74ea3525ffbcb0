"""Every example in the README runs, and the 429 on its first screen is the one that its first example gives."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

import asgi_ratelimit.discord.client
from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.testing import FakeDiscord
from asgi_ratelimit.warnings import CODES
from tests.support.servers import Server
from tests.support.signing import PUBLIC_KEY

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """The Redis that the examples name."""
    with Server() as server:
        yield server


@pytest.fixture
def discord(monkeypatch: pytest.MonkeyPatch) -> FakeDiscord:
    """What the examples' clients talk to, and the environment that they read."""
    fake = FakeDiscord({"POST /channels/{channel_id}/messages": "5/250ms"}, token="test")
    monkeypatch.setenv("DISCORD_TOKEN", "test")
    monkeypatch.setenv("PUBLIC_KEY", PUBLIC_KEY)

    def inner(options: dict[str, Any], origin: object) -> httpx.AsyncBaseTransport:
        given: httpx.AsyncBaseTransport | None = options.pop("transport", None)
        return given or httpx.ASGITransport(app=fake)

    monkeypatch.setattr(asgi_ratelimit.discord.client, "_inner_transport", inner)
    return fake


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "README.md", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")  # discord.py's
@pytest.mark.parametrize("source", EXAMPLES, ids=lambda source: source.strip().splitlines()[0][:40])
def test_the_example_runs(source: str, redis: Server, discord: FakeDiscord) -> None:
    names = run(source.replace("localhost:6379", f"{redis.host}:{redis.port}"))
    for name, value in names.items():
        if name.startswith("test_") and iscoroutinefunction(value):
            asyncio.run(value())
    assert discord.count(401) == discord.count(429) == 0
    app = names.get("app")
    if app is not None:
        with TestClient(app) as client:
            assert client.get("/").status_code in (200, 201, 404)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 12


def test_the_first_example_has_twelve_lines_and_gives_the_429_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now_ns", staticmethod(lambda: 10**15))
    assert len(EXAMPLES[0].splitlines()) <= 12
    shown, _, body = re.findall(r"^```http\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)[0].partition("\n\n")
    with TestClient(run(EXAMPLES[0])["app"]) as client:
        for left in (4, 3, 2, 1, 0):
            assert client.get("/search").json() == f"{left} left"
        answer = client.get("/search")
    names = {line.partition(":")[0] for line in shown.splitlines()[1:]}
    assert answer.status_code == 429
    assert names == set(answer.headers) - {"content-length"}
    for name in (
        "content-type",
        "retry-after",
        "via",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-scope",
    ):
        assert f"{name}: {answer.headers[name]}" in shown
    assert json.loads(body).keys() == answer.json().keys()
    assert json.loads(body)["message"] == answer.json()["message"]


def test_the_dependency_s_options_work_as_the_readme_says() -> None:
    source = next(source for source in EXAMPLES if "current_user" in source)
    with TestClient(run(source)["app"]) as client:
        for channel in (1, 2):
            answers = [client.post(f"/channels/{channel}/messages", headers={"x-api-key": "k"}) for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert client.post("/channels/1/messages", headers={"x-api-key": "other"}).status_code == 200
        assert "429" in client.get("/openapi.json").json()["paths"]["/ping"]["get"]["responses"]


def test_every_warning_is_explained() -> None:
    assert set(re.findall(r"^\| `(ARL\d+)`", README, flags=re.MULTILINE)) == set(CODES)


def test_nobody_is_told_to_install_the_other_project() -> None:
    assert not re.search(r"pip install \"?asgi-ratelimit(?!-discord)", README)
