"""Bytes sent: files, streams and broken-off responses are charged with what was sent, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.observe import Event
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage
from tests.support.local_server import served
from tests.support.servers import wait_until

MINUTE, DAY, MB = 10_000_000, 50_000_000, 1_000_000
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def page(run_page: RunPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PUBLIC_FILES", str(tmp_path))
    for name, size in {"small": 300, "large": 3 * MB, "huge": 25 * MB}.items():
        (tmp_path / name).write_bytes(bytes(size))
    return run_page("egress")


@pytest.fixture
def client(page: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(page["app"], headers={"accept-encoding": "identity"}) as client:
        yield client


def left(client: TestClient | httpx.Client) -> tuple[int, int]:
    """What is left of the minute and of the day, as a response without a body reports it: after its own charge."""
    header = client.head("/files/small").headers["ratelimit"]
    minute, day = (int(part.split("r=")[1].split(";")[0]) for part in header.split(","))
    return minute + 10_000, day + 10_000


def test_a_small_file_costs_its_size(client: TestClient) -> None:
    assert left(client) == (MINUTE, DAY)
    assert client.get("/files/small").status_code == 200
    assert left(client) == (MINUTE - 300, DAY - 300)
    assert 'q=10000000;qu="bytes";w=60' in client.head("/files/small").headers["ratelimit-policy"]


def test_a_stream_costs_its_lines(client: TestClient) -> None:
    client.get("/export?lines=700")
    assert left(client) == (MINUTE - 7000, DAY - 7000)


def test_what_is_compressed_costs_less(client: TestClient) -> None:
    answer = client.get("/files/large", headers={"accept-encoding": "gzip"})
    assert len(answer.content) == 3 * MB
    sent = MINUTE - left(client)[0]
    assert 0 < sent < 100_000


def test_a_range_and_an_unchanged_file_cost_what_is_sent(client: TestClient) -> None:
    part = client.get("/files/large", headers={"range": "bytes=0-999"})
    assert part.status_code == 206
    assert client.get("/files/large", headers={"if-none-match": part.headers["etag"]}).status_code == 304
    assert left(client) == (MINUTE - 1000, DAY - 1000)


def test_large_files_are_owed(client: TestClient, clock: ManualClock) -> None:
    assert [client.get("/files/large").status_code for _ in range(5)] == [200] * 4 + [429]
    refused = client.get("/files/large")
    assert refused.json()["retry_after"] == 12.06  # 2 MB are owed, and 10 000 bytes are needed
    clock.advance(12.06)
    assert client.get("/files/large").status_code == 200


def test_more_than_another_capacity_is_an_event(page: dict[str, Any], client: TestClient, clock: ManualClock) -> None:
    events: list[Event] = []
    store: MemoryStore = page["store"]
    store.observers.add(events.append)
    client.get("/files/huge")
    assert [event.limiter for event in events if event.kind == "owed"] == ["egress"]
    clock.advance(60.059999)  # 10 MB are owed, and 10 000 bytes are needed
    assert client.get("/files/small").status_code == 429
    clock.advance(0.000001)
    assert client.get("/files/small").status_code == 200
    clock.advance(120)
    assert left(client) == (MINUTE, DAY - 25 * MB - 300)


def test_a_day_ends_at_midnight_and_begins_with_the_debt(client: TestClient, clock: ManualClock) -> None:
    for _ in range(17):  # the last one owes 1 MB
        assert client.get("/files/large").status_code == 200
        clock.advance(60)
    now = datetime.fromtimestamp(clock.wall(), BERLIN)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), BERLIN)
    seconds = midnight.timestamp() - clock.wall()
    assert client.get("/files/small").json()["retry_after"] == pytest.approx(seconds, abs=0.001)
    clock.advance(seconds + 0.001)
    assert left(client) == (MINUTE, DAY - MB)


def test_a_client_that_goes_away_is_charged_what_was_sent(page: dict[str, Any]) -> None:
    counted = Counted(page["app"])
    with (
        served(counted) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"accept-encoding": "identity"}) as client,
    ):
        with client.stream("GET", "/export?lines=1000000000") as answer:
            chunks = answer.iter_bytes()
            assert next(chunks).startswith(b"000000000\n")
        wait_until(lambda: counted.ended, "the response has ended")
        sent = counted.sent
        assert sent > 10
        assert left(client) == (MINUTE - sent, DAY - sent)


class Counted:
    """An app, and the bytes that it has sent until its export has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.sent, self.ended = app, 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            self.sent += len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, count if scope.get("path") == "/export" else send)
        self.ended = self.ended or scope.get("path") == "/export"
