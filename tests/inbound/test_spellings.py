"""What uvicorn makes of a request: no spelling of a path or a header gets a client past its limit."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, by_header
from tests.support.local_server import get_all, served

PARSERS = pytest.mark.parametrize("parser", ["h11", "httptools"])


def hello(request: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


def site(store: MemoryStore, **options: Any) -> RateLimitMiddleware:
    routes = [Route("/login", hello), Route("/health", hello), Mount("/v1", routes=[Route("/login", hello)])]
    return RateLimitMiddleware(Starlette(routes=routes), limit="2/day", store=store, **options)


@PARSERS
@pytest.mark.parametrize("root_path", ["", "/prefix"])
@pytest.mark.parametrize(
    "spelling", ["/login%0A", "/%6Cogin", "/login?a=1", "/login%0a?", "/logi%6E"], ids=lambda text: text[1:]
)
def test_each_spelling_that_is_served_is_counted(
    store: MemoryStore, parser: str, root_path: str, spelling: str
) -> None:
    with served(site(store, only=["/login"]), http=parser, root_path=root_path) as port:
        assert get_all(port, [(spelling, {})] * 3) == [200, 200, 429]
        assert get_all(port, [("/login", {}), ("/health", {})]) == [429, 200]


@PARSERS
@pytest.mark.parametrize(
    "spelling",
    ["/health/../login", "/health/%2e%2e/login", "//health", "/health/", "/HEALTH", "/health%0A", "/health."],
)
def test_no_spelling_of_an_exempt_path_is_exempt(store: MemoryStore, parser: str, spelling: str) -> None:
    with served(site(store, exempt=["/health", "/static/*"]), http=parser) as port:
        assert get_all(port, [(spelling, {})] * 3)[2] == 429
        assert get_all(port, [("/health", {})] * 3) == [200] * 3


@pytest.mark.parametrize("root_path", ["/prefix", "/prefix/"])
def test_a_prefix_of_the_server_is_no_part_of_a_path(store: MemoryStore, root_path: str) -> None:
    with served(site(store, only=["/login", "/health"], exempt=["/health"]), root_path=root_path) as port:
        assert get_all(port, [("/login", {})] * 3) == [200, 200, 429]
        assert get_all(port, [("/health", {})] * 3) == [200] * 3


def test_a_mounted_route_is_limited_by_the_path_of_the_app_that_has_the_middleware(store: MemoryStore) -> None:
    with served(site(store, only=["/v1/login"]), root_path="/prefix") as port:
        assert get_all(port, [("/v1/login", {})] * 3) == [200, 200, 429]
        assert get_all(port, [("/login", {})] * 3) == [200] * 3


@PARSERS
def test_all_spellings_of_credentials_share_a_bucket(store: MemoryStore, parser: str) -> None:
    spellings = ["Bearer tok", "bearer tok", "BEARER   tok", "Bearer tok   ", "Bearer\ttok"]
    with served(site(store, key=by_header("authorization")), http=parser) as port:
        requests = [("/health", {"Authorization": spelling}) for spelling in spellings]
        assert get_all(port, requests) == [200, 200, 429, 429, 429]
        assert get_all(port, [("/health", {"Authorization": "Bearer other"})]) == [200]
