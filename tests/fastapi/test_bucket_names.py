"""Several limits of one path: each has buckets of its own, under the same names in every process."""

import subprocess
import sys
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_ratelimit import Decision, FixedWindow, MemoryStore, Policy, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit, usage_router
from asgi_ratelimit.limiter import limiters_of
from tests.fastapi.traffic import statuses


def names(store: MemoryStore) -> list[str]:
    """The names of the limiters in a store, each with its limits."""
    return sorted(f"{limiter.name} {', '.join(map(str, limiter.limits))}" for limiter in limiters_of(store))


def route_with(*limits: RateLimit, outer: tuple[RateLimit, ...] = ()) -> FastAPI:
    """An app with one route, whose router has limits too."""
    router, app = APIRouter(dependencies=[Depends(limit) for limit in outer]), FastAPI()
    router.add_api_route("/items", lambda: None, dependencies=[Depends(limit) for limit in limits])
    app.include_router(router)
    return app


@pytest.fixture(autouse=True)
def no_warnings(recwarn: pytest.WarningsRecorder) -> Any:
    yield
    assert not [str(one.message) for one in recwarn.list if "ARL" in str(one.message)]


def test_a_router_and_a_route_with_limits_of_one_period_charge_two_buckets(store: MemoryStore) -> None:
    app = route_with(RateLimit("5/minute", store=store), outer=(RateLimit("100/minute", store=store),))
    client = TestClient(app)
    assert statuses(client, *["/items"] * 6) == [200] * 5 + [429]
    assert client.get("/items").headers["x-ratelimit-limit"] == "5"
    assert names(store) == ["/items 100/minute", "/items#2 5/minute"]


def test_two_equal_limits_on_a_route_charge_two_buckets(store: MemoryStore) -> None:
    app = route_with(RateLimit("4/hour", store=store), RateLimit("4/hour", store=store))
    assert statuses(TestClient(app), *["/items"] * 5) == [200] * 4 + [429]
    assert names(store) == ["/items 4/hour", "/items#2 4/hour"]


def test_limits_that_share_no_bucket_need_no_number(store: MemoryStore) -> None:
    route = RateLimit(FixedWindow("5/minute"), store=store), RateLimit("9/s", store=store)
    statuses(TestClient(route_with(*route, outer=(RateLimit("100/minute", store=store),))), "/items")
    assert names(store) == ["/items 100/minute", "/items 5/minute", "/items 9/second"]


def test_a_list_that_shares_one_bucket_with_another_has_a_number(store: MemoryStore) -> None:
    limits = (
        RateLimit("9/s", store=store),
        RateLimit("100/minute", store=store),
        RateLimit(["5/s", "20/m"], store=store),
    )
    statuses(TestClient(route_with(*limits)), "/items")
    assert names(store) == ["/items 100/minute", "/items 9/second", "/items#3 5/second, 20/minute"]


def test_the_methods_of_a_path_with_other_limits_have_buckets_of_their_own(store: MemoryStore) -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: None, dependencies=[Depends(RateLimit("100/minute", store=store))])
    writes = RateLimit("2/minute", store=store)
    app.add_api_route("/items", lambda: None, methods=["POST"], dependencies=[Depends(writes)])
    client = TestClient(app)
    assert statuses(client, *["/items"] * 60) == [200] * 60
    assert [client.post("/items").status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/items").headers["x-ratelimit-remaining"] >= "39"


def test_the_methods_of_a_path_with_equal_limits_share_its_bucket(store: MemoryStore) -> None:
    app = FastAPI()
    for method in ("GET", "POST"):
        limit = RateLimit("2/minute", store=store)
        app.add_api_route("/items", lambda: None, methods=[method], dependencies=[Depends(limit)])
    client = TestClient(app)
    assert [client.get("/items").status_code, client.post("/items").status_code] == [200, 200]
    assert [client.get("/items").status_code, client.post("/items").status_code] == [429, 429]
    assert set(names(store)) == {"/items 2/minute"}


def test_the_name_does_not_depend_on_which_method_comes_first(store: MemoryStore) -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: None, dependencies=[Depends(RateLimit("100/minute", store=store))])
    writes = RateLimit("2/minute", store=store)
    app.add_api_route("/items", lambda: None, methods=["POST"], dependencies=[Depends(writes)])
    TestClient(app).post("/items")
    assert names(store) == ["/items#2 2/minute"]


def test_the_name_does_not_depend_on_whether_the_other_limit_counts_the_request(store: MemoryStore) -> None:
    def plan(conn: HTTPConnection) -> str | None:
        return None if "x-staff" in conn.headers else "9/minute"

    app = route_with(RateLimit("2/minute", store=store), outer=(RateLimit(plan, store=store),))
    client = TestClient(app)
    assert statuses(client, "/items", headers={"x-staff": "1"}) == [200]
    assert statuses(client, "/items", "/items") == [200, 429]
    assert names(store) == ["/items 9/minute", "/items#2 2/minute"]


def test_functions_have_a_number_wherever_another_limit_stands(store: MemoryStore) -> None:
    outer = RateLimit(lambda conn: "5/s", store=store)
    app = route_with(RateLimit(lambda conn: "9/minute", store=store), outer=(outer,))
    statuses(TestClient(app), "/items")
    assert names(store) == ["/items 5/second", "/items#2 9/minute"]


def test_a_function_that_cannot_be_hashed_is_a_limit_as_well(store: MemoryStore) -> None:
    class Plan:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, conn: HTTPConnection) -> str:
            return "5/s"

    assert statuses(TestClient(route_with(RateLimit(Plan(), store=store))), "/items") == [200]


def test_a_limit_with_a_name_has_that_name(store: MemoryStore) -> None:
    app = route_with(RateLimit("5/minute", name="own", store=store), outer=(RateLimit("9/minute", store=store),))
    statuses(TestClient(app), "/items")
    assert names(store) == ["/items 9/minute", "own 5/minute"]


def test_one_object_on_a_router_and_its_route_is_charged_once(store: MemoryStore) -> None:
    limit = RateLimit("2/minute", store=store)
    assert statuses(TestClient(route_with(limit, outer=(limit,))), *["/items"] * 3) == [200, 200, 429]
    assert names(store) == ["/items 2/minute"]


def test_one_object_that_is_first_here_and_second_there(store: MemoryStore) -> None:
    limit, app = RateLimit("9/minute", store=store), FastAPI()
    app.add_api_route("/a", lambda: None, dependencies=[Depends(limit)])
    app.add_api_route("/b", lambda: None, dependencies=[Depends(RateLimit("5/minute", store=store)), Depends(limit)])
    statuses(TestClient(app), "/a", "/b")
    assert names(store) == ["/a 9/minute", "/b 5/minute", "/b#2 9/minute"]


def test_a_global_limit_is_one_bucket_whatever_stands_beside_it(store: MemoryStore) -> None:
    everybody, app = RateLimit(TokenBucket("3/minute", scope="global"), store=store), FastAPI()
    app.add_api_route("/a", lambda: None, dependencies=[Depends(everybody)])
    app.add_api_route(
        "/b", lambda: None, dependencies=[Depends(RateLimit("9/minute", store=store)), Depends(everybody)]
    )
    assert statuses(TestClient(app), "/a", "/b", "/a", "/b") == [200, 200, 200, 429]


@pytest.mark.parametrize("place", ["mounted", "included twice"])
def test_it_holds_in_mounted_apps_and_in_routers_with_prefixes(store: MemoryStore, place: str) -> None:
    app = FastAPI()
    limits = [Depends(RateLimit(limit, store=store)) for limit in ("9/minute", "2/minute")]
    if place == "mounted":
        inner = FastAPI()
        inner.add_api_route("/items", lambda: None, dependencies=limits)
        app.mount("/v1", inner)
    else:
        router = APIRouter(dependencies=limits[:1])
        router.add_api_route("/items", lambda: None, dependencies=limits[1:])
        for prefix in ("/v1", "/v2"):
            app.include_router(router, prefix=prefix)
    assert statuses(TestClient(app), *["/v1/items"] * 3) == [200, 200, 429]
    assert names(store) == ["/v1/items 9/minute", "/v1/items#2 2/minute"]


async def page(request: Request) -> Response:
    return Response("page")


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_limits_that_are_middleware_of_one_route_have_buckets_of_their_own(store: MemoryStore, kind: Any) -> None:
    outer, inner, app = RateLimit("9/minute", store=store), RateLimit("2/minute", store=store), kind()
    app.router.routes.append(Route("/items", page, middleware=[Middleware(outer.wrap), Middleware(inner.wrap)]))
    assert statuses(TestClient(app), *["/items"] * 3) == [200, 200, 429]
    assert names(store) == ["/items 9/minute", "/items#2 2/minute"]


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_a_limit_that_is_middleware_of_several_routes_has_buckets_for_each(store: MemoryStore, kind: Any) -> None:
    limit, app = RateLimit("1/minute", store=store), kind()
    for path in ("/a", "/b/{x}"):
        app.router.routes.append(Route(path, page, middleware=[Middleware(limit.wrap)]))
    assert statuses(TestClient(app), "/a", "/b/1", "/a", "/b/2") == [200, 200, 429, 429]
    assert names(store) == ["/a 1/minute", "/b/{x} 1/minute"]


def test_the_view_of_the_caller_reads_the_same_buckets(store: MemoryStore) -> None:
    app = route_with(RateLimit("5/minute"), outer=(RateLimit("9/minute"),))
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    app.include_router(usage_router(), prefix="/limits")
    client = TestClient(app)
    statuses(client, "/items")
    seen = client.get("/limits/me").json()["limits"]
    assert [(one["name"], one["remaining"]) for one in seen] == [("/items", 8), ("/items#2", 4)]


def test_the_second_decision_can_be_settled(store: MemoryStore) -> None:
    app, outer = FastAPI(), RateLimit("9/minute", store=store)
    limit = RateLimit("5/minute", store=store)

    @app.get("/items", dependencies=[Depends(outer)])
    async def items(quota: Annotated[Decision, Depends(limit)]) -> None:
        await limit.refund(quota)

    assert statuses(TestClient(app), *["/items"] * 10) == [200] * 9 + [429]


PROGRAM = """
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from asgi_ratelimit.fastapi import RateLimit

app = FastAPI(dependencies=[Depends(RateLimit("9/minute"))])
for method in ("GET", "PUT"):
    limit = RateLimit(f"{len(method)}/minute")
    app.add_api_route("/items", lambda: None, methods=[method], dependencies=[Depends(limit)])
print(TestClient(app).put("/items").headers["x-ratelimit-bucket"])
"""


def test_another_process_has_the_same_names() -> None:
    other = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == Policy("/items#2", TokenBucket("3/minute")).bucket
