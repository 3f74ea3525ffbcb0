"""The migration pages, followed literally: their code and ours refuse the request that the page names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from inspect import isawaitable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import slowapi
from fastapi import APIRouter, FastAPI
from fastapi_limiter.depends import RateLimiter
from starlette.testclient import TestClient

from tests.docs.markdown import DOCS, ROOT, Block, blocks
from tests.docs.running import run

PAGES = sorted((DOCS / "migration").glob("*.md"))
OURS = "asgi_ratelimit"
HEADERS = {"x-api-key": "ada"}

# slowapi's, limits' and pyrate-limiter's are for their authors.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")

_CLAIM = re.compile(r"`GET (?P<path>\S+)` with\s+429\s+at\s+request\s+(?P<number>\d+)")
_CALLS = re.compile(r'`allowed\("(?P<key>\w+)"\)` is\s+false\s+at\s+call\s+(?P<number>\d+)')
_FRAMES = re.compile(r"second message to `(?P<path>\S+)` with `(?P<text>[^`]+)`")


class Section(NamedTuple):
    """The blocks of a page between two claims, and the claim about them."""

    page: Path
    blocks: list[Block]
    claim: str

    def __str__(self) -> str:
        return self.blocks[0].place


def sections(page: Path) -> Iterator[Section]:
    """A claim is the paragraph after the blocks that it is about."""
    lines = page.read_text(encoding="utf-8").splitlines()
    claims = [(n, text) for n, text in enumerate(lines, 1) if any(c.search(text) for c in (_CLAIM, _CALLS, _FRAMES))]
    ends = [n for n, _ in claims]
    found = list(blocks(page))
    for end, group in groupby(found, key=lambda block: next((n for n in ends if n > block.line), 0)):
        assert end, f"{page.name} makes no claim about its last example"
        yield Section(page, list(group), dict(claims)[end])


SECTIONS = [section for page in PAGES for section in sections(page)]


def having(pattern: re.Pattern[str]) -> pytest.MarkDecorator:
    cases = [
        (section.claim, block) for section in SECTIONS if pattern.search(section.claim) for block in section.blocks
    ]
    return pytest.mark.parametrize(("claim", "block"), cases, ids=[f"{b.place}-{b.title}" for _, b in cases])


@having(_CLAIM)
def test_the_429_comes_at_the_request_that_the_page_names(claim: str, block: Block) -> None:
    with TestClient(run(block)["app"], headers=HEADERS) as client:
        for path, number in _CLAIM.findall(claim):
            statuses = [client.get(path).status_code for _ in range(int(number))]
            assert statuses == [200] * (int(number) - 1) + [429]


@having(_CALLS)
@pytest.mark.anyio
async def test_the_call_that_the_page_names_is_refused(claim: str, block: Block) -> None:
    allowed = run(block)["allowed"]
    ((key, number),) = _CALLS.findall(claim)
    answers = [await value if isawaitable(value := allowed(key)) else value for _ in range(int(number))]
    assert answers == [True] * (int(number) - 1) + [False]


@having(_FRAMES)
def test_the_message_that_the_page_names_is_refused(claim: str, block: Block) -> None:
    ((path, text),) = _FRAMES.findall(claim)
    with TestClient(run(block)["app"]) as client, client.websocket_connect(path) as socket:
        socket.send_text("one")
        assert socket.receive_text() == "one"
        socket.send_text("two")
        assert socket.receive_text() == text


def test_every_page_shows_their_code_and_ours() -> None:
    assert [page.stem for page in PAGES] == ["fastapi-limiter", "limits", "slowapi"]
    assert len(SECTIONS) >= 13
    for section in SECTIONS:
        theirs = [] if len(section.blocks) == 1 else [section.page.stem]
        assert [block.title for block in section.blocks] == [*theirs, OURS], str(section)


def test_the_versions_are_those_that_are_installed() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for page in PAGES:
        version = re.search(rf"Compared with {page.stem} ([\d.]+\d)\.", page.read_text(encoding="utf-8"))
        assert version, page
        assert f'"{page.stem}=={version[1]}' in project


ASKED_FOR = [
    *("`Depends(exempt)`", "default=True", "`exempt=", '`methods=("POST",)`', "`refund=`", "`on_limited=`"),
    *("refused.headers", "with unlimited():", "`store.clear()`", "`RateLimit.wrap`"),
]


@pytest.mark.parametrize("page", ["slowapi", "fastapi-limiter"])
@pytest.mark.parametrize("spelling", ASKED_FOR)
def test_the_table_has_what_users_look_for(page: str, spelling: str) -> None:
    table = (DOCS / "migration" / f"{page}.md").read_text(encoding="utf-8").partition("## Options")[2]
    assert any(spelling in row.split(" | ")[1] for row in table.splitlines() if row.startswith("| "))


@pytest.mark.parametrize(
    ("page", "theirs"),
    [
        ("slowapi", slowapi.Limiter),
        ("slowapi", slowapi.Limiter.limit),
        ("slowapi", slowapi.Limiter.shared_limit),
        ("fastapi-limiter", RateLimiter),
    ],
)
def test_the_page_has_every_option_of_theirs(page: str, theirs: Any) -> None:
    text = (DOCS / "migration" / f"{page}.md").read_text(encoding="utf-8")
    options = [name for name in inspect.signature(theirs).parameters if name not in ("self", "limiter", "limit_value")]
    assert [name for name in options if f"{name}=" not in text] == []


# The differences that the pages state


def block_of(page: str, title: str, text: str) -> Block:
    """The first block with this title and text."""
    return next(b for b in blocks(DOCS / "migration" / f"{page}.md") if b.title == title and text in b.source)


def statuses(app: Any, path: str, times: int, host: str = "203.0.113.7") -> list[int]:
    client = TestClient(app, client=(host, 50_000))
    return [client.get(path).status_code for _ in range(times)]


def with_router(app: FastAPI) -> FastAPI:
    router = APIRouter()

    @router.get("/included")
    async def included() -> str:
        return "included"

    app.include_router(router)
    return app


def test_slowapi_s_defaults_do_not_reach_included_routes() -> None:
    theirs, ours = (block_of("slowapi", title, "3/minute") for title in ("slowapi", OURS))
    assert statuses(with_router(run(theirs)["app"]), "/included", 4) == [200] * 4
    assert statuses(with_router(run(ours)["app"]), "/included", 4) == [200] * 3 + [429]


def test_the_middleware_counts_unknown_paths() -> None:
    block = block_of("slowapi", OURS, "RateLimitMiddleware")
    assert statuses(run(block)["app"], "/unknown", 4) == [404] * 3 + [429]


def test_fastapi_limiter_has_one_bucket_for_all_clients() -> None:
    theirs, ours = (block_of("fastapi-limiter", title, "@app.get") for title in ("fastapi-limiter", OURS))
    app = run(theirs)["app"]
    assert statuses(app, "/", 2) == [200, 200]
    assert statuses(app, "/", 1, "203.0.113.8") == [429]
    app = run(ours)["app"]
    assert statuses(app, "/", 2) == [200, 200]
    assert statuses(app, "/", 1, "203.0.113.8") == [200]


@pytest.mark.anyio
async def test_a_refused_call_uses_up_the_other_limit_of_limits() -> None:
    names = run(block_of("limits", "limits", "parse_many"))
    for _ in range(6):
        await names["allowed"]("ada")
    per_hour = await names["limiter"].get_window_stats(names["items"][1], "api", "ada")
    assert per_hour.remaining == 94
    names = run(block_of("limits", OURS, "100/hour"))
    for _ in range(6):
        await names["allowed"]("ada")
    assert [part.remaining for part in (await names["limiter"].peek("ada")).parts] == [0, 97]
