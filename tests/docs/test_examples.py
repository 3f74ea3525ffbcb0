"""Every Python example of README and documentation runs, and the first gives the 429 that is shown."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore
from asgi_ratelimit.clock import SystemClock
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.docs.markdown import DOCS, PAGES, README, Block, blocks
from tests.docs.running import run, run_tests
from tests.support.servers import Server

MIGRATION = DOCS / "migration"  # those pages have tests of their own
EXAMPLES = [block for page in PAGES if page.parent != MIGRATION for block in blocks(page)]
APPS = ("app", "quart_app")


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")  # discord.py's
@pytest.mark.usefixtures("django")
@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_the_example_runs(
    block: Block, redis: Server, discord: FakeDiscord, networks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    route = import_module("discord.http").Route
    monkeypatch.setattr(route, "BASE", route.BASE)  # an example changes it
    names = run(block, **networks, **{"localhost:6379": f"{redis.host}:{redis.port}"})
    run_tests(names)
    assert discord.count(401) == discord.count(429) == 0
    for app in [names[name] for name in APPS if name in names]:
        with TestClient(app) as client:
            assert client.get("/").status_code in (200, 201, 404)
    if "application" in names:  # Django has no lifespan
        assert TestClient(names["application"]).get("/").status_code == 200


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 40
    assert len([block for block in EXAMPLES if block.page == README]) >= 6


@pytest.mark.parametrize("page", [README, DOCS / "index.md"], ids=lambda page: page.name)
def test_the_first_example_has_twelve_lines_and_gives_the_429_that_is_shown(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "now_ns", staticmethod(lambda: 10**15))
    example, shown = next(blocks(page)), next(blocks(page, "http")).source
    assert len(example.source.splitlines()) <= 12
    head, _, body = shown.partition("\n\n")
    with TestClient(run(example)["app"]) as client:
        for left in (4, 3, 2, 1, 0):
            assert client.get("/search").json() == f"{left} left"
        refused = client.get("/search")
    names = {line.partition(":")[0] for line in head.splitlines()[1:]}
    assert refused.status_code == 429
    assert names == set(refused.headers) - {"content-length"}
    for name in (
        "content-type",
        "retry-after",
        "via",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-scope",
    ):
        assert f"{name}: {refused.headers[name]}" in head
    assert json.loads(body).keys() == refused.json().keys()
    assert json.loads(body)["message"] == refused.json()["message"]


@pytest.mark.parametrize("page", [DOCS / "fastapi.md"], ids=lambda page: page.name)
def test_the_options_of_the_dependency_work_as_the_page_shows(page: Path) -> None:
    example = next(block for block in blocks(page) if "current_user" in block.source)
    with TestClient(run(example)["app"]) as client:
        for channel in (1, 2):
            answers = [client.post(f"/channels/{channel}/messages", headers={"x-api-key": "k"}) for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert client.post("/channels/1/messages", headers={"x-api-key": "other"}).status_code == 200
        assert "429" in client.get("/openapi.json").json()["paths"]["/ping"]["get"]["responses"]


def test_the_costs_that_are_known_afterwards_are_settled_as_the_pages_show() -> None:
    names = run(next(block for block in blocks(DOCS / "fastapi.md") if "await tokens.settle" in block.source))
    with TestClient(names["app"]) as client:
        assert client.get("/chat").text == "ratelimits"
        assert client.get("/cached").headers["x-ratelimit-remaining"] == "200000"
        remaining = int(client.get("/chat").headers["x-ratelimit-remaining"])
    assert 195_998 <= remaining <= 196_000
    app = run(next(block for block in blocks(DOCS / "middleware.md") if "kilobytes" in block.source))["app"]
    with TestClient(app) as client:
        left = [int(client.get("/").headers["x-ratelimit-remaining"]) for _ in range(2)]
    assert left == [99_900, 99_899]


@pytest.mark.anyio
async def test_the_kind_of_limit_of_the_architecture_page_works(clock: ManualClock) -> None:
    block = next(block for block in blocks(DOCS / "architecture.md") if "class Cooldown" in block.source)
    limiter = Limiter(run(block)["Cooldown"]("1/10s"), store=MemoryStore(clock=clock))
    assert (await limiter.try_acquire("ada")).allowed
    assert (await limiter.try_acquire("ada")).retry_after == 10.0
    clock.advance(10)
    again = await limiter.try_acquire("ada")
    assert again.allowed
    await limiter.refund(again)
    assert (await limiter.peek("ada")).remaining == 1
