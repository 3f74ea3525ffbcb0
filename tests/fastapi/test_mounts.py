"""Mounted apps: the mount's template is part of the route's, and no spelling of its values opens a fresh bucket."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Router

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import statuses


def limited(store: MemoryStore | None, *paths: str, limit: Any = "2/hour", **options: Any) -> FastAPI:
    """An app whose every route has that limit."""
    app = FastAPI(dependencies=[Depends(RateLimit(limit, store=store, **options))])

    async def endpoint() -> None: ...

    for path in paths or ("/items",):
        app.get(path)(endpoint)
    return app


def test_a_mounted_app_is_limited_without_more_set_up() -> None:
    app = FastAPI()
    app.mount("/sub", limited(None))
    assert statuses(TestClient(app), *["/sub/items"] * 3) == [200, 200, 429]


def test_two_mounts_of_one_app_have_two_buckets(store: MemoryStore) -> None:
    app, sub = FastAPI(), limited(store, limit="1/hour")
    app.mount("/v1", sub)
    app.mount("/v2", sub)
    assert statuses(TestClient(app), *["/v1/items", "/v2/items"] * 2) == [200, 200, 429, 429]


def test_a_mount_and_a_route_of_the_same_shape_have_two_buckets(store: MemoryStore) -> None:
    limit = RateLimit("1/hour", store=store)
    app, sub = FastAPI(dependencies=[Depends(limit)]), FastAPI(dependencies=[Depends(limit)])

    async def endpoint() -> None: ...

    app.get("/items")(endpoint)
    sub.get("/items")(endpoint)
    app.mount("/sub", sub)
    assert statuses(TestClient(app), *["/items", "/sub/items"] * 2) == [200, 200, 429, 429]


TENANTS = ["acme", "other", "Acme", "a%63me", "acme%20", "7", "007"]


@pytest.mark.parametrize(
    "route",
    ["/items", "/items/{item}", "/items/{tenant}", "/items/{tenant_id}", "/{tenant}", "/items/{tenants:path}"],
)
def test_the_values_of_a_mounts_parameters_open_no_fresh_bucket(store: MemoryStore, route: str) -> None:
    app = FastAPI()
    app.mount("/t/{tenant}", limited(store, route))
    last = route.replace("{item}", "1").replace("{tenant}", "1").replace("{tenant_id}", "1")
    urls = [f"/t/{tenant}{last.replace('{tenants:path}', 'a/b')}" for tenant in TENANTS]
    assert statuses(TestClient(app), *urls) == [200, 200] + [429] * (len(urls) - 2)


def test_a_mounts_typed_parameter_opens_no_fresh_bucket(store: MemoryStore) -> None:
    app = FastAPI()
    app.mount("/t/{tenant:int}", limited(store))
    assert statuses(TestClient(app), "/t/7/items", "/t/07/items", "/t/007/items", "/t/8/items") == [200, 200, 429, 429]


def test_a_mount_that_takes_a_whole_path_opens_no_fresh_bucket(store: MemoryStore) -> None:
    app = FastAPI()
    app.mount("/files/{folder:path}", limited(store))
    urls = ["/files/a/items", "/files/a/b/items", "/files/c/items", "/files/c/d/e/items"]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429]


def within_mounts(sub: FastAPI) -> Any:
    middle = FastAPI()
    middle.mount("/area/{area}", sub)
    app = FastAPI()
    app.mount("/t/{tenant}", middle)
    return app


def within_a_router(sub: FastAPI) -> Any:
    router = APIRouter()
    router.mount("/area/{area}", sub)
    app = FastAPI()
    app.include_router(router, prefix="/t/{tenant}")
    return app


def within_starlette(sub: FastAPI) -> Any:
    inner = Router(routes=[Mount("/area/{area}", app=sub)])
    return Starlette(routes=[Mount("/t/{tenant}", app=inner)])


def within_middleware(sub: FastAPI) -> Any:
    app = FastAPI()
    app.mount("/t/{tenant}/area/{area}", GZipMiddleware(sub))
    return app


def within_wrapped_mounts(sub: FastAPI) -> Any:
    middle = FastAPI()
    middle.mount("/area/{area}", sub)
    app = FastAPI()
    app.mount("/t/{tenant}", GZipMiddleware(middle))
    return app


@pytest.mark.parametrize(
    "around", [within_mounts, within_a_router, within_starlette, within_middleware, within_wrapped_mounts]
)
def test_mounts_within_anything_open_no_fresh_bucket(store: MemoryStore, around: Callable[[FastAPI], Any]) -> None:
    client = TestClient(around(limited(store)))
    urls = [f"/t/{tenant}/area/{area}/items" for tenant, area in [(1, 1), (2, 1), (1, 2), (3, 3), ("01", "1")]]
    assert statuses(client, *urls) == [200, 200, 429, 429, 429]


@pytest.mark.parametrize(
    "around", [within_mounts, within_a_router, within_starlette, within_middleware, within_wrapped_mounts]
)
def test_routes_within_mounts_have_a_bucket_each(store: MemoryStore, around: Callable[[FastAPI], Any]) -> None:
    client = TestClient(around(limited(store, "/a", "/b", limit="1/hour")))
    assert statuses(client, "/t/1/area/1/a", "/t/1/area/1/b", "/t/2/area/1/a", "/t/2/area/1/b") == [200, 200, 429, 429]


def test_sibling_mounts_with_parameters_have_a_bucket_each(store: MemoryStore) -> None:
    app = FastAPI()
    sub = limited(store, limit="1/hour")
    app.mount("/teams/{team}", sub)
    app.mount("/users/{user}", sub)
    urls = ["/teams/1/items", "/users/1/items", "/teams/2/items", "/users/2/items"]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429]


def test_mounts_within_a_mount_have_a_bucket_each(store: MemoryStore) -> None:
    app, middle, sub = FastAPI(), FastAPI(), limited(store, limit="1/hour")
    middle.mount("/a", sub)
    middle.mount("/b/{x}", sub)
    app.mount("/t/{tenant}", middle)
    urls = ["/t/1/a/items", "/t/1/b/1/items", "/t/2/a/items", "/t/2/b/1/items", "/t/1/b/2/items"]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429, 429]


def test_a_router_included_in_a_mounted_app_counts_with_its_prefix(store: MemoryStore) -> None:
    router, sub, app = APIRouter(), FastAPI(), FastAPI()

    @router.get("/items/{item}", dependencies=[Depends(RateLimit("1/hour", store=store))])
    async def item() -> None: ...

    sub.include_router(router, prefix="/v1")
    sub.include_router(router, prefix="/v2")
    app.mount("/t/{tenant}", sub)
    urls = ["/t/a/v1/items/1", "/t/a/v2/items/1", "/t/b/v1/items/2", "/t/b/v2/items/2"]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429]


def test_a_mounts_parameter_may_separate_buckets(store: MemoryStore) -> None:
    app = FastAPI()
    app.mount("/t/{tenant}", limited(store, limit="1/hour", per=("tenant",)))
    urls = ["/t/7/items", "/t/8/items", "/t/007/items", "/t/8/items"]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429]


def test_the_servers_root_path_is_no_part_of_a_template(store: MemoryStore) -> None:
    app = FastAPI()
    app.mount("/t/{tenant}", limited(store))
    plain, behind = TestClient(app), TestClient(app, root_path="/proxy")
    assert statuses(plain, "/t/1/items", "/t/2/items", "/t/3/items") == [200, 200, 429]
    assert statuses(behind, "/proxy/t/4/items") == [429]


def test_a_mounted_app_uses_the_store_of_the_outer_apps_middleware(store: MemoryStore) -> None:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    sub = limited(None, "/items", limit=TokenBucket("1/hour", scope="global"))
    app.mount("/t/{tenant}", sub)
    assert statuses(TestClient(app), "/t/1/items", "/t/2/items") == [200, 429]
    assert len(store) == 1
    assert sub.state._state == {}
