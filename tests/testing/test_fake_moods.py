"""The moods of a FakeDiscord: what Discord does as well, though nobody documents it or likes it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock
from tests.real_clients.discord_api import served
from tests.support.fake_discord import MESSAGES, SEND, client_of, limits, until

pytestmark = pytest.mark.anyio

MESSAGE = "/channels/{channel_id}/messages/{message_id}"
CALLBACK = "/interactions/7/{}/callback"
DISCORD_EPOCH_MS = 1_420_070_400_000


def snowflake(wall: float) -> int:
    """An id that was given at this time."""
    return (round(wall * 1e3) - DISCORD_EPOCH_MS) << 22


async def test_a_stop_may_refuse_interactions_as_well(clock: ManualClock) -> None:
    fake = FakeDiscord(application_id=55, clock=clock)
    async with client_of(fake) as client:
        fake.stop(2, interactions=True)
        for path in (CALLBACK.format("a"), "/webhooks/55/a"):
            refusal = await client.post(path, json={})
            assert limits(refusal) == {"global": "true", "scope": "global", "retry-after": "2"}
        fake.stop(2)
        assert (await client.post(CALLBACK.format("a"), json={})).status_code == 204


@pytest.mark.parametrize(("seconds", "header"), [(0, "0"), (-1, "-1"), (0.001, "1"), (82_721.0, "82721")])
@pytest.mark.parametrize("scope", ["user", "shared", "global"])
async def test_a_refusal_says_the_time_that_was_ordered(
    clock: ManualClock, seconds: float, header: str, scope: Any
) -> None:
    fake = FakeDiscord({MESSAGES: "5/5s"}, clock=clock)
    fake.refuse(MESSAGES, seconds, scope=scope)
    async with client_of(fake) as client:
        refusal = await client.post(SEND, json={})
    assert (refusal.status_code, refusal.json()["retry_after"]) == (429, seconds)
    assert refusal.headers["retry-after"] == header


async def test_a_refusal_may_say_no_time_at_all(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "5/5s"}, clock=clock)
    fake.refuse(MESSAGES, None)
    async with client_of(fake) as client:
        refusal = await client.post(SEND, json={})
    assert refusal.status_code == 429
    assert "retry_after" not in refusal.json()
    assert "retry-after" not in refusal.headers


async def test_a_slow_answer_comes_late_and_its_message_is_there_at_once(clock: ManualClock) -> None:
    fake = FakeDiscord(clock=clock)
    fake.slow(6.0, route=MESSAGES)
    async with client_of(fake) as client, asyncio.TaskGroup() as tasks:
        await client.get("/users/@me")
        posting = tasks.create_task(client.post(SEND, json={}))
        await until(lambda: fake.created)
        assert (await client.post(SEND, json={})).status_code == 200, "it was ordered once"
        clock.advance(5.999999)
        await client.get("/users/@me")
        assert not posting.done()
        clock.advance(0.000001)
        assert (await posting).status_code == 200


async def test_a_connection_may_be_lost_inside_the_body() -> None:
    fake = FakeDiscord()
    fake.drop(when="within", times=2)
    with served(fake) as address:
        async with httpx.AsyncClient(base_url=f"{address}/api/v10", headers={"Authorization": "Bot x"}) as client:
            async with client.stream("POST", SEND, json={"content": "x"}) as response:
                assert response.status_code == 200
                with pytest.raises(httpx.RemoteProtocolError):
                    await response.aread()
            with pytest.raises(httpx.TransportError):
                await client.put(f"{SEND}/5/reactions/a/@me")  # whose answer has no body to be lost in
    assert (fake.created, fake.count(0), fake.count(204)) == (1, 2, 0)


async def test_a_connection_that_is_lost_inside_the_body_raises_without_a_network() -> None:
    fake = FakeDiscord()
    fake.drop(when="within")
    async with client_of(fake) as client:
        with pytest.raises(ConnectionResetError):
            await client.post(SEND, json={})
        assert (fake.created, [seen.status for seen in fake.requests]) == (1, [0])


@pytest.mark.parametrize(("prefix", "unit"), [("/api", 1_000), ("/api/v6", 1_000), ("/api/v7", 1_000), ("/api/v8", 1)])
async def test_versions_below_8_speak_of_milliseconds(clock: ManualClock, prefix: str, unit: int) -> None:
    fake = FakeDiscord({MESSAGES: "4/2s"}, clock=clock)
    async with client_of(fake) as client:
        for _ in range(5):
            refusal = await client.post(f"http://fake{prefix}{SEND}", json={})
        assert refusal.json()["retry_after"] == 0.5 * unit
        assert refusal.headers["retry-after"] == ("500" if unit == 1_000 else "1")
        assert refusal.headers["x-ratelimit-reset-after"] == "2.000", "which is in seconds in every version"
        fake.stop(1.5)
        assert (await client.get(f"http://fake{prefix}/users/@me")).json()["retry_after"] == 1.5 * unit


async def test_deletions_of_what_is_gone_have_a_bucket_of_their_own(clock: ManualClock) -> None:
    buckets = [FakeBucket("3/3s", gone=False, hash="there"), FakeBucket("1/3s", gone=True, hash="gone")]
    fake = FakeDiscord({"DELETE " + MESSAGE: buckets}, clock=clock)
    fake.delete_message(9)
    async with client_of(fake) as client:
        made = (await client.post(SEND, json={})).json()["id"]
        answers = [await client.delete(f"{SEND}/{number}") for number in (made, made, 9, 2)]
    assert [answer.status_code for answer in answers] == [204, 404, 429, 204]
    assert answers[1].json() == {"message": "Unknown Message", "code": 10008}
    assert [limits(answer)["bucket"] for answer in answers] == ["there", "gone", "gone", "there"]


async def test_a_message_that_is_gone_is_not_shown_any_more(clock: ManualClock) -> None:
    fake = FakeDiscord(clock=clock)
    async with client_of(fake) as client:
        made = [(await client.post(SEND, json={"content": text})).json()["id"] for text in "ab"]
        fake.delete_message(made[0])
        assert [(await client.get(f"{SEND}/{one}")).status_code for one in made] == [404, 200]
        assert (await client.patch(f"{SEND}/{made[0]}", json={})).status_code == 404
        assert [message["content"] for message in (await client.get(SEND)).json()] == ["b"]
    assert len(fake.messages) == 2, "all that was ever created"


async def test_edits_of_old_messages_have_a_limit_of_their_own_with_a_code(clock: ManualClock) -> None:
    old_ones = FakeBucket("1/10m", window="fixed", older_than=3_600, code=30_046)
    fake = FakeDiscord({"PATCH " + MESSAGE: [old_ones, FakeBucket("5/5s", hash="all")]}, clock=clock)
    old, new = (snowflake(clock.wall() - age) for age in (3_601, 3_599))
    async with client_of(fake) as client:
        answers = [await client.patch(f"{SEND}/{number}", json={}) for number in (old, old, new)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert (answers[1].json()["code"], answers[1].json()["retry_after"]) == (30_046, 600.0)
    assert [limits(answer)["bucket"] for answer in answers] == ["all"] * 3
    assert [limits(answer)["remaining"] for answer in answers] == ["4", "4", "3"]


async def test_an_interaction_is_answered_once(clock: ManualClock) -> None:
    fake = FakeDiscord(clock=clock)
    fake.drop(when="after")
    async with client_of(fake) as client:
        with pytest.raises(ConnectionResetError):
            await client.post(CALLBACK.format("a"), json={"type": 4})
        again = await client.post(CALLBACK.format("a"), json={"type": 4})
        assert (again.status_code, again.json()["code"]) == (400, 40_060)
        assert (await client.post(CALLBACK.format("b"), json={"type": 4})).status_code == 204


async def test_a_follow_up_may_come_too_early(clock: ManualClock) -> None:
    fake = FakeDiscord(application_id=55, follow_up_after=0.5, clock=clock)
    async with client_of(fake, token=None) as client:
        await client.post(CALLBACK.format("a"), json={"type": 5})
        early = await client.post("/webhooks/55/a", json={"content": "x"})
        assert (early.status_code, early.json()["code"], fake.created) == (404, 10_015, 0)
        assert (await client.patch("/webhooks/55/a/messages/@original", json={})).status_code == 404
        assert (await client.post("/webhooks/55/b", json={})).status_code == 204
        clock.advance(0.5)
        assert (await client.post("/webhooks/55/a", json={"content": "x"})).status_code == 204


async def test_oauth2_refuses_a_bots_token_by_design(clock: ManualClock) -> None:
    fake = FakeDiscord(token="right", clock=clock)
    async with client_of(fake, "right") as client, client_of(fake, None) as stranger:
        assert (await client.get("/oauth2/@me")).status_code == 401
        assert (await stranger.post("/oauth2/token", data={"client_secret": "wrong"})).status_code == 401
        assert (await client.get("/users/@me")).status_code == 200, "which says nothing about the token"


async def test_one_bucket_may_stand_behind_many_resources(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: FakeBucket("5/1s", window="fixed", per=())}, clock=clock)
    async with client_of(fake) as client:
        answers = [await client.post(f"/channels/{number}/messages", json={}) for number in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 15
    assert len({limits(answer)["bucket"] for answer in answers}) == 1


async def test_a_bucket_may_count_by_address(clock: ManualClock) -> None:
    fake = FakeDiscord({"GET /users/@me": FakeBucket("2/1s", by="address")}, clock=clock)
    statuses = []
    for token, address in [("a", "10.0.0.1"), ("b", "10.0.0.1"), ("c", "10.0.0.1"), ("a", "10.0.0.2")]:
        async with client_of(fake, token, address) as client:
            statuses.append((await client.get("/users/@me")).status_code)
    assert statuses == [200, 200, 429, 200]


async def test_two_routes_may_show_one_hash_and_have_limits_of_their_own(clock: ManualClock) -> None:
    buckets = {MESSAGES: FakeBucket("1/1s", hash="abc"), "GET " + MESSAGE: FakeBucket("2/1s", hash="abc", own=True)}
    fake = FakeDiscord(buckets, clock=clock)
    async with client_of(fake) as client:
        answers = [await client.post(SEND, json={}), *[await client.get(f"{SEND}/5") for _ in range(3)]]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert {limits(answer)["bucket"] for answer in answers} == {"abc"}
    with pytest.raises(ValueError, match="own=True"):
        FakeDiscord({MESSAGES: FakeBucket("1/1s", hash="abc"), "GET " + MESSAGE: FakeBucket("2/1s", hash="abc")})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": "user"}, "not 'user'"),
        ({"older_than": -1}, "older_than=2.5, not -1"),
        ({"older_than": "1h"}, "not '1h'"),
        ({"code": "30046"}, "code=30046, not '30046'"),
        ({"gone": 1}, "gone=True, False or None, not 1"),
        ({"own": "yes"}, "own=True or False, not 'yes'"),
    ],
)
def test_a_mood_of_a_bucket_that_makes_no_sense_is_refused(options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FakeBucket("5/5s", **options)


def test_an_early_follow_up_takes_seconds() -> None:
    with pytest.raises(ValueError, match=r"follow_up_after=2\.5, not -1"):
        FakeDiscord(follow_up_after=-1)
    with pytest.raises(ValueError, match=r'"before" or "after" .*, not \'within\''):
        FakeDiscord().fail(503, when="within")  # type: ignore[arg-type]
