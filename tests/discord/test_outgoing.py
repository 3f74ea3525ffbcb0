"""Nothing is done twice because its answer was late or lost, and what is done counts as done.

The server is a raw socket that carries out each request before it answers, as Discord does.
"""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import TOKEN, Seen, bot_of, passing
from tests.support.raw_discord import Answer, Lost, RawDiscord, Script, Silence, raw_discord

pytestmark = pytest.mark.anyio

WEBHOOK = "/webhooks/1/a-webhooks-token"
CALLBACK = "/interactions/1/aW50ZXJhY3Rpb246MQ/callback"
FOLLOW_UP = "/webhooks/77/aW50ZXJhY3Rpb246MQ"
MESSAGE = "/channels/1/messages"


def in_turn(*answers: Answer | Lost | Silence) -> Script:
    """These answers, and the last one for ever."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def bot_at(server: RawDiscord, clock: ManualClock, **options: Any) -> DiscordClient:
    return DiscordClient(TOKEN, base_url=server.url, store=MemoryStore(clock=clock), trust_env=False, **options)


def messages_of(server: RawDiscord) -> set[object]:
    """The nonces of the messages that exist: Discord creates one for each."""
    return {request.json.get("nonce", number) for number, request in enumerate(server.received)}


# Time


async def test_an_answer_may_take_half_a_minute_unless_the_user_says_otherwise(clock: ManualClock) -> None:
    server = Seen()
    async with bot_of(server, clock) as discord:
        await discord.post(WEBHOOK, json={})
        await discord.post(WEBHOOK, json={}, timeout=7)
    async with bot_of(server, clock, timeout=3) as discord:
        await discord.post(WEBHOOK, json={})
    assert [request.extensions["timeout"]["read"] for request in server.requests] == [30, 7, 3]


@pytest.mark.parametrize("path", [WEBHOOK, FOLLOW_UP, "/channels/1/threads"])
async def test_a_post_whose_answer_is_late_is_made_once(clock: ManualClock, path: str) -> None:
    async with raw_discord(lambda request: Silence()) as server, bot_at(server, clock) as discord:
        with pytest.raises(httpx.ReadTimeout):
            await passing(clock, discord.post(path, json={"content": "x"}, timeout=0.2))
        assert len(server.received) == 1


@pytest.mark.parametrize("unsafe", [False, True])
async def test_a_message_whose_answer_is_lost_is_asked_for_again_by_its_nonce(clock: ManualClock, unsafe: bool) -> None:
    async with raw_discord(in_turn(Lost(), Lost(), Answer())) as server:
        async with bot_at(server, clock, retry_unsafe=unsafe) as discord:
            assert (await passing(clock, discord.post(MESSAGE, json={"content": "x"}))).status_code == 200
        assert len(server.received) == 3
        assert len(messages_of(server)) == 1


# What is done counts as done


async def test_a_callback_whose_answer_was_lost_is_done(clock: ManualClock) -> None:
    again = Answer(400, b'{"message": "Interaction has already been acknowledged.", "code": 40060}')
    async with raw_discord(in_turn(Lost(), again)) as server, bot_at(server, clock) as discord:
        answer = await passing(clock, discord.post(CALLBACK, json={"type": 5}))
        assert (answer.status_code, answer.content) == (204, b"")
        assert len(server.received) == 2


async def test_but_one_that_was_answered_twice_by_the_user_is_not(clock: ManualClock) -> None:
    again = Answer(400, b'{"message": "Interaction has already been acknowledged.", "code": 40060}')
    async with raw_discord(in_turn(Answer(204, b""), again)) as server, bot_at(server, clock) as discord:
        statuses = [(await discord.post(CALLBACK, json={"type": 5})).status_code for _ in range(2)]
        assert statuses == [204, 400]


async def test_and_other_errors_of_a_repetition_are_errors(clock: ManualClock) -> None:
    other = Answer(400, b'{"message": "Invalid Form Body", "code": 50035}')
    async with raw_discord(in_turn(Lost(), other)) as server, bot_at(server, clock) as discord:
        answer = await passing(clock, discord.post(CALLBACK, json={"type": 5}))
        assert (answer.status_code, answer.json()["code"]) == (400, 50035)


@pytest.mark.parametrize("first", [Lost(), Answer(502, b"{}")])
async def test_a_delete_that_finds_nothing_after_a_lost_answer_is_done(
    clock: ManualClock, first: Answer | Lost
) -> None:
    gone = Answer(404, b'{"message": "Unknown Message", "code": 10008}', {"X-RateLimit-Limit": "5"})
    async with raw_discord(in_turn(first, gone)) as server, bot_at(server, clock) as discord:
        answer = await passing(clock, discord.delete(f"{MESSAGE}/5"))
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["X-RateLimit-Limit"] == "5"
        assert (await discord.delete(f"{MESSAGE}/6")).status_code == 404, "at the first attempt it is an answer"
        assert len(server.received) == 3


# Lost within the body


async def test_a_message_whose_answer_breaks_off_is_asked_for_again(clock: ManualClock) -> None:
    async with raw_discord(in_turn(Answer(sent=4), Answer())) as server, bot_at(server, clock) as discord:
        answer = await passing(clock, discord.post(MESSAGE, json={"content": "x"}))
        assert answer.json() == {"id": "1"}
        assert len(server.received) == 2
        assert len(messages_of(server)) == 1


@pytest.mark.parametrize("path", [WEBHOOK, "/channels/1/threads"])
async def test_without_a_nonce_the_error_says_that_the_answer_has_come(clock: ManualClock, path: str) -> None:
    async with raw_discord(in_turn(Answer(sent=4))) as server, bot_at(server, clock) as discord:
        with pytest.raises(httpx.RemoteProtocolError, match=r"the answer has come, 200, and the connection was lost"):
            await passing(clock, discord.post(path, json={"content": "x"}))
        assert len(server.received) == 1


async def test_a_streamed_answer_that_breaks_off_says_so_as_well(clock: ManualClock) -> None:
    async with (
        raw_discord(in_turn(Answer(sent=4))) as server,
        bot_at(server, clock) as discord,
        discord.stream("GET", "/channels/1") as answer,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="within its body"):
            await answer.aread()


# Errors that httpx lets pass


@pytest.mark.parametrize("error", [anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError])
async def test_an_end_of_the_stream_is_a_lost_connection(clock: ManualClock, error: type[Exception]) -> None:
    answers = [error(), error(), None]

    def answer(request: httpx.Request) -> httpx.Response:
        trouble = answers.pop(0) if answers else error()
        if trouble is not None:
            raise trouble
        return httpx.Response(200, json={"id": "1"})

    async with bot_of(answer, clock, max_retries=2) as discord:
        assert (await passing(clock, discord.post(MESSAGE, json={}))).status_code == 200
        with pytest.raises(httpx.ReadError, match=error.__name__):
            await passing(clock, discord.post(MESSAGE, json={}))
