"""What is not counted or not refused: exempt paths, and shadow mode."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route

from asgi_ratelimit import MemoryStore, NetworkFile, RateLimitMiddleware, by_ip
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_middleware import Trouble, door, page, site
from tests.support.asgi import ask, hello, statuses

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


async def test_a_list_may_have_paths_and_functions(store: MemoryStore) -> None:
    async def has_a_pass(conn: HTTPConnection) -> bool:
        return conn.headers.get("x-pass") == "yes"

    app = door(store, "1/60s", exempt=["/health", by_ip.within("192.0.2.0/24"), has_a_pass])
    assert await statuses(app, 3, "/health") == [200] * 3
    assert await statuses(app, 3, client=("192.0.2.7", 1)) == [200] * 3
    assert await statuses(app, 3, headers=[("x-pass", "yes")]) == [200] * 3
    assert await statuses(app, 2) == [200, 429]


async def test_only_may_have_both_too(store: MemoryStore) -> None:
    app = door(store, "1/60s", only=["/login", by_ip.within("192.0.2.0/24")], exempt=["/login/free"])
    assert await statuses(app, 3, "/other") == [200] * 3
    assert await statuses(app, 2, "/login") == [200, 429]
    assert await statuses(app, 2, "/other", client=("192.0.2.7", 1)) == [200, 429]
    assert await statuses(app, 2, "/login/free", client=("192.0.2.7", 1)) == [200, 200]


@pytest.mark.parametrize("wrong", ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"])
@pytest.mark.parametrize("option", ["exempt", "only"])
def test_a_network_alone_is_named(option: str, wrong: str) -> None:
    for value in (wrong, ["/health", wrong]):
        options: Any = {option: value}
        with pytest.raises(ValueError, match=rf"write {option}=by_ip.within\('{wrong}'\), or behind proxies ClientIP"):
            RateLimitMiddleware(hello, limit="1/s", **options)


def test_so_is_a_file_of_networks(tmp_path: Path) -> None:
    (tmp_path / "networks.txt").write_text("10.0.0.0/8")
    file = NetworkFile(tmp_path / "networks.txt")
    for exempt in (file, [file]):
        with pytest.raises(ValueError, match=r"write exempt=by_ip.within\(NetworkFile\('.*networks.txt'\)\)"):
            RateLimitMiddleware(hello, limit="1/s", exempt=exempt)  # type: ignore[arg-type]


def test_a_function_in_a_list_is_checked_like_one_alone() -> None:
    with pytest.raises(ValueError, match="exempt is a function such as `def exempt"):
        RateLimitMiddleware(hello, limit="1/s", exempt=["/health", lambda: True])  # type: ignore[list-item, misc]


async def test_the_exempt_carry_no_headers_and_ask_no_key(store: MemoryStore) -> None:
    def key(conn: Any) -> str:
        raise Trouble

    assert not (await ask(door(store, exempt=["/"], key=key))).about_limits


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
    assert ("1 requests would have" in texts[0], "4 requests would have" in texts[1]) == (True, True)
