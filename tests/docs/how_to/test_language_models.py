"""Tokens of a language model: charged as estimated, settled as used, however the call ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import RunPage
from tests.docs.how_to.fake_model import FakeModel
from tests.support.local_server import served
from tests.support.servers import Server, wait_until
from tests.support.servers.server import free_port

ADA, BOB = {"x-api-key": "key-of-ada"}, {"x-api-key": "key-of-bob"}
PROMPT = {"prompt": "Hi there"}  # about 3 tokens


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def page(run_page: RunPage, model: FakeModel) -> dict[str, Any]:
    return in_front_of(model, run_page("language-models"))


@pytest.fixture
def client(page: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(page["app"], headers=ADA) as client:
        yield client


def in_front_of(model: FakeModel, names: dict[str, Any]) -> dict[str, Any]:
    transport = httpx.ASGITransport(model)
    names["upstream"] = httpx.AsyncClient(base_url="http://model", transport=transport)
    return names


def left(client: TestClient | httpx.Client, **headers: str) -> dict[str, int]:
    limits = client.get("/limits/me", headers=headers or None).json()["limits"]
    return {each["name"]: each["remaining"] for each in limits}


def test_an_answer_is_charged_what_the_model_reports(client: TestClient) -> None:
    answer = client.post("/chat", json=PROMPT)
    assert answer.status_code == 200
    assert answer.text.count('data: {"text": "word"}\n\n') == 3
    assert answer.headers["ratelimit"] == '"requests";r=19;t=3, "tokens";r=6000;t=1'
    assert '"tokens";q=10000;qu="tokens";w=60' in answer.headers["ratelimit-policy"]
    assert left(client) == {"requests": 19, "tokens": 8500}


def test_of_calls_at_once_two_pass(page: dict[str, Any], model: FakeModel) -> None:
    async def ask_five() -> list[int]:
        async with httpx.AsyncClient(
            base_url="http://app", transport=httpx.ASGITransport(page["app"]), headers=ADA
        ) as client:
            calls = [asyncio.create_task(client.post("/chat", json=PROMPT)) for _ in range(5)]
            model.may_answer = lambda: sum(call.done() for call in calls) == 3  # those that are refused
            answers = await asyncio.gather(*calls)
        return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(ask_five())) == [200, 200, 429, 429, 429]
    assert model.calls == 2
    with TestClient(page["app"], headers=ADA) as client:
        assert left(client) == {"requests": 18, "tokens": 7000}  # those that were refused have their request back


def test_what_was_too_little_is_owed(client: TestClient, model: FakeModel, clock: ManualClock) -> None:
    model.used = 12_000
    client.post("/chat", json=PROMPT)
    assert left(client) == {"requests": 19, "tokens": 0}
    refused = client.post("/chat", json=PROMPT)
    assert refused.status_code == 429
    # 2000 are owed. The estimate is 12000 now, of which the bucket can hold 10000. 10000 come in 60 s.
    assert refused.json()["retry_after"] == 72.0
    clock.advance(71.999999)
    assert client.post("/chat", json=PROMPT).status_code == 429
    clock.advance(0.000001)
    assert client.post("/chat", json=PROMPT).status_code == 200


def test_the_estimate_is_what_calls_have_used(client: TestClient, clock: ManualClock) -> None:
    for _ in range(20):
        assert client.post("/chat", json=PROMPT).status_code == 200
        clock.advance(60)
    assert '"tokens";r=8500' in client.post("/chat", json=PROMPT).headers["ratelimit"]


def test_each_plan_has_its_limits(client: TestClient) -> None:
    client.post("/chat", json=PROMPT, headers=BOB)
    assert left(client, **BOB) == {"requests": 199, "tokens": 398_500}
    assert left(client) == {"requests": 20, "tokens": 10_000}
    assert client.post("/chat", json=PROMPT, headers={"x-api-key": "other"}).status_code == 401


def test_a_model_that_fails_costs_no_tokens(client: TestClient, page: dict[str, Any], model: FakeModel) -> None:
    model.status = 503
    assert client.post("/chat", json=PROMPT).status_code == 502
    assert left(client) == {"requests": 19, "tokens": 10_000}
    page["upstream"] = httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}")
    assert client.post("/chat", json=PROMPT).status_code == 502
    assert left(client) == {"requests": 18, "tokens": 10_000}


def test_a_model_that_reports_nothing_is_charged_by_its_pieces(client: TestClient, model: FakeModel) -> None:
    model.used = None
    client.post("/chat", json=PROMPT)
    assert left(client) == {"requests": 19, "tokens": 10_000 - 3 - 3}


def test_a_client_that_goes_away_is_charged_what_was_streamed(page: dict[str, Any], model: FakeModel) -> None:
    model.stays_silent = True
    with served(model) as model_port, served(page["app"]) as port:
        page["upstream"] = httpx.AsyncClient(base_url=f"http://127.0.0.1:{model_port}")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=ADA) as client:
            with client.stream("POST", "/chat", json=PROMPT) as answer:
                lines = answer.iter_lines()
                assert [next(lines) for _ in range(5)][::2] == ['data: {"text": "word"}'] * 3
                assert left(client)["tokens"] == 6000
            wait_until(lambda: left(client)["tokens"] != 6000, "the call is settled")
            assert left(client) == {"requests": 19, "tokens": 10_000 - 3 - 3}
        assert model.was_left.wait(10)


def test_a_client_that_goes_away_before_the_answer_is_charged_what_the_model_has_read(
    page: dict[str, Any], model: FakeModel
) -> None:
    model.stays_silent = True
    body = json.dumps(PROMPT).encode()
    messages: list[Message] = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise OSError("the connection is gone")

    async def leave_early(port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as page["upstream"]:
            with suppress(ClientDisconnect):
                await page["app"](post_scope(), receive, send)
            assert await asyncio.to_thread(model.was_left.wait, 10)

    with served(model) as port:
        asyncio.run(leave_early(port))
    with TestClient(page["app"], headers=ADA) as client:
        assert left(client) == {"requests": 19, "tokens": 10_000 - 3}


def post_scope() -> Scope:
    headers = [(b"x-api-key", b"key-of-ada"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/chat",
        "query_string": b"",
        "headers": headers,
    }


def test_a_model_that_breaks_off_is_charged_by_its_pieces(page: dict[str, Any], model: FakeModel) -> None:
    model.breaks_off = True
    with served(model) as port, TestClient(page["app"], headers=ADA) as client:
        page["upstream"] = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")
        answer = client.post("/chat", json=PROMPT)
        assert answer.text.endswith('data: {"error": "The model has broken off."}\n\n')
        assert left(client) == {"requests": 19, "tokens": 10_000 - 3 - 3}


def test_a_call_that_nobody_settles_stays_charged_in_redis_as_estimated(
    run_page: RunPage, redis: Server, model: FakeModel, clock: ManualClock
) -> None:
    def store() -> RedisStore:
        return RedisStore(f"redis://{redis.host}:{redis.port}", prefix="unsettled", clock=clock)

    model.stays_silent = True
    first, second = (run_page("language-models", store) for _ in range(2))
    with served(model) as model_port, served(first["app"]) as port, TestClient(second["app"], headers=ADA) as other:
        first["upstream"] = httpx.AsyncClient(base_url=f"http://127.0.0.1:{model_port}")
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=ADA) as client,
            client.stream("POST", "/chat", json=PROMPT) as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines) == 'data: {"text": "word"}'
            assert left(other) == {"requests": 19, "tokens": 6000}
            clock.advance(23.9)
            assert left(other) == {"requests": 20, "tokens": 9983}
            clock.advance(0.1)
            assert left(other) == {"requests": 20, "tokens": 10_000}


def test_without_redis_each_process_counts_and_settles_by_itself(
    run_page: RunPage, model: FakeModel, clock: ManualClock
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    names = in_front_of(model, run_page("language-models", lambda: RedisStore(nowhere, clock=clock)))
    with TestClient(names["app"], headers=ADA) as client:
        assert client.post("/chat", json=PROMPT).status_code == 200
        assert left(client) == {"requests": 19, "tokens": 8500}
