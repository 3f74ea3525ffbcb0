"""A user's own way of answering wins over Discord's 429, and learns everything about the refusal."""

from collections.abc import Callable
from typing import Any

import fastapi
import pytest
import starlette.exceptions
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from asgi_ratelimit import (
    Decision,
    MemoryStore,
    RateLimited,
    RateLimitError,
    RateLimitMiddleware,
    StoreUnavailable,
)
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.memory.buckets import MemoryBuckets
from tests.fastapi.traffic import DISCORD_ON_REFUSAL, limit_names, repeated


async def teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"teapot": True}, status_code=418)


def sync_teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"teapot": True}, status_code=418)


def refusing(store: MemoryStore, **options: Any) -> FastAPI:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", store=store))], **options)

    @app.get("/")
    async def root() -> None: ...

    return app


def second(app: FastAPI) -> Any:
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/").status_code == 200
    return client.get("/")


CAUGHT_AS = [RateLimited, RateLimitError, 429, starlette.exceptions.HTTPException, fastapi.HTTPException]


@pytest.mark.parametrize("answer", [teapot, sync_teapot])
@pytest.mark.parametrize("kind", CAUGHT_AS)
def test_whatever_a_user_catches_it_as_is_answered_by_the_user(store: MemoryStore, kind: Any, answer: Any) -> None:
    app = refusing(store)
    app.add_exception_handler(kind, answer)
    refused = second(app)
    assert (refused.status_code, refused.json()) == (418, {"teapot": True})


@pytest.mark.parametrize("kind", CAUGHT_AS)
def test_it_may_be_given_to_the_app_as_it_is_made(store: MemoryStore, kind: Any) -> None:
    assert second(refusing(store, exception_handlers={kind: teapot})).status_code == 418


@pytest.mark.parametrize("kind", CAUGHT_AS)
def test_a_users_answer_goes_on_winning(store: MemoryStore, kind: Any) -> None:
    app = refusing(store)
    app.add_exception_handler(kind, teapot)
    assert second(app).status_code == 418
    assert [TestClient(app).get("/").status_code for _ in range(3)] == [418] * 3


def test_the_nearest_of_several_wins(store: MemoryStore) -> None:
    async def other(request: Request, error: Exception) -> Response:
        return Response(status_code=400)

    app = refusing(store)
    app.add_exception_handler(starlette.exceptions.HTTPException, other)
    app.add_exception_handler(RateLimited, teapot)
    assert second(app).status_code == 418


@pytest.mark.parametrize("kind", [Exception, 500])
def test_one_for_every_error_does_not_swallow_the_429(store: MemoryStore, kind: Any) -> None:
    app = refusing(store)
    app.add_exception_handler(kind, teapot)
    refused = second(app)
    assert refused.status_code == 429
    assert refused.json()["retry_after"] == 3600.0


@pytest.mark.parametrize("kind", [404, ValueError, fastapi.exceptions.RequestValidationError])
def test_one_for_other_errors_changes_nothing(store: MemoryStore, kind: Any) -> None:
    app = refusing(store)
    app.add_exception_handler(kind, teapot)
    refused = second(app)
    assert refused.status_code == 429
    assert limit_names(refused.headers) == DISCORD_ON_REFUSAL


def test_the_frameworks_own_answer_given_by_name_is_not_the_users(store: MemoryStore) -> None:
    app = refusing(store, exception_handlers={starlette.exceptions.HTTPException: http_exception_handler})
    assert second(app).json() == {"message": "You are being rate limited.", "retry_after": 3600.0, "global": False}


def told(check: Callable[[Any], None]) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        check(error)
        return Response(status_code=429)

    return answer


def test_it_learns_the_decision_and_the_headers(store: MemoryStore) -> None:
    seen: list[Any] = []
    app = refusing(store)
    app.add_exception_handler(RateLimited, told(seen.append))
    assert second(app).status_code == 429
    error = seen[0]
    assert isinstance(error, RateLimited)
    assert isinstance(error, starlette.exceptions.HTTPException)
    assert isinstance(error.decision, Decision)
    assert not error.decision.allowed
    assert error.retry_after == error.decision.retry_after == 3600.0
    assert (error.status_code, error.detail) == (429, "You are being rate limited.")
    assert error.headers is not None
    assert limit_names(error.headers) == DISCORD_ON_REFUSAL
    assert error.headers["retry-after"] == "3600"
    assert "1/hour" in str(error)


def test_the_headers_it_learns_are_in_the_style_of_the_limit(store: MemoryStore) -> None:
    seen: list[Any] = []
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour", headers="ietf", store=store))])
    app.get("/")(lambda: None)
    app.add_exception_handler(RateLimited, told(seen.append))
    second(app)
    assert limit_names(seen[0].headers) == {"ratelimit", "ratelimit-policy", "retry-after", "via"}


@pytest.mark.parametrize("with_headers", [True, False])
def test_the_middleware_gives_a_users_answer_its_headers_once(store: MemoryStore, with_headers: bool) -> None:
    async def answer(request: Request, error: Any) -> Response:
        return JSONResponse({"own": True}, status_code=429, headers=error.headers if with_headers else None)

    app = refusing(store)
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    app.add_exception_handler(RateLimited, answer)
    refused = second(app)
    assert refused.json() == {"own": True}
    assert repeated(refused) == []
    assert limit_names(refused.headers) >= DISCORD_ON_REFUSAL - {"via"}


def test_a_users_answer_that_falls_back_on_the_frameworks_keeps_the_headers(store: MemoryStore) -> None:
    async def logging_first(request: Request, error: Any) -> Response:
        return await http_exception_handler(request, error)

    app = refusing(store)
    app.add_exception_handler(starlette.exceptions.HTTPException, logging_first)
    refused = second(app)
    assert (refused.status_code, refused.json()) == (429, {"detail": "You are being rate limited."})
    assert limit_names(refused.headers) >= DISCORD_ON_REFUSAL - {"via"}


def test_a_mounted_app_answers_in_its_own_way(store: MemoryStore) -> None:
    app, sub, plain = FastAPI(), refusing(store), refusing(store)
    app.add_exception_handler(RateLimited, teapot)
    sub.add_exception_handler(RateLimited, lambda request, error: Response(status_code=420))
    app.mount("/own", sub)
    app.mount("/plain", plain)
    client = TestClient(app)
    assert [client.get("/own/").status_code for _ in range(2)] == [200, 420]
    assert [client.get("/plain/").status_code for _ in range(2)] == [200, 429]


def test_an_endpoint_may_catch_the_refusal_of_a_limit_that_it_calls_itself(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("1/hour", store=store)

    @app.get("/")
    async def root(request: Request, response: Response) -> str:
        try:
            await limit(request, response)
        except RateLimited as refused:
            return f"later: {refused.retry_after:.0f}"
        return "now"

    client = TestClient(app)
    assert [client.get("/").json() for _ in range(2)] == ["now", "later: 3600"]


def test_a_store_that_cannot_answer_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(self: Any, key: str, cost: int, per: str) -> Decision:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(MemoryBuckets, "decide", unavailable)
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour"))])
    app.get("/")(lambda: None)
    answer = TestClient(app).get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"message": "The rate limiter cannot answer."}  # the middleware's
