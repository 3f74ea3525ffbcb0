"""Misconfiguration is loud: each kind is said once, with its stable code, and never breaks a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, by_header, by_ip, by_user
from asgi_ratelimit.warnings import CODES
from tests.inbound.conftest import Said
from tests.support.asgi import ask, hello, statuses

pytestmark = pytest.mark.anyio

PROXIED = [("x-forwarded-for", "198.51.100.1")]


def door(store: MemoryStore, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(options.pop("app", hello), **{"limit": "1/60s", "store": store, **options})


async def two_limits_of_one_name(store: MemoryStore) -> None:
    for limit in ("1/60s", "2/60s"):
        await ask(door(store, limit=limit))


async def the_same_bucket_twice(store: MemoryStore) -> None:
    app = door(store, app=door(store, limit="9/60s"), limit="9/60s")
    assert (await ask(app))["x-ratelimit-remaining"] == "7"
    await ask(app)


async def nobody(store: MemoryStore) -> None:
    await statuses(door(store), 2, client=None)


async def a_forgotten_proxy(store: MemoryStore) -> None:
    await statuses(door(store), 2, headers=PROXIED)


async def a_server_that_believes_everyone(store: MemoryStore) -> None:
    invented = [("x-forwarded-for", "1.1.1.1, 198.51.100.1")]
    await statuses(door(store), 2, headers=invented, client=("1.1.1.1", 0))


async def a_limiter_for_each_request(store: MemoryStore) -> None:
    async def endpoint(request: Request) -> Response:
        await ask(door(store))
        return PlainTextResponse("hello")

    await ask(Starlette(routes=[Route("/", endpoint)]))


async def a_limiter_for_each_sync_request(store: MemoryStore) -> None:
    def endpoint(request: Request) -> Response:
        door(store)
        return PlainTextResponse("hello")

    await ask(Starlette(routes=[Route("/", endpoint)]))


class EverybodyIsAda(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        return AuthCredentials(), SimpleUser("ada")


async def a_user_who_comes_too_late(store: MemoryStore) -> None:
    await statuses(door(store, limit="9/s", app=AuthenticationMiddleware(hello, backend=EverybodyIsAda())), 2)


async def cors_inside(store: MemoryStore) -> None:
    await ask(door(store, app=BaseHTTPMiddleware(CORSMiddleware(hello), dispatch=pass_through)))


async def pass_through(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


async def a_key_that_is_none(store: MemoryStore) -> None:
    await statuses(door(store, key=lambda conn: 1.5), 2)


async def a_limit_that_is_none(store: MemoryStore) -> None:
    await statuses(door(store, limit=lambda conn: "garbage"), 2)


async def a_cost_that_is_none(store: MemoryStore) -> None:
    await statuses(door(store, cost=lambda conn: "garbage"), 2)


async def an_answer_that_is_none(store: MemoryStore) -> None:
    await statuses(door(store, on_limited=lambda conn, decision: None), 3)


async def a_settlement_that_is_none(store: MemoryStore) -> None:
    await statuses(door(store, settle=lambda served: -1), 2)


SCENES: dict[str, list[Callable[[MemoryStore], Awaitable[None]]]] = {
    "ARL101": [two_limits_of_one_name],
    "ARL102": [the_same_bucket_twice],
    "ARL103": [nobody],
    "ARL104": [a_forgotten_proxy],
    "ARL106": [a_limiter_for_each_request, a_limiter_for_each_sync_request],
    "ARL107": [a_user_who_comes_too_late],
    "ARL108": [cors_inside],
    "ARL112": [a_server_that_believes_everyone],
    "ARL201": [a_key_that_is_none],
    "ARL202": [a_limit_that_is_none],
    "ARL203": [a_cost_that_is_none],
    "ARL204": [an_answer_that_is_none],
    "ARL205": [a_settlement_that_is_none],
}


@pytest.mark.parametrize(
    ("code", "scene"),
    [(code, scene) for code, scenes in SCENES.items() for scene in scenes],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_each_misconfiguration_is_warned_about_once_with_its_code(
    store: MemoryStore, said: Said, code: str, scene: Callable[[MemoryStore], Awaitable[None]]
) -> None:
    await scene(store)
    assert said() == [code]


def test_every_code_is_tested() -> None:
    # Below; in the tests of routes, of the shared store, of the interactions endpoint and of Discord's clients.
    elsewhere = {"ARL105", "ARL109", "ARL110", "ARL111", "ARL113", "ARL117", "ARL206", "ARL301", "ARL401"}
    assert {*SCENES, *elsewhere} == set(CODES)


# ARL101, ARL102


async def test_two_doors_of_one_name_are_told_that_they_share_their_buckets(store: MemoryStore) -> None:
    door(store, limit="5/60s")
    with pytest.warns(UserWarning, match="share the buckets of the same kind and period, and no others") as caught:
        door(store, limit=["9/60s", "5/s"])
    assert "another name=" in str(caught[0].message)


async def test_doors_of_different_names_or_stores_are_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    door(store)
    door(store)
    door(store, limit="2/s", name="other")
    door(MemoryStore(), limit="3/s")
    assert said() == []


async def test_nested_doors_of_different_names_are_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    assert (await ask(door(store, app=door(store, name="inner")))).status == 200
    assert said() == []


async def test_nested_doors_with_different_keys_are_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    app = door(store, app=door(store, key=by_header("x-key")))
    assert (await ask(app, headers=[("x-key", "a")])).status == 200
    assert said() == []


# ARL105


async def start_up(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"

    async def unused(*message: Any) -> Any:
        raise AssertionError

    limited = door(store, app=app)
    for _ in range(2):
        await limited({"type": "lifespan"}, unused, unused)


async def test_several_workers_with_a_store_each_are_noticed_at_start(
    store: MemoryStore, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_ratelimit.inbound.diagnostics.several_workers", lambda: True)
    await start_up(store)
    assert said() == ["ARL105"]


# ARL106


async def test_a_mounted_app_that_is_built_at_its_first_request_is_no_misconfiguration(
    store: MemoryStore, said: Said
) -> None:
    inner = Starlette(
        routes=[Route("/", lambda request: PlainTextResponse("hello"))],
        middleware=[Middleware(RateLimitMiddleware, limit="5/s", store=store)],
    )
    outer = Starlette(
        routes=[Mount("/inner", inner)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_through)]
    )
    assert (await ask(outer, "/inner/"))["x-ratelimit-limit"] == "5"
    assert said() == []


# ARL103: a user without a name


class Account:
    """A user whose backend knows it by another name."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize("user", [Account(pk=7), {"user_id": 7}], ids=["object", "dict"])
async def test_a_user_without_a_name_is_noticed(store: MemoryStore, said: Said, user: object) -> None:
    await ask(door(store), user=user)
    assert said() == ["ARL103"]


@pytest.mark.parametrize(
    "user",
    [
        None,
        {},
        "ada",
        0,
        Account(id=7),
        Account(id=None),
        Account(is_authenticated=False),
        {"sub": None},
        SimpleUser(""),
    ],
    ids=["none", "empty", "text", "number", "id", "no id", "anonymous", "sub", "simple"],
)
async def test_a_user_with_a_name_or_a_visitor_is_no_misconfiguration(
    store: MemoryStore, said: Said, user: object
) -> None:
    await ask(door(store), user=user)
    assert said() == []


# ARL107, ARL108


async def test_a_user_who_comes_in_time_is_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    app = AuthenticationMiddleware(door(store), backend=EverybodyIsAda())
    assert await statuses(app, 1) == [200]
    assert await statuses(app, 1, client=("203.0.113.8", 1)) == [429]
    assert said() == []


async def test_a_late_user_matters_only_to_a_door_that_asks_for_one(store: MemoryStore, said: Said) -> None:
    late = AuthenticationMiddleware(hello, backend=EverybodyIsAda())
    await ask(door(store, app=late, key=by_ip))
    assert said() == []
    await ask(door(store, app=late, key=by_user, name="other"))
    assert sorted(said()) == ["ARL103", "ARL107"]


async def test_cors_outside_is_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    app = Starlette(
        routes=[Route("/", lambda request: PlainTextResponse("hello"))],
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["*"]),
            Middleware(RateLimitMiddleware, limit="1/60s", store=store),
        ],
    )
    await ask(app)
    refusal = await ask(app, headers=[("origin", "https://example.org")])
    assert (refusal.status, refusal["access-control-allow-origin"]) == (429, "*")
    assert said() == []


async def test_a_door_that_limits_nothing_may_stand_outside_cors(store: MemoryStore, said: Said) -> None:
    door(store, app=CORSMiddleware(hello), limit=None)
    assert said() == []


class Echo:
    """An app whose every attribute is itself, as a mock's are."""

    asked = 0

    @property
    def app(self) -> Echo:
        self.asked += 1
        if self.asked > 10_000:
            raise RecursionError("looked for the app inside the app without end")
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)


async def test_an_app_that_contains_itself_is_not_searched_without_end(store: MemoryStore) -> None:
    assert (await ask(door(store, app=Echo()))).status == 200


# In general


async def test_a_correct_app_is_warned_of_nothing(store: MemoryStore, said: Said) -> None:
    assert await statuses(door(store), 3) == [200, 429, 429]
    assert said() == []


async def test_each_door_speaks_for_itself(store: MemoryStore, said: Said) -> None:
    for name in ("a", "b"):
        await statuses(door(store, name=name), 2, client=None)
    assert said() == ["ARL103", "ARL103"]
