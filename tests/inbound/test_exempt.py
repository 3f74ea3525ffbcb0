"""What is not counted or not refused: exempt paths, charges that are given back, and shadow mode."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_middleware import Trouble, door, page, site
from tests.support.asgi import ask, respond, statuses

pytestmark = pytest.mark.anyio


# What is exempt


@pytest.mark.parametrize(
    ("exempt", "path", "free"),
    [
        (["/health"], "/health", True),
        ("/health", "/health", True),
        (["/health"], "/health/", False),
        (["/health"], "//health", False),
        (["/health"], "/healthy", False),
        (["/health"], "/x/health", False),
        (["/health"], "/health\n", False),
        (["/static/*"], "/static/app.js", True),
        (["/static/*"], "/static/a/b/c.css", True),
        (["/static/*"], "/static/", True),
        (["/static/*"], "/static", False),
        (["/static/*"], "/statics/app.js", False),
        (["*.png"], "/a/b.png", True),
        (["*.png"], "/a/bXpng", False),
        (["/a.b"], "/aXb", False),
        (["/a", "/b/*/c"], "/b/1/c", True),
        ((), "/", False),
    ],
)
async def test_exempt_paths_are_exact_but_for_the_star(store: MemoryStore, exempt: Any, path: str, free: bool) -> None:
    answers = await statuses(door(store, "1/60s", exempt=exempt), 2, path)
    assert answers == ([200, 200] if free else [200, 429])


async def test_an_exempt_path_is_the_apps_own_wherever_a_server_puts_the_app(store: MemoryStore) -> None:
    app = site(store, "1/60s", exempt=["/health"])
    assert await statuses(app, 3, "/prefix/health", root_path="/prefix") == [200, 200, 200]
    assert await statuses(app, 3, "/health", root_path="/prefix") == [200, 200, 200]
    assert await statuses(app, 2, "/prefix/", root_path="/prefix") == [200, 429]


async def test_an_exempt_path_of_a_mounted_app_is_that_apps_own(store: MemoryStore) -> None:
    app = Starlette(routes=[Mount("/inner", site(store, "1/60s", exempt=["/health"])), Route("/health", page)])
    assert await statuses(app, 3, "/inner/health") == [200, 200, 200]
    assert await statuses(app, 2, "/inner/") == [200, 429]


async def test_no_host_makes_a_path_exempt(store: MemoryStore) -> None:
    app = site(store, "1/60s", exempt=["/health"])
    assert await statuses(app, 2, "/", headers=[("host", "example.org/health?")]) == [200, 429]


@pytest.mark.parametrize("wrap", [False, True], ids=["sync", "async"])
async def test_a_function_may_say_who_is_exempt(store: MemoryStore, wrap: bool) -> None:
    def inside(conn: Any) -> bool:
        return bool(conn.client.host == "127.0.0.1")

    async def later(conn: Any) -> bool:
        return inside(conn)

    app = door(store, "1/60s", exempt=later if wrap else inside)
    assert await statuses(app, 3, client=("127.0.0.1", 1)) == [200, 200, 200]
    assert await statuses(app, 2) == [200, 429]


async def test_the_exempt_carry_no_headers_and_ask_no_key(store: MemoryStore) -> None:
    def key(conn: Any) -> str:
        raise Trouble

    assert not (await ask(door(store, exempt=["/"], key=key))).about_limits


# What is given back


def login(store: MemoryStore, limit: str = "2/60s", **options: Any) -> RateLimitMiddleware:
    """An app that knows one password; only failures are counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/crash":
            raise Trouble
        await respond(send, 200 if scope["path"] == "/right" else 401)

    return door(store, limit, app=app, refund=lambda status: status < 400, **options)


async def test_only_failed_logins_count(store: MemoryStore) -> None:
    app = login(store)
    assert await statuses(app, 9, "/right") == [200] * 9
    assert await statuses(app, 3, "/wrong") == [401, 401, 429]
    assert await statuses(app, 1, "/right") == [429]


async def test_an_app_that_raises_is_a_500_to_refund(store: MemoryStore) -> None:
    asked = []

    def gave(status: int) -> bool:
        asked.append(status)
        return status == 500

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Trouble

    limited = door(store, "1/60s", app=app, refund=gave)
    for _ in range(4):
        with pytest.raises(Trouble):
            await ask(limited)
    assert asked == [500] * 4


async def test_an_app_that_raises_is_counted_unless_500_is_given_back(store: MemoryStore) -> None:
    app = login(store, "1/60s")
    with pytest.raises(Trouble):
        await ask(app, "/crash")
    assert await statuses(app, 1, "/right") == [429]


async def test_an_app_that_raises_in_midstream_has_had_its_answer(store: MemoryStore) -> None:
    asked = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise Trouble

    limited = door(store, app=app, refund=lambda status: asked.append(status) or True)  # type: ignore[func-returns-value]
    with pytest.raises(Trouble):
        await ask(limited)
    assert asked == [200]


async def test_what_was_refused_is_not_given_back(store: MemoryStore) -> None:
    app = door(store, "1/60s", refund=lambda status: status == 429)
    assert await statuses(app, 5) == [200] + [429] * 4


async def test_what_shadow_mode_let_pass_uncharged_is_not_given_back(store: MemoryStore) -> None:
    app = login(store, "1/60s", enforce=False)
    assert await statuses(app, 3, "/wrong") == [401] * 3
    assert await statuses(app, 3, "/right") == [200] * 3
    assert await statuses(login(store, "1/60s"), 1, "/right") == [429]


# Shadow mode


async def test_shadow_mode_counts_and_reports_and_refuses_nothing(
    store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = door(store, "1/60s", enforce=False)
    answers = [await ask(app) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer["x-ratelimit-remaining"] for answer in answers] == ["0"] * 4
    assert not {"retry-after", "x-ratelimit-scope"} & answers[-1].about_limits
    clock.advance(59)
    await ask(app)
    clock.advance(61)
    assert await statuses(app, 2) == [200, 200]
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in texts if "203.0.113" in text] == []
    assert len(texts) == 2, "a log line per refused request"
    assert ("would have refused 1" in texts[0], "would have refused 4" in texts[1]) == (True, True)
