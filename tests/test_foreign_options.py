"""Mistakes of those who know another library: an error where they are made, with the spelling here."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit, rate_limit
from asgi_ratelimit.interactions import InteractionLimit
from asgi_ratelimit.sync import SyncLimiter
from tests.support.asgi import hello
from tests.support.signing import PUBLIC_KEY


def middleware(**options: Any) -> object:
    return RateLimitMiddleware(hello, **options)


CLASSES: list[Any] = [middleware, RateLimit, Limiter, SyncLimiter]


@pytest.mark.parametrize("make", CLASSES)
@pytest.mark.parametrize(
    ("options", "spelling"),
    [
        ({"limit_value": "5/minute"}, 'Write limit="5/minute".'),
        ({"limit_value": "5/second;1 per day"}, 'Write limit=["5/second", "1/day"].'),
        ({"limit_value": "5 requests per minute", "key_func": len}, 'Write limit="5/minute".'),
        ({"limit_value": len}, "Write limit=..."),
        ({"key_func": len}, "key=by_user_or_ip"),
        ({"times": 2, "seconds": 5}, 'Write limit="2/5s".'),
        ({"times": 2, "minutes": 1}, 'Write limit="2/1min".'),
        ({"times": 100, "hours": 24, "identifier": len}, 'Write limit="100/24h".'),
        ({"seconds": 5}, 'Write limit="1/5s".'),
        ({"times": 5}, 'Write limit="5/10s".'),
        ({"default_limits": ["200/day"]}, 'limit=["1000/hour", "100/minute"]'),
        ({"storage_uri": "redis://:secret@x"}, "store=RedisStore("),
        ({"strategy": "moving-window"}, "SlidingWindow("),
        ({"default_limits": ["200/day"]}, "default=True"),
        ({"override_defaults": False}, "default=True"),
        ({"exempt_when": len}, "exempt="),
        ({"error_message": "slow down"}, "on_limited="),
        ({"callback": len}, "on_limited="),
        ({"per_method": True}, "methods="),
        ({"scope": "reports"}, 'name="reports"'),
        ({"enabled": False}, "unlimited()"),
        ({"limiter": object()}, 'limit="2/5s"'),
        ({"blocking": True}, "max_wait="),
        ({"limits": ["5/s"]}, 'Write limit=["1000/hour", "100/minute"].'),
        ({"burst": 10}, 'limit="50/s burst 100"'),
        ({"trusted_proxies": ["10.0.0.0/8"]}, "Write key=ClientIP(trusted_proxies="),
        ({"scope": "reports"}, 'Write name="reports"'),
        ({"per_method": True}, 'methods=("POST",)'),
    ],
)
def test_an_option_of_another_library_is_answered_with_the_spelling_here(
    make: Any, options: dict[str, Any], spelling: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(spelling)) as raised:
        make(**options)
    assert next(iter(options)) in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("make", CLASSES)
def test_an_option_of_no_library_is_python_s_own_error(make: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        make(limit="5/s", colour="red")


@pytest.mark.parametrize("kind", [RateLimitMiddleware, RateLimit, Limiter, SyncLimiter])
def test_the_signature_shows_the_options(kind: Any) -> None:
    assert "limit" in inspect.signature(kind).parameters
    assert "args" not in inspect.signature(kind).parameters


def test_a_warning_names_the_line_of_the_user() -> None:
    app = FastAPI()

    @app.get("/")
    def endpoint() -> str:
        Limiter("5/s")
        RateLimit("5/s")
        return "hello"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TestClient(app).get("/")
    files = [Path(one.filename).name for one in caught if "ARL106" in str(one.message)]
    assert files
    assert set(files) == {"test_foreign_options.py"}


# The store


def interaction_limit(**options: Any) -> object:
    options.pop("limit")
    return InteractionLimit(PUBLIC_KEY, **options)


STORES: list[tuple[Any, str]] = [
    ("redis://x", 'write store=RedisStore("redis://...")'),
    ("rediss+sentinel://user:secret@x/y", 'write store=RedisStore("rediss+sentinel://...")'),
    ("localhost:6379", 'write store=RedisStore("redis://...")'),
    (redis.asyncio.Redis.from_url("redis://:secret@x"), "write store=RedisStore(client)"),
    (redis.Redis.from_url("redis://:secret@x"), "write store=RedisStore(client)"),
    (MemoryStore, "write store=MemoryStore(...), with parentheses"),
    ({"url": "redis://:secret@x"}, "store must be a store such as MemoryStore(), not a dict"),
    (Path("redis"), "not a PosixPath"),
]


@pytest.mark.parametrize("make", [*CLASSES, interaction_limit])
@pytest.mark.parametrize(("store", "message"), STORES, ids=[message for _, message in STORES])
def test_what_is_no_store_is_answered_with_what_to_write(make: Any, store: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        make(limit="5/s", store=store)
    assert "secret" not in str(raised.value)


# Dependencies and middleware in the wrong place


@pytest.mark.parametrize(
    "default",
    [RateLimit("1/s"), rate_limit, InteractionLimit(PUBLIC_KEY)],
    ids=["RateLimit", "rate_limit", "InteractionLimit"],
)
def test_a_dependency_as_a_plain_default_does_not_go_unnoticed(default: Any) -> None:
    def endpoint(quota=default) -> str:  # type: ignore[no-untyped-def]
        return "hello"

    def serve() -> None:
        app = FastAPI()
        app.get("/")(endpoint)
        TestClient(app).get("/")

    with pytest.raises(TypeError, match=r"is never called, so it limits nothing: write Annotated\[\.\.\., Depends\("):
        serve()


@pytest.mark.parametrize(
    "dependency", [RateLimit("1/s"), InteractionLimit(PUBLIC_KEY)], ids=["RateLimit", "Interaction"]
)
def test_a_dependency_in_a_list_without_depends_is_an_error_that_says_what_to_write(dependency: Any) -> None:
    name = type(dependency).__name__
    with pytest.raises(AttributeError, match=re.escape(f"write dependencies=[Depends({name}(...))]")):
        FastAPI().get("/", dependencies=[dependency])(len)
    assert not hasattr(dependency, "colour")


@pytest.mark.parametrize("decorator", ["limit", "shared_limit"])
def test_a_decorator_of_another_library_is_an_error_that_says_what_to_write(decorator: str) -> None:
    with pytest.raises(AttributeError, match=re.escape('write @app.get("/", dependencies=[Depends(RateLimit(...))])')):
        getattr(RateLimit("5/minute"), decorator)


def test_a_dependency_in_its_place_is_copied_by_nobody() -> None:
    limit = RateLimit("1/day", name="once")
    app = FastAPI(dependencies=[Depends(limit)])

    @app.get("/", dependencies=[Depends(limit)])
    def endpoint(request: Request, quota: object = Depends(limit)) -> str:
        return "hello"

    client = TestClient(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_an_instance_passed_to_add_middleware_is_an_error_that_says_what_to_write(framework: Any) -> None:
    app = framework()
    app.add_middleware(RateLimitMiddleware(app, limit="5/s"))
    with pytest.raises(TypeError, match=re.escape("write add_middleware(RateLimitMiddleware, limit=...)")):
        TestClient(app).get("/")
