"""Which routes it limits, and which of them share a bucket: one per path template, and nothing to set up."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient

from asgi_ratelimit import Decision, MemoryStore, TokenBucket, by_header
from asgi_ratelimit.fastapi import RateLimit, rate_limit
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.traffic import as_user, statuses


def test_it_limits_a_route_of_an_app_that_has_nothing_else_set_up() -> None:
    app = FastAPI()

    @app.get("/search", dependencies=[Depends(RateLimit("2/hour"))])
    async def search() -> str:
        return "found"

    assert statuses(TestClient(app), *["/search"] * 3) == [200, 200, 429]


def test_the_one_that_is_ready_to_use_allows_five_in_five_seconds() -> None:
    app = FastAPI()

    @app.get("/")
    async def root(quota: Annotated[Decision, Depends(rate_limit)]) -> list[float]:
        return [quota.limit, quota.remaining, quota.policy.limit.period]

    client = TestClient(app)
    assert [client.get("/").json() for _ in range(5)] == [[5, n, 5.0] for n in (4, 3, 2, 1, 0)]
    assert client.get("/").status_code == 429


def test_an_endpoint_gets_the_decision_about_its_request(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("3/3s", store=store)

    @app.get("/")
    async def root(quota: Annotated[Decision, Depends(limit)]) -> dict[str, object]:
        assert isinstance(quota, Decision)
        return {"allowed": quota.allowed, "remaining": quota.remaining, "reset_after": quota.reset_after}

    client = TestClient(app)
    assert client.get("/").json() == {"allowed": True, "remaining": 2, "reset_after": 1.0}
    assert client.get("/").json() == {"allowed": True, "remaining": 1, "reset_after": 2.0}


def test_quota_flows_back_as_time_passes(store: MemoryStore, clock: ManualClock) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("2/2s", store=store))])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    assert statuses(client, *["/"] * 3) == [200, 200, 429]
    clock.advance(0.999_999)
    assert statuses(client, "/") == [429]
    clock.advance(0.000_001)
    assert statuses(client, "/", "/") == [200, 429]


def test_one_object_on_several_routes_gives_each_its_own_bucket(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("1/hour", store=store)

    @app.get("/a", dependencies=[Depends(limit)])
    @app.get("/b", dependencies=[Depends(limit)])
    async def either() -> None: ...

    assert statuses(TestClient(app), "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_routes_whose_limits_have_the_same_name_share_a_bucket(store: MemoryStore) -> None:
    app = FastAPI()

    @app.get("/a", dependencies=[Depends(RateLimit("2/hour", name="search", store=store))])
    async def a() -> None: ...

    @app.get("/b", dependencies=[Depends(RateLimit("2/hour", name="search", store=store))])
    async def b() -> None: ...

    @app.get("/c", dependencies=[Depends(RateLimit("2/hour", name="other", store=store))])
    async def c() -> None: ...

    assert statuses(TestClient(app), "/a", "/b", "/a", "/b", "/c") == [200, 200, 429, 429, 200]


def test_the_methods_of_a_path_share_its_bucket(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("2/hour", store=store)

    @app.get("/notes", dependencies=[Depends(limit)])
    async def read() -> None: ...

    @app.post("/notes", dependencies=[Depends(limit)])
    async def write() -> None: ...

    client = TestClient(app)
    assert [client.get("/notes").status_code, client.post("/notes").status_code] == [200, 200]
    assert [client.post("/notes").status_code, client.get("/notes").status_code] == [429, 429]


@pytest.mark.parametrize("path", ["/items/{item}", "/items/{item:path}", "/items/{item:int}"])
def test_all_urls_of_a_template_share_its_bucket(store: MemoryStore, path: str) -> None:
    app = FastAPI()

    @app.get(path, dependencies=[Depends(RateLimit("2/hour", store=store))])
    async def item() -> None: ...

    assert (
        statuses(TestClient(app), "/items/1", "/items/2", "/items/3", "/items/03", "/items/4?x=1")
        == [200] * 2 + [429] * 3
    )


def test_a_query_makes_no_fresh_bucket(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    assert statuses(TestClient(app), "/", "/?a=1", "/?a=2", "/#x") == [200, 429, 429, 429]


def test_the_host_header_makes_no_fresh_bucket(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    assert statuses(client, "/") == [200]
    assert statuses(client, "/", headers={"host": "evil.example/other"}) == [429]


def test_an_app_wide_dependency_limits_every_route_by_itself(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])
    router = APIRouter()

    @app.get("/a")
    async def a() -> None: ...

    @router.get("/b")
    async def b() -> None: ...

    app.include_router(router)
    assert statuses(TestClient(app), "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_a_routers_dependency_limits_its_routes_only(store: MemoryStore) -> None:
    app = FastAPI()
    router = APIRouter(prefix="/in", dependencies=[Depends(RateLimit("1/hour", store=store))])

    @router.get("/a")
    async def a() -> None: ...

    @app.get("/out")
    async def out() -> None: ...

    app.include_router(router)
    assert statuses(TestClient(app), "/in/a", "/in/a", "/out", "/out") == [200, 429, 200, 200]


def test_a_dependency_may_be_added_where_a_router_is_included(store: MemoryStore) -> None:
    app, router = FastAPI(), APIRouter()

    @router.get("/a")
    async def a() -> None: ...

    app.include_router(router, prefix="/limited", dependencies=[Depends(RateLimit("1/hour", store=store))])
    app.include_router(router, prefix="/free")
    assert statuses(TestClient(app), *["/limited/a", "/free/a"] * 2) == [200, 200, 429, 200]


def test_one_router_under_two_prefixes_has_two_buckets(store: MemoryStore) -> None:
    app, router = FastAPI(), APIRouter()

    @router.get("/items/{item}", dependencies=[Depends(RateLimit("1/hour", store=store))])
    async def item() -> None: ...

    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    assert statuses(TestClient(app), "/v1/items/1", "/v2/items/1", "/v1/items/2", "/v2/items/2") == [200, 200, 429, 429]


def test_nested_routers_count_with_all_of_their_prefixes(store: MemoryStore) -> None:
    app, inner = FastAPI(), APIRouter(prefix="/inner")

    @inner.get("/x", dependencies=[Depends(RateLimit("1/hour", store=store))])
    async def x() -> None: ...

    for prefix in ("/one", "/two"):
        middle = APIRouter(prefix=prefix)
        middle.include_router(inner)
        app.include_router(middle, prefix="/api")
    client = TestClient(app)
    assert statuses(client, *["/api/one/inner/x", "/api/two/inner/x"] * 2) == [200, 200, 429, 429]


def test_a_prefix_with_a_parameter_is_one_template(store: MemoryStore) -> None:
    app, router = FastAPI(), APIRouter(prefix="/guilds/{guild}")

    @router.get("/channels", dependencies=[Depends(RateLimit("2/hour", store=store))])
    async def channels() -> None: ...

    app.include_router(router)
    urls = [f"/guilds/{guild}/channels" for guild in ("1", "2", "3", "%31")]
    assert statuses(TestClient(app), *urls) == [200, 200, 429, 429]


def test_a_dependency_inside_another_dependency_limits_too(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("1/hour", store=store)

    def checked(quota: Annotated[Decision, Depends(limit)]) -> int:
        return quota.remaining

    @app.get("/")
    async def root(left: Annotated[int, Depends(checked)]) -> int:
        return left

    client = TestClient(app)
    assert client.get("/").json() == 0
    assert client.get("/").status_code == 429


def test_a_limit_met_twice_in_one_request_is_charged_once(store: MemoryStore) -> None:
    limit = RateLimit("2/hour", store=store)
    app = FastAPI(dependencies=[Depends(limit)])

    @app.get("/", dependencies=[Depends(limit)])
    async def root(quota: Annotated[Decision, Depends(limit)]) -> int:
        return quota.remaining

    client = TestClient(app)
    assert [client.get("/").json() for _ in range(2)] == [1, 0]
    assert client.get("/").status_code == 429


def test_an_override_takes_the_limit_off_in_a_users_own_tests(store: MemoryStore) -> None:
    limit = RateLimit("1/hour", store=store)
    app = FastAPI(dependencies=[Depends(limit)])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    assert statuses(client, "/", "/") == [200, 429]
    app.dependency_overrides[limit] = lambda: None
    assert statuses(client, "/", "/") == [200, 200]


def test_each_key_has_its_own_bucket(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", key=by_header("x-user"), store=store))])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    users = ["ada", "bob", "ada", "bob"]
    assert [client.get("/", headers=as_user(user)).status_code for user in users] == [200, 200, 429, 429]


def test_apps_in_one_process_do_not_share() -> None:
    limit = RateLimit("1/hour")
    apps = [FastAPI(dependencies=[Depends(limit)]) for _ in range(2)]

    async def root() -> None: ...

    for app in apps:
        app.get("/")(root)
    clients = [TestClient(app) for app in apps]
    assert [statuses(client, "/", "/") for client in clients] == [[200, 429], [200, 429]]


def test_routes_of_one_app_share_the_store_that_it_keeps() -> None:
    app = FastAPI()
    whole = TokenBucket("2/hour", scope="global")

    @app.get("/a", dependencies=[Depends(RateLimit(whole))])
    async def a() -> None: ...

    @app.get("/b", dependencies=[Depends(RateLimit(whole))])
    async def b() -> None: ...

    assert statuses(TestClient(app), "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_a_store_of_its_own_is_used_before_the_apps(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    assert statuses(TestClient(app), "/") == [200]
    assert len(store) == 1
    assert app.state._state == {}


def test_the_buckets_of_a_route_are_opened_once_however_many_come(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    former = store.open

    def counting(name: str, policies: Any) -> Any:
        opened.append(name)
        return former(name, policies)

    monkeypatch.setattr(store, "open", counting)
    app = FastAPI()
    app.add_api_route("/items/{item}", lambda: None, dependencies=[Depends(RateLimit("5/hour", store=store))])
    assert statuses(TestClient(app), *(f"/items/{n}" for n in range(6))) == [200] * 5 + [429]
    assert opened == ["/items/{item}"]


def test_a_path_that_no_route_has_is_not_charged(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    assert statuses(client, "/nowhere") == [404]
    assert client.post("/").status_code == 405
    assert statuses(client, "/", "/") == [200, 429]
