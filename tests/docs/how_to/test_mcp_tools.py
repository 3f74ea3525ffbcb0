"""Tools of an MCP server: the official client sees each refusal, with its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from asgi_ratelimit import Limiter
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage
from tests.support.local_server import served
from tests.support.servers.server import free_port

pytestmark = pytest.mark.anyio

SCENE, TEXT = {"scene": "sunset"}, {"text": "limits"}
Connect = Callable[..., Any]


@pytest.fixture
def page(run_page: RunPage) -> dict[str, Any]:
    return run_page("mcp-tools")


@pytest.fixture
def port(page: dict[str, Any]) -> Iterator[int]:
    with served(page["app"]) as port:
        yield port


@pytest.fixture
def connect(port: int) -> Connect:
    @asynccontextmanager
    async def connect(user: str, mode: str = "auto") -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer token-of-{user}"}
        async with httpx2.AsyncClient(headers=headers) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client

    return connect


async def refused_for(call: Awaitable[object]) -> float:
    """The seconds for which the call is refused."""
    with pytest.raises(MCPError) as refusal:
        await call
    assert refusal.value.code == -32029
    seconds: float = refusal.value.data["retry_after"]
    return seconds


async def left(page: dict[str, Any], user: str, tool: str) -> tuple[int, int]:
    """The points of the user, and the calls of this tool."""
    points, calls = page["points"], page["CALLS"][tool]
    return (await points.peek(user)).remaining, (await calls.peek(user)).remaining


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_each_user_has_so_many_calls_of_a_tool(
    connect: Connect, page: dict[str, Any], clock: ManualClock, mode: str
) -> None:
    async with connect("ada", mode) as ada, connect("bob", mode) as bob:
        for _ in range(3):
            assert (await ada.call_tool("render", SCENE)).structured_content == {"result": "sunset.mp4"}
        assert await refused_for(ada.call_tool("render", SCENE)) == 1200.0
        assert not (await ada.call_tool("search", TEXT)).is_error
        assert await left(page, "ada", "render") == (39, 0)
        assert await left(page, "ada", "search") == (39, 29)
        assert not (await bob.call_tool("render", SCENE)).is_error
        clock.advance(1199.999999)
        assert await refused_for(ada.call_tool("render", SCENE)) == 0.000001
        clock.advance(0.000001)
        assert not (await ada.call_tool("render", SCENE)).is_error


async def test_each_user_has_points_for_all_tools(connect: Connect, page: dict[str, Any], clock: ManualClock) -> None:
    async with connect("ada") as ada:
        for _ in range(3):
            await ada.call_tool("render", SCENE)
        for _ in range(30):
            await ada.call_tool("search", TEXT)
        assert await left(page, "ada", "search") == (10, 0)
        assert await refused_for(ada.call_tool("search", TEXT)) == 2.0
        assert await left(page, "ada", "search") == (10, 0)
        clock.advance(20)
        for _ in range(10):
            assert not (await ada.call_tool("search", TEXT)).is_error
        clock.advance(2)
        # 22 s bring 22/36 of a point, and the call of the tool is given back.
        assert await refused_for(ada.call_tool("search", TEXT)) == 14.0
        assert await left(page, "ada", "search") == (0, 1)


async def test_a_tool_that_fails_is_charged(connect: Connect, page: dict[str, Any]) -> None:
    async with connect("ada") as ada:
        assert (await ada.call_tool("render", {"scene": ""})).is_error
    assert await left(page, "ada", "render") == (80, 2)


async def test_an_invented_tool_costs_a_point(connect: Connect, page: dict[str, Any]) -> None:
    async with connect("ada") as ada:
        for name in ("a", "b", "c"):
            assert (await ada.call_tool(name, {})).is_error
    assert await left(page, "ada", "render") == (97, 3)


async def test_a_message_that_the_server_refuses_costs_nothing(page: dict[str, Any], port: int) -> None:
    who = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    headers = {"authorization": "Bearer token-of-ada", "accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=headers, base_url=f"http://127.0.0.1:{port}") as http:

        async def post(**message: object) -> httpx2.Response:
            return await http.post("/mcp", json={"jsonrpc": "2.0", **message})

        opened = await post(id=1, method="initialize", params=who)
        http.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        assert (await post(method="notifications/initialized")).status_code == 202
        answer = await post(id=2, method="tools/call", params={"name": "render", "arguments": 7})
    assert '"code":-32602' in answer.text
    assert await left(page, "ada", "render") == (100, 3)


async def test_without_redis_a_server_that_fails_closed_answers_503(run_page: RunPage) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    names = run_page("mcp-tools", lambda: RedisStore(nowhere, outage="closed"))
    with served(names["app"]) as port:
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"http://127.0.0.1:{port}/mcp", json={})).status_code == 503


async def test_going_away_while_a_tool_runs_gives_nothing_back(connect: Connect, page: dict[str, Any]) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    @page["server"].tool()  # type: ignore[untyped-decorator]
    async def wait_for_ever() -> str:
        loop.call_soon_threadsafe(began.set)
        await asyncio.sleep(3600)
        return ""

    page["COSTS"]["wait_for_ever"] = 20
    async with connect("ada") as ada:
        call = asyncio.create_task(ada.call_tool("wait_for_ever", {}))
        await began.wait()
        call.cancel()
    assert await left(page, "ada", "search") == (80, 30)


async def test_a_flood_of_messages_gets_a_429_that_the_client_can_read(
    connect: Connect, page: dict[str, Any], port: int
) -> None:
    async with connect("ada") as ada:
        whole = Limiter("300/minute", store=page["store"], name="app")
        rest = (await whole.peek("ada")).remaining
        await whole.try_acquire("ada", rest)
        assert await refused_for(ada.list_tools()) == 0.2
    headers = {"authorization": "Bearer token-of-ada"}
    async with httpx2.AsyncClient(headers=headers) as http:
        answer = await http.post(f"http://127.0.0.1:{port}/mcp", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
