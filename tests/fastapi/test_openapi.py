"""The OpenAPI document: nothing of a limit leaks into it, and its 429 is there once it is asked for."""

import copy
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Security, WebSocket
from fastapi.security import OAuth2PasswordBearer
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.fastapi import RateLimit, document_limits, exempt
from tests.fastapi.traffic import DISCORD_ON_REFUSAL

UNITS = ("tokens", "requests")


def document(app: FastAPI) -> Any:
    return app.openapi()


def limited_operations(app: FastAPI) -> list[str]:
    """Which operations of an app's document have a 429."""
    return sorted(
        f"{method} {path}"
        for path, operations in document(app)["paths"].items()
        for method, operation in operations.items()
        if "429" in operation["responses"]
    )


def test_a_limit_adds_nothing_to_the_document_by_itself(store: MemoryStore) -> None:
    def app_with(dependencies: list[Any]) -> FastAPI:
        app = FastAPI(dependencies=dependencies)

        @app.get("/{channel_id}")
        async def read(channel_id: int, q: str = "") -> list[int]:
            return []

        return app

    limits = [
        RateLimit(store=store),
        RateLimit("1/s", key=lambda conn: "x", cost=lambda conn: 1, per=("channel_id",), name="x", store=store),
    ]
    assert document(app_with([Depends(limit) for limit in limits])) == document(app_with([]))


def test_a_decision_in_an_endpoint_adds_nothing_to_the_document(store: MemoryStore) -> None:
    app, limit = FastAPI(), RateLimit(store=store)

    @app.post("/")
    async def root(quota: Annotated[Decision, Depends(limit)]) -> None: ...

    operation = document(app)["paths"]["/"]["post"]
    assert set(operation) == {"summary", "operationId", "responses"}
    assert set(operation["responses"]) == {"200"}
    assert "components" not in document(app)


def test_the_parameters_of_a_key_dependency_do_show() -> None:
    def current_user(x_token: Annotated[str, Header()], tenant: str) -> str:
        return x_token

    app = FastAPI(dependencies=[Depends(RateLimit(key=Depends(current_user)))])
    app.get("/")(lambda: None)
    parameters = document(app)["paths"]["/"]["get"]["parameters"]
    assert {(parameter["in"], parameter["name"]) for parameter in parameters} == {
        ("header", "x-token"),
        ("query", "tenant"),
    }


def test_the_security_of_a_key_dependency_does_show() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit(key=Security(OAuth2PasswordBearer("token"), scopes=["read"])))])
    app.get("/")(lambda: None)
    assert document(app)["paths"]["/"]["get"]["security"] == [{"OAuth2PasswordBearer": ["read"]}]


def test_no_parameter_called_request_is_needed_nor_is_its_name_taken(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root(request: str, conn: str, response: str, key: str) -> list[str]:
        return [request, conn, response, key]

    client = TestClient(app)
    words = {"request": "a", "conn": "b", "response": "c", "key": "d"}
    assert client.get("/", params=words).json() == ["a", "b", "c", "d"]
    assert client.get("/", params={**words, "key": "other"}).status_code == 429


def everything(limit: RateLimit) -> FastAPI:
    """An app with limits in every place where one may stand, and a free twin of each."""
    app, router, nested = FastAPI(), APIRouter(prefix="/router"), APIRouter(prefix="/nested")

    def within(quota: Annotated[Any, Depends(limit)]) -> None: ...

    def deeper(checked: Annotated[None, Depends(within)]) -> None: ...

    def free() -> None: ...

    async def endpoint() -> None: ...

    app.get("/route", dependencies=[Depends(limit)])(endpoint)
    app.post("/route")(endpoint)
    app.put("/many/{item:path}", dependencies=[Depends(limit)])(endpoint)
    app.get("/deep", dependencies=[Depends(deeper)])(endpoint)
    app.get("/free", dependencies=[Depends(free)])(endpoint)
    app.get("/hidden", dependencies=[Depends(limit)], include_in_schema=False)(endpoint)
    router.get("/limited/{item}", dependencies=[Depends(limit)])(endpoint)
    router.get("/free")(endpoint)
    nested.get("/x")(endpoint)
    router.include_router(nested, dependencies=[Depends(limit)])
    app.include_router(router, prefix="/v1")

    @app.websocket("/ws", dependencies=[Depends(limit)])
    async def ws(socket: WebSocket) -> None: ...

    return app


LIMITED = [
    "get /deep",
    "get /route",
    "get /v1/router/limited/{item}",
    "get /v1/router/nested/x",
    "put /many/{item}",
]


def test_document_limits_documents_the_limited_routes_and_no_others() -> None:
    app = everything(RateLimit())
    before = copy.deepcopy(document(app))
    app.openapi_schema = None
    assert limited_operations(app) == []
    document_limits(app)
    assert limited_operations(app) == LIMITED
    after = copy.deepcopy(document(app))
    for operations in after["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("429", None)
    assert after == before


@pytest.mark.parametrize(
    ("options", "limited"),
    [
        ({"limit": lambda conn: None, "methods": ["POST"]}, ["get /own", "post /items/{item}"]),
        ({}, ["get /free", "get /health", "get /items/{item}", "get /own", "post /items/{item}"]),
        ({"limit": None}, ["get /own"]),
        (
            {"limit": lambda conn: None},
            ["get /free", "get /health", "get /items/{item}", "get /own", "post /items/{item}"],
        ),
        ({"exempt": ("/health", "/items/*")}, ["get /free", "get /own"]),
        ({"only": ("/items/*",)}, ["get /items/{item}", "get /own", "post /items/{item}"]),
        ({"methods": ("POST",)}, ["get /own", "post /items/{item}"]),
        ({"default": True}, ["get /health", "get /items/{item}", "get /own", "post /items/{item}"]),
        ({"exempt": lambda conn: False, "methods": ["POST"]}, ["get /own", "post /items/{item}"]),
    ],
)
def test_what_the_middleware_counts_is_documented(options: Any, limited: list[str]) -> None:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, **{"limit": "5/s", **options})
    app.get("/own", dependencies=[Depends(RateLimit())])(lambda: None)
    app.get("/free", dependencies=[Depends(exempt)])(lambda: None)
    app.get("/health")(lambda: None)
    app.get("/items/{item}")(lambda item: None)
    app.post("/items/{item}")(lambda item: None)
    document_limits(app)
    assert limited_operations(app) == limited


@pytest.mark.parametrize(
    ("options", "limited"),
    [
        ({"methods": ("POST",)}, ["post /items/{item}"]),
        ({"only": ("/items/*",)}, ["get /items/{item}", "post /items/{item}"]),
        ({"exempt": ("/items/*",)}, ["get /health"]),
        ({"exempt": lambda conn: True}, ["get /health", "get /items/{item}", "post /items/{item}"]),
    ],
)
def test_what_an_app_wide_limit_counts_is_documented(options: Any, limited: list[str]) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit(**options))])
    app.get("/health")(lambda: None)
    app.get("/items/{item}")(lambda item: None)
    app.post("/items/{item}")(lambda item: None)
    document_limits(app)
    assert limited_operations(app) == limited


def test_an_app_wide_limit_is_documented_on_every_route() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit())])
    router = APIRouter()
    app.get("/a")(lambda: None)
    router.get("/b")(lambda: None)
    app.include_router(router)
    document_limits(app)
    assert limited_operations(app) == ["get /a", "get /b"]


def test_the_429_is_documented_with_its_headers_and_its_body() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit())])
    app.get("/")(lambda: None)
    document_limits(app)
    answer = TestClient(app).get("/openapi.json").json()["paths"]["/"]["get"]["responses"]["429"]
    assert answer["description"]
    assert {name.lower() for name in answer["headers"]} == DISCORD_ON_REFUSAL - {"via"}
    assert all(header["schema"]["type"] and header["description"] for header in answer["headers"].values())
    schema = answer["content"]["application/json"]["schema"]
    assert {name: kind["type"] for name, kind in schema["properties"].items()} == {
        "message": "string",
        "retry_after": "number",
        "global": "boolean",
    }
    assert set(schema["required"]) == set(schema["properties"]) == set(answer["content"]["application/json"]["example"])


def test_the_429_names_the_unit_of_the_limit() -> None:
    tokens = RateLimit([TokenBucket("9/s", unit="tokens"), TokenBucket("99/hour", unit="tokens")])
    mixed = RateLimit(["9/s", TokenBucket("99/hour", unit="tokens")])
    app = FastAPI()
    app.add_api_route("/tokens", lambda: None, dependencies=[Depends(tokens)])
    app.add_api_route("/mixed", lambda: None, dependencies=[Depends(mixed)])
    document_limits(app)
    paths = document(app)["paths"]
    said = [paths[path]["get"]["responses"]["429"]["headers"]["X-RateLimit-Limit"] for path in ("/tokens", "/mixed")]
    assert [one["description"] for one in said] == [f"How many {unit} the full bucket holds" for unit in UNITS]
    assert tokens.responses[429] == paths["/tokens"]["get"]["responses"]["429"]


def test_a_429_really_has_what_is_documented(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))])
    app.get("/")(lambda: None)
    document_limits(app)
    documented = document(app)["paths"]["/"]["get"]["responses"]["429"]
    client = TestClient(app)
    client.get("/")
    refused = client.get("/")
    assert all(name in refused.headers for name in documented["headers"])
    assert refused.json().keys() == documented["content"]["application/json"]["schema"]["properties"].keys()


def test_documenting_twice_is_documenting_once() -> None:
    once, twice = everything(RateLimit()), everything(RateLimit())
    document_limits(once)
    document_limits(twice)
    document_limits(twice)
    assert document(once) == document(twice)


def test_routes_added_after_it_are_documented_too() -> None:
    app = FastAPI()
    document_limits(app)
    app.get("/late", dependencies=[Depends(RateLimit())])(lambda: None)
    assert limited_operations(app) == ["get /late"]


def test_a_document_that_was_made_before_is_extended() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit())])
    app.get("/")(lambda: None)
    assert limited_operations(app) == []
    document_limits(app)
    assert limited_operations(app) == ["get /"]


def test_an_app_that_makes_its_own_document_keeps_what_it_made() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit())])
    app.get("/")(lambda: None)
    former = app.openapi

    def customised() -> dict[str, Any]:
        schema = former()
        schema["info"]["x-logo"] = "logo.png"
        return schema

    app.openapi = customised  # type: ignore[method-assign]
    document_limits(app)
    assert document(app)["info"]["x-logo"] == "logo.png"
    assert limited_operations(app) == ["get /"]


def test_a_document_may_lack_what_the_app_has() -> None:
    app = everything(RateLimit())
    app.openapi = lambda: {"openapi": "3.1.0", "paths": {"/route": {"get": {"responses": {}}, "summary": "x"}}}  # type: ignore[method-assign]
    document_limits(app)
    assert list(document(app)["paths"]["/route"]["get"]["responses"]) == ["429"]
    app.openapi = lambda: {"openapi": "3.1.0"}  # type: ignore[method-assign]
    document_limits(app)
    assert document(app) == {"openapi": "3.1.0"}


def test_the_document_is_made_once() -> None:
    app = everything(RateLimit())
    document_limits(app)
    assert document(app) is document(app)
    assert app.openapi_schema is document(app)


def test_a_users_own_429_is_kept() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit())])
    app.get("/", responses={429: {"description": "Slow down"}})(lambda: None)
    document_limits(app)
    assert document(app)["paths"]["/"]["get"]["responses"]["429"]["description"] == "Slow down"


def test_a_change_to_one_apps_document_changes_no_others() -> None:
    def documented() -> FastAPI:
        app = FastAPI(dependencies=[Depends(RateLimit())])
        app.get("/a")(lambda: None)
        app.get("/b")(lambda: None)
        document_limits(app)
        return app

    one, other = documented(), documented()
    before = copy.deepcopy(document(other))
    answer = document(one)["paths"]["/a"]["get"]["responses"]["429"]
    answer["description"] = "Slow down"
    answer["headers"].clear()
    assert document(other) == before
    assert document(one)["paths"]["/b"]["get"]["responses"]["429"]["headers"]


def test_a_mounted_app_documents_itself() -> None:
    app, sub = FastAPI(), FastAPI(dependencies=[Depends(RateLimit())])
    sub.get("/x")(lambda: None)
    app.mount("/sub", sub)
    document_limits(app)
    document_limits(sub)
    client = TestClient(app)
    assert client.get("/openapi.json").json()["paths"] == {}
    assert "429" in client.get("/sub/openapi.json").json()["paths"]["/x"]["get"]["responses"]


@pytest.mark.parametrize("on", ["route", "router", "app"])
def test_the_responses_of_a_limit_document_one_route_a_router_or_an_app(on: str) -> None:
    limit = RateLimit(key=lambda conn: str(HTTPConnection(conn.scope).client))
    options = {"responses": limit.responses, "dependencies": [Depends(limit)]}
    app = FastAPI(**options) if on == "app" else FastAPI()  # type: ignore[arg-type]
    router = APIRouter(**options) if on == "router" else APIRouter()  # type: ignore[arg-type]
    router.add_api_route("/", lambda: None, **(options if on == "route" else {}))  # type: ignore[arg-type]
    app.include_router(router)
    whole = FastAPI(dependencies=[Depends(limit)])
    whole.get("/")(lambda: None)
    document_limits(whole)
    described = document(app)["paths"]["/"]["get"]["responses"]["429"]
    assert described == document(whole)["paths"]["/"]["get"]["responses"]["429"]
