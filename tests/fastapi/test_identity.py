"""Who is asking: the key as a function, sync or async, or as another dependency; and whose bucket a limit is."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Security
from fastapi.security import APIKeyHeader
from fastapi.testclient import TestClient
from starlette.authentication import SimpleUser, UnauthenticatedUser
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitWarning, TokenBucket, by_header
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import as_user, statuses


def app_with(limit: RateLimit, *paths: str) -> TestClient:
    app = FastAPI(dependencies=[Depends(limit)])

    async def endpoint() -> None: ...

    for path in paths or ("/",):
        app.get(path)(endpoint)
    return TestClient(app)


def sequence(client: TestClient, *users: str, url: str = "/") -> list[int]:
    return [client.get(url, headers=as_user(user)).status_code for user in users]


def sync_key(conn: HTTPConnection) -> str:
    return conn.headers["x-user"]


async def async_key(conn: HTTPConnection) -> str:
    return conn.headers["x-user"]


@pytest.mark.parametrize("key", [sync_key, async_key, by_header("x-user")])
def test_a_function_of_the_connection_tells_users_apart(store: MemoryStore, key: Any) -> None:
    client = app_with(RateLimit("1/hour", key=key, store=store))
    assert sequence(client, "ada", "bob", "ada", "bob") == [200, 200, 429, 429]


def test_without_a_key_everybody_is_told_apart_by_address(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    clients = [TestClient(app, client=(host, 1)) for host in ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1")]
    assert [client.get("/").status_code for client in clients] == [200, 200, 429]


@dataclass
class User:
    id: object


@dataclass
class Identified:
    identity: str
    id: int = 0


USERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": {"ada": 1, "bob": 2}.__getitem__,
    "uuid": {"ada": UUID(int=1), "bob": UUID(int=2)}.__getitem__,
    "object with a str": User,
    "object with an int": lambda name: User({"ada": 1, "bob": 2}[name]),
    "object whose id is 0": lambda name: User({"ada": 0, "bob": 1}[name]),
    "object with a UUID": lambda name: User({"ada": UUID(int=1), "bob": UUID(int=2)}[name]),
    "object with an identity": Identified,
    "dict with an id": lambda name: {"id": {"ada": 1, "bob": 2}[name], "name": "same"},
    "claims of a token": lambda name: {"sub": name, "iss": "same"},
}


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("is_async", [False, True])
def test_another_dependency_tells_users_apart(store: MemoryStore, kind: str, is_async: bool) -> None:
    def current_user(x_user: Annotated[str, Header()]) -> object:
        return USERS[kind](x_user)

    async def awaited_user(x_user: Annotated[str, Header()]) -> object:
        return USERS[kind](x_user)

    client = app_with(RateLimit("1/hour", key=Depends(awaited_user if is_async else current_user), store=store))
    assert sequence(client, "ada", "bob", "ada", "bob") == [200, 200, 429, 429]


def test_a_security_dependency_may_be_the_key(store: MemoryStore) -> None:
    client = app_with(RateLimit("1/hour", key=Security(APIKeyHeader(name="x-user")), store=store))
    assert sequence(client, "ada", "bob", "ada") == [200, 200, 429]


def test_the_key_dependency_runs_once_however_many_ask_for_it(store: MemoryStore) -> None:
    calls: list[str] = []

    def current_user(x_user: Annotated[str, Header()]) -> str:
        calls.append(x_user)
        return x_user

    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimit("5/hour", key=Depends(current_user), store=store))])
    async def root(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    assert TestClient(app).get("/", headers=as_user("ada")).json() == "ada"
    assert calls == ["ada"]


def test_a_key_dependency_that_refuses_keeps_its_answer_and_nothing_is_charged(store: MemoryStore) -> None:
    def current_user(x_user: Annotated[str | None, Header()] = None) -> str:
        if x_user is None:
            raise HTTPException(401, "who are you?", headers={"www-authenticate": "Bearer"})
        return x_user

    client = app_with(RateLimit("1/hour", key=Depends(current_user), store=store))
    for _ in range(3):
        answer = client.get("/")
        assert (answer.status_code, answer.json()) == (401, {"detail": "who are you?"})
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len(store) == 0
    assert sequence(client, "ada", "ada") == [200, 429]
    assert client.get("/").status_code == 401


def test_a_key_function_that_refuses_keeps_its_answer_and_nothing_is_charged(store: MemoryStore) -> None:
    def key(conn: HTTPConnection) -> str:
        raise HTTPException(401)

    client = app_with(RateLimit("1/hour", key=key, store=store))
    assert statuses(client, "/", "/") == [401, 401]
    assert len(store) == 0


@pytest.mark.parametrize(("returned", "code"), [(None, "ARL103"), (object(), "ARL201"), ({"name": "ada"}, "ARL201")])
@pytest.mark.parametrize("is_dependency", [False, True])
def test_a_key_that_tells_nobody_apart_is_one_bucket_with_a_warning(
    store: MemoryStore, returned: object, code: str, is_dependency: bool
) -> None:
    def found(conn: HTTPConnection) -> Any:
        return returned

    client = app_with(RateLimit("2/hour", key=Depends(found) if is_dependency else found, store=store))
    with pytest.warns(RateLimitWarning, match=code):
        assert sequence(client, "ada", "bob", "eve") == [200, 200, 429]


# Visitors


VISITORS: dict[str, object] = {
    "None": None,
    "an empty text": "",
    "an anonymous user": UnauthenticatedUser(),
    "an object that is not authenticated": SimpleNamespace(id=1, is_authenticated=False),
}


def app_of_members_and_visitors(store: MemoryStore, visitor: object) -> FastAPI:
    def optional_user(x_user: Annotated[str | None, Header()] = None) -> object:
        return visitor if x_user is None else x_user

    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", key=Depends(optional_user), store=store))])
    app.add_api_route("/", lambda: None)
    return app


@pytest.mark.parametrize("kind", VISITORS)
def test_a_visitor_for_whom_the_dependency_has_no_user_is_known_by_address(store: MemoryStore, kind: str) -> None:
    app = app_of_members_and_visitors(store, VISITORS[kind])
    with pytest.warns(RateLimitWarning, match=r"ARL103.*key=Depends\(\.\.\.\) returned no user"):
        answers = [TestClient(app, client=(f"192.0.2.{n}", 1)).get("/").status_code for n in (1, 2, 1, 2)]
    assert answers == [200, 200, 429, 429]


@pytest.mark.filterwarnings("ignore:ARL103")
@pytest.mark.parametrize("name", ["192.0.2.1", "visitor:192.0.2.1", "key:visitor:192.0.2.1", "key:192.0.2.1"])
def test_no_user_has_the_bucket_of_a_visitor_or_of_another_user(store: MemoryStore, name: str) -> None:
    client = TestClient(app_of_members_and_visitors(store, None), client=("192.0.2.1", 1))
    others = [
        client.get("/", headers=headers).status_code for headers in ({}, as_user("key:a"), as_user(f"key:{name}"))
    ]
    assert others == [200, 200, 200]
    assert sequence(client, name, name) == [200, 429]


@pytest.mark.filterwarnings("ignore:ARL103")
def test_visitors_without_an_address_share_one_bucket(store: MemoryStore) -> None:
    client = TestClient(app_of_members_and_visitors(store, None), client=None)  # type: ignore[arg-type]
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "user", [SimpleNamespace(id=7), {"sub": "7"}, SimpleUser("7"), "7"], ids=["object", "claims", "starlette", "text"]
)
def test_a_user_of_any_kind_in_the_scope_has_a_bucket(store: MemoryStore, user: object) -> None:
    def app_of(user: object) -> ASGIApp:
        app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])
        app.add_api_route("/", lambda: None)

        async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "user": user}, receive, send)

        return authenticated

    clients = [TestClient(app_of(user)), TestClient(app_of(SimpleNamespace(id=8))), TestClient(app_of(user))]
    assert [client.get("/").status_code for client in clients] == [200, 200, 429]


def slowapis_key(request: Request) -> str:
    """What the apps of slowapi have: the method and the form of a Request are not those of a connection."""
    return f"{request.method}:{request.headers['x-user']}"


def test_a_function_of_a_request_is_a_key(store: MemoryStore) -> None:
    client = app_with(RateLimit("1/hour", key=slowapis_key, store=store))
    assert sequence(client, "ada", "bob", "ada") == [200, 200, 429]


def test_each_user_has_a_bucket_on_each_route(store: MemoryStore) -> None:
    client = app_with(RateLimit("1/hour", key=sync_key, store=store), "/a", "/b")
    assert sequence(client, "ada", "bob", url="/a") == [200, 200]
    assert sequence(client, "ada", "bob", url="/b") == [200, 200]
    assert sequence(client, "ada", "bob", url="/a") == [429, 429]


def test_a_global_limit_is_one_for_the_whole_app(store: MemoryStore) -> None:
    limit = RateLimit(TokenBucket("3/hour", scope="global"), key=sync_key, store=store)
    client = app_with(limit, "/a", "/b", "/c/{x}")
    assert sequence(client, "ada", "bob", url="/a") == [200, 200]
    assert sequence(client, "eve", url="/c/1") == [200]
    assert [sequence(client, "new", url=url) for url in ("/a", "/b", "/c/2")] == [[429]] * 3


def test_equal_global_limits_of_several_objects_are_one(store: MemoryStore) -> None:
    app = FastAPI()
    for path, own in (("/a", "5/hour"), ("/b", "9/hour")):
        limit = RateLimit([own, TokenBucket("2/hour", scope="global")], store=store)
        app.add_api_route(path, lambda: None, dependencies=[Depends(limit)])
    assert statuses(TestClient(app), "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_a_user_limit_and_a_global_one_are_decided_all_or_nothing(store: MemoryStore) -> None:
    limit = RateLimit(["2/hour", TokenBucket("3/hour", scope="global")], key=sync_key, store=store)
    client = app_with(limit)
    assert sequence(client, *["ada"] * 5) == [200, 200, 429, 429, 429]
    answer = client.get("/", headers=as_user("bob"))
    assert answer.status_code == 200  # what refused Ada has charged the app's bucket nothing
    refused = client.get("/", headers=as_user("bob"))
    assert (refused.status_code, refused.json()["global"]) == (429, True)


def test_a_shared_limit_is_one_per_resource_whoever_asks(store: MemoryStore) -> None:
    limit = RateLimit(TokenBucket("2/hour", scope="shared"), key=sync_key, per=("room",), store=store)
    client = app_with(limit, "/rooms/{room}", "/halls/{room}")
    assert sequence(client, "ada", "bob", "eve", url="/rooms/1") == [200, 200, 429]
    assert sequence(client, "ada", url="/rooms/2") == [200]
    assert sequence(client, "ada", url="/halls/1") == [200]


def test_a_shared_limit_without_resources_is_one_per_route(store: MemoryStore) -> None:
    limit = RateLimit(TokenBucket("2/hour", scope="shared"), key=sync_key, store=store)
    client = app_with(limit, "/rooms/{room}")
    assert [sequence(client, user, url=f"/rooms/{user}") for user in ("ada", "bob", "eve")] == [[200], [200], [429]]
