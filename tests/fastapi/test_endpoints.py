"""Every kind of endpoint is limited and counted, whatever it returns, streams or raises; plain values carry headers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

from asgi_ratelimit import MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import DISCORD_ON_SUCCESS, limit_names, repeated


class Note(BaseModel):
    text: str


class Broken(Exception):
    """What an endpoint of these tests raises."""


def of_sync() -> dict[str, str]:
    return {"text": "hello"}


async def of_async() -> dict[str, str]:
    return {"text": "hello"}


async def of_a_model() -> Note:
    return Note(text="hello")


async def of_nothing() -> None: ...


def of_a_sync_generator() -> Iterator[Note]:
    for text in ("hello", "again"):
        yield Note(text=text)


async def of_an_async_generator() -> AsyncIterator[Note]:
    for text in ("hello", "again"):
        yield Note(text=text)


async def of_its_own_response_parameter(response: Response) -> dict[str, str]:
    response.headers["x-own"] = "yes"
    return {"text": "hello"}


def of_background_tasks(tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(of_sync)
    return {"text": "hello"}


PLAIN = [
    of_sync,
    of_async,
    of_a_model,
    of_nothing,
    of_a_sync_generator,
    of_an_async_generator,
    of_its_own_response_parameter,
    of_background_tasks,
]


async def of_a_response() -> JSONResponse:
    return JSONResponse({"text": "hello"}, status_code=201)


def of_a_sync_response() -> PlainTextResponse:
    return PlainTextResponse("hello")


async def of_a_redirect() -> RedirectResponse:
    return RedirectResponse("/elsewhere")


async def of_a_stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"chunk%d " % number

    return StreamingResponse(chunks(), media_type="text/plain")


async def of_an_http_exception() -> None:
    raise HTTPException(404, "no such note", headers={"x-own": "yes"})


def of_a_sync_http_exception() -> None:
    raise HTTPException(403)


RESPONSES = [of_a_response, of_a_sync_response, of_a_redirect, of_a_stream]
RAISING = [of_an_http_exception, of_a_sync_http_exception]


def app_of(endpoint: Any, store: MemoryStore, *, middleware: bool = False) -> TestClient:
    app = FastAPI(dependencies=[Depends(RateLimit("2/hour", store=None if middleware else store))])
    if middleware:
        app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    app.get("/")(endpoint)
    return TestClient(app, follow_redirects=False, raise_server_exceptions=False)


@pytest.mark.parametrize("endpoint", [*PLAIN, *RESPONSES, *RAISING])
def test_any_endpoint_is_limited_and_answers_as_it_would_without(store: MemoryStore, endpoint: Any) -> None:
    bare = FastAPI()
    bare.get("/")(endpoint)
    without = TestClient(bare, follow_redirects=False).get("/")
    client = app_of(endpoint, store)
    for answer in (client.get("/"), client.get("/")):
        assert (answer.status_code, answer.content) == (without.status_code, without.content)
        rest = {name: value for name, value in answer.headers.items() if name not in DISCORD_ON_SUCCESS}
        assert rest == dict(without.headers)
    assert client.get("/").status_code == 429


@pytest.mark.parametrize("endpoint", PLAIN)
def test_what_an_endpoint_returns_plainly_carries_the_headers(store: MemoryStore, endpoint: Any) -> None:
    client = app_of(endpoint, store)
    for remaining in ("1", "0"):
        answer = client.get("/")
        assert limit_names(answer.headers) == DISCORD_ON_SUCCESS
        assert answer.headers["x-ratelimit-remaining"] == remaining
        assert repeated(answer) == []


@pytest.mark.parametrize("endpoint", [*PLAIN, *RESPONSES, *RAISING])
def test_everything_carries_the_headers_once_the_middleware_is_there(store: MemoryStore, endpoint: Any) -> None:
    client = app_of(endpoint, store, middleware=True)
    for remaining in ("1", "0"):
        answer = client.get("/")
        assert answer.status_code != 429
        assert limit_names(answer.headers) == DISCORD_ON_SUCCESS
        assert answer.headers["x-ratelimit-remaining"] == remaining
        assert repeated(answer) == []
    assert client.get("/").status_code == 429


def test_all_chunks_of_a_stream_arrive(store: MemoryStore) -> None:
    client = app_of(of_a_stream, store, middleware=True)
    assert client.get("/").text == "chunk0 chunk1 chunk2 chunk3 chunk4 "


def test_headers_of_the_endpoints_own_are_kept(store: MemoryStore) -> None:
    answer = app_of(of_its_own_response_parameter, store).get("/")
    assert answer.headers["x-own"] == "yes"
    assert limit_names(answer.headers) == DISCORD_ON_SUCCESS


@pytest.mark.parametrize("middleware", [False, True])
def test_an_endpoint_that_breaks_is_counted(store: MemoryStore, middleware: bool) -> None:
    def breaking() -> None:
        raise Broken

    client = app_of(breaking, store, middleware=middleware)
    assert [client.get("/").status_code for _ in range(3)] == [500, 500, 429]


def test_an_error_that_the_app_answers_itself_is_answered_so_and_counted(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/hour"))])
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.exception_handler(Broken)
    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("broken", status_code=418)

    @app.get("/")
    async def root() -> None:
        raise Broken

    client = TestClient(app)
    first = client.get("/")
    assert (first.status_code, first.text) == (418, "broken")
    assert limit_names(first.headers) == DISCORD_ON_SUCCESS
    assert client.get("/").status_code == 429


def test_a_request_that_fails_validation_is_counted(store: MemoryStore) -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("2/hour", store=store))])

    @app.get("/")
    async def root(number: int) -> int:
        return number

    client = TestClient(app)
    assert [client.get("/", params={"number": n}).status_code for n in ("x", "1", "1")] == [422, 200, 429]


def test_the_endpoint_does_not_run_when_it_is_refused(store: MemoryStore) -> None:
    ran: list[str] = []
    app = FastAPI()

    def after(quota: None = None) -> None:
        ran.append("dependency")

    @app.post("/", dependencies=[Depends(RateLimit("1/hour", store=store)), Depends(after)])
    async def root(note: Note) -> None:
        ran.append("endpoint")

    client = TestClient(app)
    assert [client.post("/", json={"text": "x"}).status_code for _ in range(3)] == [200, 429, 429]
    assert ran == ["dependency", "endpoint"]


def test_a_dependency_that_yields_is_closed_when_a_later_one_refuses(store: MemoryStore) -> None:
    events: list[str] = []

    async def session() -> AsyncIterator[None]:
        events.append("open")
        try:
            yield
        finally:
            events.append("closed")

    app = FastAPI(dependencies=[Depends(session), Depends(RateLimit("1/hour", store=store))])

    @app.get("/")
    async def root() -> None: ...

    client = TestClient(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert events == ["open", "closed"] * 2
