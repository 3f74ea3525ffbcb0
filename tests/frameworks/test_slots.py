"""So many requests at a time on real servers, by the count of the app that they serve: every way in which one ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.asgi_servers import ServerProcess, served, wait_for
from tests.support.servers import KINDS, Server

APP = "tests.frameworks.slots_app:app"
SERVERS = {
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", APP),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", APP),
}
PLACES = [f"/{store}/{door}" for store in ("memory", "redis") for door in ("middleware", "route")]
ENDLESS = ("hang", "stream", "sse", "events")
AT_A_TIME = 3  # as in slots_app
ROUNDS = 240  # requests with a random end, at each place
SECONDS = 20.0

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fresh_server: Callable[[str], Server]
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "log"
    with served(SERVERS[request.param], log, environment={"REDIS_URL": str(fresh_server(KINDS[0]).url)}) as process:
        wait_for(process)
        yield process


class App:
    """One of the apps that the server serves."""

    def __init__(self, server: ServerProcess, place: str) -> None:
        self._server, self.place = server, place

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self._server.port}{self.place}/ws"

    async def begin(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request, and leave its response unread."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(f"GET {self.place}{path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n".encode())
        return reader, writer

    async def get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """The status, the headers and the body of a response, with its chunks as they are."""
        reader, writer = await self.begin(path)
        head, _, body = (await asyncio.wait_for(reader.read(-1), SECONDS)).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, body

    async def counts(self) -> dict[str, Any]:
        _, _, body = await self.get("/counts")
        counts: dict[str, Any] = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
        return counts

    async def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The counts of the app, as soon as they are so."""
        counts: dict[str, Any] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while not reached(counts := await self.counts()):
                    await asyncio.sleep(0.01)
        assert reached(counts), str(counts)
        return counts

    async def is_empty(self) -> dict[str, Any]:
        return await self.until(lambda now: now["inside"] == now["taken"] == now["in_flight"] == 0)


@pytest.fixture(params=PLACES)
def app(request: pytest.FixtureRequest, server: ServerProcess) -> App:
    return App(server, request.param)


@pytest.fixture(params=PLACES)
def line(request: pytest.FixtureRequest, server: ServerProcess) -> App:
    return App(server, f"{request.param}/line")


def has_arrived(number: int, counts: Mapping[str, Any]) -> bool:
    return bool(counts["arrived"] == number)


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_client_that_leaves_frees_its_slot(app: App, kind: str) -> None:
    for _ in range(2):
        connections = [await app.begin(f"/{kind}") for _ in range(AT_A_TIME)]
        await app.until(lambda now: now["taken"] == now["in_flight"] == AT_A_TIME)
        status, headers, _ = await app.get("/short")
        assert (status, headers["retry-after"]) == (429, "1")
        for _, writer in connections:
            await leave(writer)
        await app.is_empty()
    assert (await app.get("/short"))[0] == 200


async def test_an_endpoint_that_works_on_for_a_client_that_has_left_keeps_its_slot(app: App) -> None:
    connections = [await app.begin("/gate") for _ in range(AT_A_TIME)]
    await app.until(lambda now: now["inside"] == now["taken"] == AT_A_TIME)
    for _, writer in connections:
        await leave(writer)
    assert [(await app.get("/short"))[0] for _ in range(10)] == [429] * 10
    await app.get("/open")
    await app.is_empty()


@pytest.mark.parametrize("path", ["/stream?count=3", "/sse?count=3", "/events?count=3", "/short", "/missing"])
async def test_a_client_with_one_request_after_another_is_never_refused(line: App, path: str) -> None:
    statuses = {(await line.get(path))[0] for _ in range(10)}
    assert statuses == {404 if path == "/missing" else 200}


async def test_a_websocket_holds_its_slot_to_its_end(app: App) -> None:
    for _ in range(2):
        sockets = [await connect(app.socket_url, proxy=None) for _ in range(AT_A_TIME)]
        assert (await app.get("/short"))[0] == 429
        with pytest.raises(InvalidStatus):
            await connect(app.socket_url, proxy=None)
        await sockets[0].send("close")  # the app ends it,
        await sockets[1].close()  # the client says good-bye,
        sockets[2].transport.abort()  # or does not
        await app.is_empty()
        for socket in sockets:
            await socket.close()


async def test_a_background_task_needs_a_slot_only_where_no_middleware_sees_the_response(app: App) -> None:
    statuses = [(await app.get("/background"))[0] for _ in range(AT_A_TIME + 1)]
    assert statuses == [200] * AT_A_TIME + ([429] if app.place.endswith("route") else [200])
    await app.get("/open")
    await app.is_empty()


async def test_its_status_may_be_503(server: ServerProcess, app: App) -> None:
    busy = App(server, f"{app.place}/busy")
    _, writer = await busy.begin("/stream")
    await busy.until(lambda now: now["taken"] == 1)
    status, headers, _ = await busy.get("/short")
    assert (status, headers["retry-after"]) == (503, "1")
    await leave(writer)
    await busy.is_empty()


async def test_those_that_wait_are_served_in_the_order_of_their_arrival(line: App) -> None:
    before = await line.counts()
    first = asyncio.create_task(line.get("/gate?name=first"))
    await line.until(lambda now: now["inside"] == 1)
    names, waiting = [f"{number}" for number in range(12)], []
    for number, name in enumerate(names, start=2):
        waiting.append(asyncio.create_task(line.get(f"/short?name={name}")))
        await line.until(partial(has_arrived, before["arrived"] + number))
    await line.get("/open")
    assert [(await task)[0] for task in (first, *waiting)] == [200] * 13
    counts = await line.is_empty()
    assert counts["order"][len(before["order"]) :] == ["first", *names]
    assert counts["most"] == counts["most_in_flight"] == 1


async def test_those_that_leave_while_they_wait_take_no_slot(line: App) -> None:
    before = await line.counts()
    first = asyncio.create_task(line.get("/gate?name=first"))
    await line.until(lambda now: now["inside"] == 1)
    connections = [await line.begin("/hang") for _ in range(6)]
    await line.until(lambda now: now["arrived"] == before["arrived"] + 7)
    stays = asyncio.create_task(line.get("/short?name=stays"))
    await line.until(lambda now: now["arrived"] == before["arrived"] + 8)
    for _, writer in connections:
        await leave(writer)
    await line.get("/open")
    assert [(await task)[0] for task in (first, stays)] == [200, 200]
    counts = await line.is_empty()
    assert counts["most"] == 1


async def test_hundreds_of_requests_that_end_at_random_leave_nothing_behind(app: App) -> None:
    clients = [asyncio.create_task(visit(app, ROUNDS // 12)) for _ in range(12)]
    for client in clients:
        await client
    counts = await app.is_empty()
    assert counts["most"] == counts["most_in_flight"] == AT_A_TIME  # it was reached, and never exceeded
    assert counts["entered"] > AT_A_TIME
    assert {(await app.get("/short"))[0] for _ in range(5)} == {200}


async def visit(app: App, rounds: int) -> None:
    """Requests one after another, most of which are left at any moment of theirs."""
    for _ in range(rounds):
        kind = random.choice(("short", "stream?count=3", "stream", "sse", "hang", "socket"))
        if kind == "socket":
            with suppress(InvalidStatus):
                async with connect(app.socket_url, proxy=None) as socket:
                    await asyncio.sleep(random.choice((0, 0.005)))
                    if random.random() < 0.7:
                        socket.transport.abort()
            continue
        reader, writer = await app.begin(f"/{kind}")
        await writer.drain()
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.003, 0.01)))
        if kind in ("short", "stream?count=3") and random.random() < 0.5:
            await reader.read(-1)
        await leave(writer)
