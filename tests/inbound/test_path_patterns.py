"""Patterns of paths: what they mean, what they cost, and that no other spelling of a path gets round them."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.inbound.path_patterns import app_path, exempting, limiting
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import ask, hello, http, statuses

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/health", ["/health"], ["/health/", "//health", "/healthy", "/x/health", "/health\n", "/HEALTH", ""]),
        ("/", ["/"], ["", "//", "/x"]),
        ("/a.b", ["/a.b"], ["/aXb"]),
        ("/static/*", ["/static/", "/static/a", "/static/a/b/c.css"], ["/static", "/statics/a", "/x/static/a"]),
        ("/static/**", ["/static/", "/static/a", "/static/a/b/c.css"], ["/static", "/statics/a"]),
        ("/*", ["/", "/a", "/a/b"], [""]),
        ("*", ["/", "/a", "/a/b"], [""]),
        ("**", ["/", "/a", "/a/b"], [""]),
        ("/guilds/*/image", ["/guilds/1/image"], ["/guilds/1/members/2/image", "/guilds//image", "/guilds/image"]),
        ("/guilds/**/image", ["/guilds/1/image", "/guilds/1/members/2/image", "/guilds/image"], ["/guilds/1/images"]),
        ("/a/**/b/**/c", ["/a/b/c", "/a/x/b/b/y/c"], ["/a/x/c", "/a/b/x", "/a/c/b"]),
        ("/**/b/c/*", ["/b/c/x", "/a/b/b/c/x/y"], ["/b/c", "/b/x/c/x"]),
        ("/v*/users", ["/v1/users", "/v/users"], ["/v1/x/users", "/w1/users"]),
        ("/a*b*c", ["/abc", "/a-b-c", "/abbcc"], ["/ab", "/acb", "/a/b/c"]),
        ("/ab*ba", ["/abba", "/ab-ba"], ["/aba"]),
        ("*.png", ["/a.png", "/a/b.png"], ["/a/bXpng", "/a.png/b"]),
        ("*/health", ["/health", "/a/health", "/a/b/health"], ["/healthy"]),
    ],
)
def test_a_pattern_means_these_paths(pattern: str, inside: list[str], outside: list[str]) -> None:
    is_exempt = exempting([pattern])
    assert [path for path in inside if not is_exempt(path)] == []
    assert [path for path in outside if is_exempt(path)] == []
    is_limited = limiting([pattern])
    assert [path for path in inside if not is_limited(path)] == []


@pytest.mark.parametrize(
    ("pattern", "right"),
    [
        ("health", '"/health"'),
        ("", '"/health"'),
        (None, '"/health"'),
        (7, '"/health"'),
        ("/items/{id}", "'/items/*'"),
        ("/items/<int:id>/", "'/items/*/'"),
        ("/items/:id/image", "'/items/*/image'"),
        ("/items/.*", "'/items/*'"),
        ("/caf%C3%A9", "'/café', not"),
        ("/login?next=*", "neither a URL nor an expression"),
        (r"/v[12]/\d", "neither a URL nor an expression"),
        ("/login ", "neither a URL nor an expression"),
        ("/items/{id:int}/photos/{n}.png", "'/items/*/photos/*'"),
        ("/a/**.png", '"/files/**/*.png"'),
        ("/a**", '"/files/**/*.png"'),
        ("/a//b", '"/files/*"'),
        ("/a/../b", '"/files/*"'),
        ("/./b", '"/files/*"'),
    ],
)
def test_a_pattern_that_no_path_fits_is_refused_with_a_right_one(pattern: Any, right: str) -> None:
    with pytest.raises(ValueError, match=re.escape(right)):
        RateLimitMiddleware(hello, limit="5/s", exempt=["/a", pattern])
    with pytest.raises(ValueError, match=re.escape(right)):
        RateLimitMiddleware(hello, limit="5/s", only=["/a", pattern])


def test_a_middleware_that_would_limit_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape('only=("/login",)')):
        RateLimitMiddleware(hello, limit="5/s", only=())


# What an attacker may write


SPELLINGS = [
    "/login", "/login/", "//login", "/login//", "/LOGIN", "/login\n", "/./login", "/x/../login", "/login/.",
    "/login/..",
    "/../login", "/static/../login", "/login.", "/login%2f", "/login%0a", "/%6cogin", "/login;a=1", "/login\\",
    "/login ",
]  # fmt: skip
PATHS = st.text(st.sampled_from("/.loginstatc*%\n LOG{}"), max_size=30).map(lambda text: f"/{text}")


def site(**options: Any) -> RateLimitMiddleware:
    """An app that names the route that has served a request."""

    def named(name: str) -> Any:
        return lambda request: PlainTextResponse(name)

    routes = [
        Route("/login", named("login")),
        Route("/health", named("health")),
        Route("/users/{user}/login", named("login of a user")),
        Mount("/static", routes=[Route("/{path:path}", named("file"))]),
        Route("/{path:path}", named("other")),
    ]
    return RateLimitMiddleware(
        Starlette(routes=routes), limit="1/day", store=MemoryStore(clock=ManualClock()), **options
    )


@given(st.sampled_from(SPELLINGS) | PATHS)
@example("/users/7/login\n")
async def test_whatever_reaches_the_only_limited_route_is_counted(path: str) -> None:
    answer = await ask(site(only=["/login", "/users/*/login"]), path)
    if answer.body.startswith(b"login"):
        assert "x-ratelimit-remaining" in answer


@given(st.sampled_from(SPELLINGS) | PATHS | PATHS.map(lambda path: f"/static{path}"))
@example("/static/../login")
async def test_whatever_is_exempt_is_served_by_the_exempt_route(path: str) -> None:
    answer = await ask(site(exempt=["/static/*", "/health"]), path)
    if "x-ratelimit-remaining" not in answer:
        assert answer.body in (b"file", b"health")


@pytest.mark.parametrize("path", ["/login", "/login/", "//login", "/LOGIN", "/login\n", "/x/../login", "/./login"])
def test_each_spelling_that_some_router_serves_is_limited(path: str) -> None:
    assert limiting(["/login"])(path)
    assert limiting(["/Login/"])(path)


def test_other_paths_are_not_limited() -> None:
    is_limited = limiting(["/login", "/admin/*"])
    assert not any(is_limited(path) for path in ("/", "/logins", "/x/login", "/login/x", "/admin", "/administrator"))


@pytest.mark.parametrize("path", ["/static//x", "/static/./x", "/static/../login", "/static/..", "/static/."])
def test_a_path_that_a_server_may_read_as_another_one_is_not_exempt(path: str) -> None:
    assert not exempting(["/static/*", "/static/**/x"])(path)


# What it costs


STARS = [
    "/" + "*a" * 20 + "b",
    "/**/a" * 20 + "/b",
    "/**/a/a/a/a/a/b/**/c",
    "/**" + "/a" * 30 + "/b/**/c",
    "/" + "a*" * 20 + "/**/" + "*b" * 20,
]


@pytest.mark.parametrize("pattern", STARS)
@pytest.mark.parametrize(
    "path", ["/" + "a" * 4_000, "/a" * 2_000, "/" + "a" * 60_000, "/a" * 30_000, "/" * 4_000, "/a" * 127 + "/c"]
)
def test_a_long_path_costs_a_bounded_number_of_steps(pattern: str, path: str) -> None:
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    is_exempt, is_limited = exempting([pattern]), limiting([pattern])
    former = sys.getprofile()
    sys.setprofile(count)
    try:
        assert not is_exempt(path)
        is_limited(path)
    finally:
        sys.setprofile(former)
    assert steps < 50_000


@pytest.mark.parametrize("long", ["/login/" + "a" * 100_000, "/login" + "/a" * 128])
def test_a_path_of_any_length_is_counted(long: str) -> None:
    assert limiting(["/login"])(long)
    assert not exempting(["/login/*"])(long)


# The app's own path


@pytest.mark.parametrize(
    ("path", "root_path", "own"),
    [
        ("/a", "", "/a"),
        ("/a", None, "/a"),
        ("/prefix/a", "/prefix", "/a"),
        ("/a", "/prefix", "/a"),
        ("/prefixa", "/prefix", "/prefixa"),
        ("/prefix", "/prefix", ""),
        ("/prefix/a", "/prefix/", "/prefix/a"),
    ],
)
def test_the_path_is_the_one_that_starlette_routes_by(path: str, root_path: Any, own: str) -> None:
    assert app_path(http(path, root_path=root_path)) == own
    assert app_path(http(path, root_path="/x"), root_path or "") == own
    assert app_path({"type": "http"}) == ""


@pytest.mark.parametrize("root_path", ["/prefix", "/prefix/", "/prefix//", "/"])
async def test_what_a_route_serves_under_any_root_path_is_limited_by_its_path(root_path: str) -> None:
    app = site(only=["/login"])
    for path in (f"{root_path}login", f"{root_path}/login", "/login"):
        answer = await ask(app, path, root_path=root_path)
        assert (answer.body == b"login" or answer.status == 429) == ("x-ratelimit-limit" in answer)


async def test_a_route_of_a_mounted_app_is_limited_by_its_own_path(store: MemoryStore) -> None:
    inner = Starlette(routes=[Route("/login", lambda request: PlainTextResponse("inner"))])
    limited = RateLimitMiddleware(inner, limit="1/day", store=store, only=["/login"])
    app = Starlette(routes=[Mount("/v1", limited), Route("/login", lambda request: PlainTextResponse("outer"))])
    assert await statuses(app, 2, "/v1/login") == [200, 429]
    assert await statuses(app, 2, "/prefix/v1/login", root_path="/prefix") == [429, 429]
    assert await statuses(app, 2, "/login") == [200, 200]


# only= and exempt=


async def test_only_the_named_paths_are_limited(store: MemoryStore) -> None:
    app = RateLimitMiddleware(hello, limit="1/day", store=store, only=("/login",))
    assert await statuses(app, 3, "/") == [200] * 3
    assert await statuses(app, 2, "/login") == [200, 429]
    assert not (await ask(app, "/")).about_limits


async def test_exempt_makes_exceptions_from_only(store: MemoryStore) -> None:
    app = RateLimitMiddleware(hello, limit="1/day", store=store, only=["/api/*"], exempt=["/api/health"])
    assert await statuses(app, 2, "/") == [200, 200]
    assert await statuses(app, 2, "/api/health") == [200, 200]
    assert await statuses(app, 2, "/api/users") == [200, 429]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_may_choose_what_is_limited(store: MemoryStore, is_async: bool) -> None:
    def is_post(request: Request) -> bool:
        return request.method == "POST"

    async def is_post_later(request: Request) -> bool:
        return is_post(request)

    app = RateLimitMiddleware(hello, limit="1/day", store=store, only=is_post_later if is_async else is_post)
    assert await statuses(app, 2) == [200, 200]
    assert await statuses(app, 2, method="POST") == [200, 429]
