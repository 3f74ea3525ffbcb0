"""WebSocket routes: a refused handshake is a 429 in Discord's words, or a close with 4008 where none can be sent."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import uvicorn
import websockets
from fastapi import APIRouter, Depends, FastAPI, Query, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import DISCORD_ON_REFUSAL, DISCORD_ON_SUCCESS, limit_names, repeated


def app_with(limit: RateLimit, path: str = "/ws", *, prefix: str = "") -> FastAPI:
    """An app whose socket answers the first frame."""
    app, router = FastAPI(), APIRouter()

    @router.websocket(path, dependencies=[Depends(limit)])
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"got {await socket.receive_text()}")
        await socket.close()

    app.include_router(router, prefix=prefix)
    return app


def talk(client: TestClient, url: str) -> str:
    with client.websocket_connect(url) as session:
        session.send_text("hello")
        return session.receive_text()


def refused(client: TestClient, url: str) -> WebSocketDenialResponse:
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect(url):
        pass
    return caught.value


def test_a_handshake_too_many_is_refused_with_discords_429(store: MemoryStore) -> None:
    client = TestClient(app_with(RateLimit("2/3s", store=store)))
    assert [talk(client, "/ws") for _ in range(2)] == ["got hello"] * 2
    answer = refused(client, "/ws")
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.read()) == {"message": "You are being rate limited.", "retry_after": 1.5, "global": False}
    assert limit_names(answer.headers) == DISCORD_ON_REFUSAL
    assert repeated(answer) == []


def test_a_websocket_route_has_one_bucket_per_template(store: MemoryStore) -> None:
    client = TestClient(app_with(RateLimit("2/hour", store=store), "/rooms/{room}"))
    assert [talk(client, f"/rooms/{room}") for room in (1, 2)] == ["got hello"] * 2
    assert refused(client, "/rooms/3").status_code == 429


def test_a_websocket_route_has_one_bucket_per_resource_and_prefix(store: MemoryStore) -> None:
    limit = RateLimit("1/hour", per=("room",), store=store)
    app = app_with(limit, "/rooms/{room}", prefix="/v1")
    app.mount("/sub/{tenant}", app_with(limit, "/rooms/{room}", prefix="/v1"))
    client = TestClient(app)
    for url in ("/v1/rooms/7", "/v1/rooms/8", "/sub/a/v1/rooms/7"):
        assert talk(client, url) == "got hello"
    for url in ("/v1/rooms/007", "/sub/b/v1/rooms/7"):
        assert refused(client, url).status_code == 429


def test_an_endpoint_gets_the_decision_about_its_handshake(store: MemoryStore) -> None:
    app, limit = FastAPI(), RateLimit("3/hour", store=store)

    @app.websocket("/ws")
    async def ws(socket: WebSocket, quota: Annotated[Decision, Depends(limit)]) -> None:
        await socket.accept()
        await socket.send_text(str(quota.remaining))
        await socket.close()

    client = TestClient(app)
    with client.websocket_connect("/ws") as session:
        assert session.receive_text() == "2"


def test_a_key_dependency_works_on_a_handshake(store: MemoryStore) -> None:
    def current_user(token: Annotated[str, Query()]) -> str:
        return token

    client = TestClient(app_with(RateLimit("1/hour", key=Depends(current_user), store=store)))
    assert [talk(client, f"/ws?token={user}") for user in ("ada", "bob")] == ["got hello"] * 2
    assert refused(client, "/ws?token=ada").status_code == 429


def test_the_frames_of_an_open_socket_are_not_counted(store: MemoryStore) -> None:
    app, limit = FastAPI(), RateLimit("1/hour", store=store)

    @app.websocket("/ws", dependencies=[Depends(limit)])
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    with TestClient(app).websocket_connect("/ws") as session:
        for number in range(20):
            session.send_text(str(number))
            assert session.receive_text() == str(number)


def test_with_the_middleware_an_accepted_handshake_carries_the_headers(store: MemoryStore) -> None:
    app = app_with(RateLimit("1/hour"))
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)
    client = TestClient(app)
    with client.websocket_connect("/ws") as session:
        sent: list[tuple[bytes, bytes]] = list(session.extra_headers or ())
        session.send_text("hello")
    assert limit_names({name.decode(): value.decode() for name, value in sent}) == DISCORD_ON_SUCCESS
    answer = refused(client, "/ws")
    assert limit_names(answer.headers) == DISCORD_ON_REFUSAL
    assert repeated(answer) == []


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [False, True])
async def test_a_server_that_can_send_no_response_closes_with_4008(store: MemoryStore, middleware: bool) -> None:
    app = app_with(RateLimit("1/hour", store=store))
    if middleware:
        app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    async def messages() -> list[Any]:
        sent: list[Any] = []
        arriving = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

        async def receive() -> Any:
            return next(arriving, {"type": "websocket.disconnect", "code": 1000})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "client": ("192.0.2.1", 1)}
        await app(scope, receive, send)
        return sent

    assert [message["type"] for message in await messages()] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert await messages() == [{"type": "websocket.close", "code": 4008, "reason": "rate limited"}]


@asynccontextmanager
async def served(app: FastAPI, implementation: Any) -> AsyncIterator[str]:
    """The address of the app on a real socket."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws=implementation, log_level="error", lifespan="off"))
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listening.close()


@pytest.mark.anyio
async def test_a_real_client_of_a_real_server_is_told_the_same(store: MemoryStore) -> None:
    app = app_with(RateLimit("1/hour", store=store))
    async with served(app, "websockets-sansio") as address:
        async with websockets.connect(f"ws://{address}/ws") as connection:
            await connection.send("hello")
            assert await connection.recv() == "got hello"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(f"ws://{address}/ws")
    response = caught.value.response
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body or b"")["retry_after"] == 3600.0
    assert limit_names(dict(response.headers.raw_items())) == DISCORD_ON_REFUSAL
    assert len(list(response.headers.raw_items())) == len({name.lower() for name, _ in response.headers.raw_items()})
