"""One call is repeated when that may help, given up when it cannot, and never made when Discord is sure to refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordEvent, DiscordRateLimited, TokenRejected, WebhookGone
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import TOKEN, WEBHOOK, all_of, bot, bot_of, passing, rid_of, settled, taken
from tests.support.fake_discord import MESSAGES, SEND

pytestmark = pytest.mark.anyio

VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
UNKNOWN = {"message": "Unknown Webhook", "code": 10015}


@pytest.fixture
def fake(clock: ManualClock) -> FakeDiscord:
    return FakeDiscord(clock=clock)


class Script:
    """Answers, one after the other; the last one stays. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.requests = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, content, headers = answer if isinstance(answer, tuple) else (answer, {}, {})
        return httpx.Response(status, json=content, headers=headers)


# 429s


@pytest.mark.parametrize("verb", VERBS)
async def test_a_429_is_waited_out_whatever_the_method(fake: FakeDiscord, clock: ManualClock, verb: str) -> None:
    fake.refuse(f"{verb} /channels/{{channel_id}}", 2.5)
    async with bot(fake) as discord:
        assert await taken(clock, discord.request(verb, "/channels/1")) == pytest.approx(2.5, abs=0.02)
    assert [seen.status < 300 for seen in fake.requests] == [False, True]


async def test_with_no_retries_a_429_is_the_callers(fake: FakeDiscord) -> None:
    fake.refuse(MESSAGES, 2.5)
    async with bot(fake, max_retries=0) as discord:
        answer = await discord.post(SEND, json={})
    assert (answer.status_code, answer.json()["retry_after"]) == (429, 2.5)


async def test_a_server_that_always_refuses_ends_the_attempts(clock: ManualClock) -> None:
    events: list[DiscordEvent] = []
    script = Script((429, {"retry_after": 0.001, "global": False}, {"Via": "1.1 google"}))
    async with bot_of(script, clock, on_event=events.append) as discord:
        answer = await passing(clock, discord.get("/users/@me"))
    assert answer.status_code == 429
    assert answer.json()["retry_after"] == 0.001
    assert len(script.requests) == 10
    assert [event.attempt for event in events if event.kind == "limited"] == [*range(1, 11)]


async def test_a_global_429_stops_every_route_for_its_retry_after(fake: FakeDiscord, clock: ManualClock) -> None:
    fake.refuse(MESSAGES, 3.0, scope="global")
    events: list[DiscordEvent] = []
    async with bot(fake, on_event=events.append) as discord:
        first = asyncio.create_task(discord.post(SEND, json={}))
        await settled()
        callback = await discord.post("/interactions/1/token/callback", json={"type": 1})
        assert callback.status_code < 300, "which no global limit stops"
        others = all_of([discord.get(f"/channels/{number}") for number in range(30)])
        assert await taken(clock, others) == pytest.approx(3.0, abs=0.02)
        await passing(clock, first)
    assert len(fake.refused) == 1
    assert [event.kind for event in events if event.kind == "stopped"] == ["stopped"]


async def test_the_call_that_empties_a_bucket_is_answered_at_once(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/10s"}, clock=clock)
    async with bot(fake) as discord:
        async with asyncio.timeout(5):
            assert (await discord.post(SEND, json={})).status_code == 200
        assert await taken(clock, discord.post(SEND, json={})) == pytest.approx(10, abs=0.02)
    assert not fake.refused


# Failures


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530])
@pytest.mark.parametrize("verb", VERBS)
async def test_failures_of_the_other_side_are_repeated(
    fake: FakeDiscord, clock: ManualClock, verb: str, status: int
) -> None:
    fake.fail(status, times=5, html=True)
    async with bot(fake, retry_unsafe=True) as discord:
        seconds = await taken(clock, discord.request(verb, "/channels/1"))
    assert [seen.status for seen in fake.requests[:-1]] == [status] * 5
    assert 0.5 * 7.75 <= seconds <= 7.75 + 0.1, "0.25, 0.5, 1, 2, 4 s, each by up to a half less"


@pytest.mark.parametrize("verb", ["POST", "PATCH"])
@pytest.mark.parametrize("status", [408, 425, 503, 521, 522, 523, 525, 526, 530])
async def test_what_was_not_carried_out_is_repeated_whatever_it_is(clock: ManualClock, verb: str, status: int) -> None:
    script = Script(status, 200)
    async with bot_of(script, clock) as discord:
        assert (await passing(clock, discord.request(verb, WEBHOOK))).status_code == 200
    assert len(script.requests) == 2


@pytest.mark.parametrize("verb", ["POST", "PATCH"])
@pytest.mark.parametrize("status", [500, 502, 504, 520, 524])
async def test_what_may_have_been_carried_out_is_not_repeated_unless_asked_for(
    clock: ManualClock, verb: str, status: int
) -> None:
    script = Script(status, 200)
    async with bot_of(script, clock) as discord:
        assert (await passing(clock, discord.request(verb, WEBHOOK))).status_code == status
    assert len(script.requests) == 1


async def test_a_failure_that_outlasts_all_attempts_is_the_answer(fake: FakeDiscord, clock: ManualClock) -> None:
    fake.fail(503, times=100)
    async with bot(fake, max_retries=2) as discord:
        assert (await passing(clock, discord.get("/users/@me"))).status_code == 503
    assert fake.count(503) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 501, 505, 527])
async def test_other_errors_are_answers(clock: ManualClock, status: int) -> None:
    script = Script(status)
    async with bot_of(script, clock) as discord:
        assert (await discord.get("/users/@me")).status_code == status
    assert len(script.requests) == 1


async def test_the_pause_that_a_failing_server_requires_is_observed(clock: ManualClock) -> None:
    async with bot_of(Script((503, {}, {"Retry-After": "7"}), 200), clock) as discord:
        assert await taken(clock, discord.get("/users/@me")) == pytest.approx(7, abs=0.02)


async def test_but_not_one_of_hours(clock: ManualClock) -> None:
    async with bot_of(Script((503, {}, {"Retry-After": "86400"}), 200), clock) as discord:
        assert await taken(clock, discord.get("/users/@me"), step=0.1) == pytest.approx(30, abs=0.2)


async def test_thousands_of_attempts_are_thirty_seconds_apart_at_most(clock: ManualClock) -> None:
    script = Script(503)
    async with bot_of(script, clock, max_retries=1100) as discord:
        assert await taken(clock, discord.get("/users/@me"), step=30) <= 30 * 1101
    assert len(script.requests) == 1101


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("x"), httpx.ReadError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"),
        httpx.WriteError("x"), httpx.PoolTimeout("x"), httpx.ProxyError("x"), ConnectionResetError("x"),
    ],
)  # fmt: skip
async def test_lost_connections_are_repeated_then_raised_as_they_are(clock: ManualClock, error: Exception) -> None:
    async with bot_of(Script(error, error, 200), clock) as discord:
        assert (await passing(clock, discord.post(SEND, json={}))).status_code == 200
    async with bot_of(script := Script(error), clock, max_retries=1) as discord:
        with pytest.raises(type(error), match="x"):
            await passing(clock, discord.post(SEND, json={}))
    assert len(script.requests) == 2


async def test_a_failure_that_would_recur_is_not_repeated(clock: ManualClock) -> None:
    async with bot_of(script := Script(httpx.LocalProtocolError("x")), clock) as discord:
        with pytest.raises(httpx.LocalProtocolError):
            await discord.get("/users/@me")
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("verb", "path", "error", "attempts"),
    [
        ("POST", "/channels/1/webhooks", ConnectionResetError(), 1),
        ("PATCH", "/channels/1", httpx.ReadTimeout("x"), 1),
        ("PATCH", "/channels/1", 502, 1),
        ("POST", "/channels/1/webhooks", httpx.ConnectError("it never left"), 3),
        ("POST", "/channels/1/webhooks", ConnectionRefusedError(), 3),
        ("GET", "/channels/1", ConnectionResetError(), 3),
        ("DELETE", "/channels/1", 502, 3),
        ("POST", SEND, ConnectionResetError(), 3),  # its nonce makes it safe
    ],
)
async def test_without_unsafe_retries_nothing_is_sent_again_that_may_have_arrived(
    clock: ManualClock, verb: str, path: str, error: Any, attempts: int
) -> None:
    script = Script(error)
    async with bot_of(script, clock, max_retries=2, retry_unsafe=False) as discord:
        call = asyncio.gather(discord.request(verb, path, json={"content": "x"}), return_exceptions=True)
        (outcome,) = await passing(clock, call)
    assert outcome is error if isinstance(error, Exception) else getattr(outcome, "status_code", 0) == error
    assert len(script.requests) == attempts


# What waits, and for how long


@pytest.mark.parametrize("max_wait", [2.0, None])
async def test_a_wait_that_is_too_long_is_refused_at_once(
    fake: FakeDiscord, clock: ManualClock, max_wait: float | None
) -> None:
    fake.refuse(MESSAGES, 3.0)
    own = {} if max_wait else {"deadline": 2.0}
    async with bot(fake, max_wait=max_wait) as discord:
        with pytest.raises(DiscordRateLimited) as refused:
            await discord.post(SEND, json={}, extensions=own)
    assert refused.value.retry_after == pytest.approx(3.0, abs=0.01)
    assert len(fake.requests) == 1
    assert clock.now_us() == 1_700_000_000_000_000, "without waiting"


async def test_max_wait_is_for_all_waits_of_a_call_together(clock: ManualClock) -> None:
    refusal = (429, {"retry_after": 1.0, "global": False}, {"Via": "1.1 google"})
    script = Script(refusal)
    async with bot_of(script, clock, max_wait=3.5) as discord:
        with pytest.raises(DiscordRateLimited):
            await passing(clock, discord.get("/users/@me"))
    assert len(script.requests) == 4


async def test_an_interactions_answer_has_three_seconds_and_a_follow_up_fifteen_minutes(clock: ManualClock) -> None:
    refusal = (429, {"retry_after": 5.0, "global": False}, {"Via": "1.1 google"})
    async with bot_of(Script(refusal, 200), clock, application_id=77) as discord:
        with pytest.raises(DiscordRateLimited):
            await discord.post("/interactions/1/token/callback", json={})
    async with bot_of(Script(refusal, refusal, 200), clock, application_id=77) as discord:
        assert (await passing(clock, discord.post("/webhooks/77/token", json={}))).status_code == 200
    late = (429, {"retry_after": 901.0, "global": False}, {"Via": "1.1 google"})
    async with bot_of(Script(late, 200), clock, application_id="77") as discord:
        with pytest.raises(DiscordRateLimited):
            await discord.post("/webhooks/77/token", json={})


async def test_priorities_decide_the_order(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/s"}, clock=clock)
    async with bot(fake) as discord:
        await discord.post(SEND, json={"content": "0"})
        events = [(str(number), {"priority": number}) for number in (1, 2, 3)]
        await passing(clock, all_of([discord.post(SEND, json={"content": c}, extensions=e) for c, e in events]))
    assert [message["content"] for message in fake.messages] == ["0", "1", "3", "2"]


# The dead


async def test_after_a_401_nothing_more_is_sent_with_the_token(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "2/100s"}, clock=clock)
    events: list[DiscordEvent] = []
    async with bot(fake, on_event=events.append) as discord:
        for _ in range(2):
            await discord.post(SEND, json={})
        waiting = [asyncio.create_task(discord.post(SEND, json={})) for _ in range(3)]
        await settled()
        fake.token = "another"
        assert (await discord.get("/users/@me")).status_code == 401
        await settled()
        assert [type(task.exception()) for task in waiting] == [TokenRejected] * 3, "at once"
        with pytest.raises(TokenRejected, match="Make a new client"):
            await discord.get("/users/@me")
        assert (await discord.post(WEBHOOK, json={})).is_success
    assert fake.count(401) == 2, "that one, and the second opinion"
    assert [event.status for event in events if event.kind == "token"] == [401]


async def test_a_403_is_no_verdict_on_the_token(clock: ManualClock) -> None:
    async with bot_of(Script(403, 200), clock) as discord:
        assert (await discord.get("/channels/1")).status_code == 403
        assert (await discord.get("/channels/1")).status_code == 200


async def test_a_401_without_a_token_is_no_verdict_on_others(clock: ManualClock) -> None:
    fake = FakeDiscord(clock=clock)
    async with bot(fake) as discord, httpx.AsyncClient(transport=discord._pacing, base_url="http://fake") as plain:
        discord._pacing._authorization = None
        assert (await plain.get("/users/@me")).status_code == 401
        assert (await plain.get("/users/@me")).status_code == 401


async def test_to_a_webhook_that_is_gone_nothing_more_is_sent(fake: FakeDiscord, clock: ManualClock) -> None:
    events: list[DiscordEvent] = []
    fake.kill_webhook(WEBHOOK.split("/")[2])
    async with bot(fake, on_event=events.append) as discord:
        answer = await discord.post(WEBHOOK, json={})
        assert (answer.status_code, answer.json()["code"]) == (404, 10015), "the answer can still be read"
        for path in (WEBHOOK, f"{WEBHOOK}/messages/1"):
            with pytest.raises(WebhookGone, match="does not exist"):
                await discord.post(path, json={})
        assert (await discord.post("/webhooks/5/other", json={})).is_success
    assert fake.count(404) == 1
    assert [event.status for event in events if event.kind == "webhook"] == [404]


async def test_calls_waiting_for_a_webhook_that_dies_end(clock: ManualClock) -> None:
    script = Script((429, {"retry_after": 60.0, "global": False}, {"Via": "1.1 google"}), (404, UNKNOWN, {}))
    async with bot_of(script, clock) as discord:
        waiting = asyncio.create_task(discord.post(WEBHOOK, json={}))
        await settled()
        assert (await discord.get(WEBHOOK)).status_code == 404
        await settled()
        assert isinstance(waiting.exception(), WebhookGone)
        await rid_of(waiting)


async def test_a_404_of_a_webhooks_message_leaves_the_webhook_alone(clock: ManualClock) -> None:
    async with bot_of(Script((404, {"code": 10008}, {}), 200), clock) as discord:
        assert (await discord.patch(f"{WEBHOOK}/messages/1", json={})).status_code == 404
        assert (await discord.post(WEBHOOK, json={})).status_code == 200


async def test_a_wrong_webhook_token_is_the_webhooks_end_and_not_the_bots(clock: ManualClock) -> None:
    async with bot_of(Script((401, {"code": 50027}, {}), 200), clock) as discord:
        assert (await discord.post(WEBHOOK, json={})).status_code == 401
        with pytest.raises(WebhookGone):
            await discord.post(WEBHOOK, json={})
        assert (await discord.get("/users/@me")).status_code == 200


# What is events


async def test_each_step_is_an_event_in_order(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/5s"}, clock=clock, token=TOKEN)
    events: list[DiscordEvent] = []
    async with bot(fake, on_event=events.append) as discord:
        await discord.post(SEND, json={})
        fake.fail(502)
        fake.refuse(MESSAGES, 1.5)
        await passing(clock, discord.post(SEND, json={}))
    assert [(event.kind, event.cause, event.status) for event in events] == [
        ("wait", "bucket", 0), ("retry", "retry", 502), ("limited", "user", 429),
    ]  # fmt: skip
    assert {event.route for event in events} == {"POST /channels/{channel_id}/messages [channels/1001]"}
    assert events[-1].seconds == 1.5


async def test_a_failing_listener_costs_no_call(
    fake: FakeDiscord, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: DiscordEvent) -> None:
        raise LookupError(event.kind)

    fake.refuse(MESSAGES, 1.0)
    async with bot(fake, on_event=fail) as discord:
        assert (await passing(clock, discord.post(SEND, json={}))).status_code == 200
    assert "on_event failed" in caplog.text
