"""The faults of a FakeDiscord: stop it, break it, hold its answers, change its buckets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock
from tests.real_clients.discord_api import served
from tests.support.fake_discord import MESSAGES, SECONDS, SEND, client_of, limits, until

pytestmark = pytest.mark.anyio

CHANNEL = "GET /channels/{channel_id}"


@pytest.fixture
def fake(clock: ManualClock) -> FakeDiscord:
    return FakeDiscord({MESSAGES: "5/5s", CHANNEL: FakeBucket("3/3s", hash="other")}, clock=clock)


async def test_it_stops_globally_for_the_ordered_time(fake: FakeDiscord, clock: ManualClock) -> None:
    async with client_of(fake) as client:
        fake.stop(3.5)
        refusal = await client.post(SEND, json={})
        assert limits(refusal) == {"global": "true", "scope": "global", "retry-after": "4"}
        assert refusal.json()["retry_after"] == 3.5
        assert (await client.post("/interactions/7/token/callback", json={})).status_code == 204
        clock.advance(3.499999)
        assert (await client.post(SEND, json={})).status_code == 429
        clock.advance(0.000001)
        assert limits(await client.post(SEND, json={}))["remaining"] == "4", "what it refused it did not charge"
        fake.stop(60)
        fake.stop(0)
        assert (await client.post(SEND, json={})).status_code == 200


async def test_a_ban_is_cloudflares_word_and_not_the_apis(fake: FakeDiscord, clock: ManualClock) -> None:
    async with client_of(fake) as client:
        fake.ban(30)
        ban = await client.post("/interactions/7/token/callback", json={})
        assert (ban.status_code, limits(ban)) == (429, {"retry-after": "30"})
        assert "via" not in ban.headers
        assert ban.headers["content-type"].startswith("text/html")
        assert "error code: 1015" in ban.text
        clock.advance(30)
        assert (await client.post(SEND, json={})).status_code == 200
    assert [seen.scope for seen in fake.refused] == [None]


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_failure_loses_the_answer_and_afterwards_the_message_is_there(
    fake: FakeDiscord, when: Any, created: int
) -> None:
    async with client_of(fake) as client:
        fake.fail(502, when=when)
        failed = await client.post(SEND, json={"content": "once", "nonce": "n", "enforce_nonce": True})
        assert (failed.status_code, fake.created, limits(failed)) == (502, created, {})
        retried = await client.post(SEND, json={"content": "once", "nonce": "n", "enforce_nonce": True})
        assert retried.status_code == 200
        assert [message["content"] for message in fake.messages] == ["once"]
        assert limits(retried)["remaining"] == ("4" if when == "before" else "3")


async def test_failures_are_as_many_as_ordered_of_the_route_that_was_named(fake: FakeDiscord) -> None:
    fake.fail(503, times=2, html=True, route=CHANNEL)
    fake.fail(403, route="DELETE /guilds/{guild_id}")
    async with client_of(fake) as client:
        assert (await client.post(SEND, json={})).status_code == 200
        answers = [await client.get("/channels/1001") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert (answers[0].headers["content-type"], answers[0].text[:9]) == ("text/html; charset=UTF-8", "<!DOCTYPE")
        refused = await client.delete("/guilds/1")
        assert (refused.status_code, refused.json()) == (403, {"message": "403: Forbidden", "code": 0})
        assert (await client.delete("/guilds/1")).status_code == 204


async def test_a_request_that_a_limit_refuses_does_not_use_up_a_later_failure(fake: FakeDiscord) -> None:
    fake.refuse(MESSAGES, 1.0)
    fake.fail(500, when="after")
    async with client_of(fake) as client:
        assert [(await client.post(SEND, json={})).status_code for _ in range(3)] == [429, 500, 200]


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_dropped_connection_raises_without_a_network(fake: FakeDiscord, when: Any, created: int) -> None:
    fake.drop(when=when)
    async with client_of(fake) as client:
        with pytest.raises(ConnectionResetError):
            await client.post(SEND, json={})
        assert (fake.count(0), fake.created) == (1, created)
        assert (await client.post(SEND, json={})).status_code == 200


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_dropped_connection_is_a_reset_under_uvicorn(when: Any) -> None:
    fake = FakeDiscord({MESSAGES: "5/5s"})
    fake.drop(times=2, when=when)
    with served(fake) as address:
        async with httpx.AsyncClient(base_url=f"{address}/api/v10", headers={"Authorization": "Bot test"}) as client:
            for _ in range(2):
                with pytest.raises(httpx.ReadError):
                    await client.post(SEND, json={})
            assert (await client.post(SEND, json={})).status_code == 200
    assert fake.count(0) == 2


async def test_an_ordered_refusal_comes_once_with_the_ordered_values(fake: FakeDiscord) -> None:
    async with client_of(fake) as client:
        fake.refuse(MESSAGES, 7.2)
        assert (await client.get("/channels/1001")).status_code == 200
        refusal = await client.post(SEND, json={})
        headers = limits(refusal)
        assert (refusal.status_code, refusal.json()["retry_after"]) == (429, 7.2)
        assert (headers["limit"], headers["remaining"], headers["reset-after"]) == ("5", "0", "7.200")
        assert (headers["retry-after"], headers["scope"]) == ("8", "user")
        after = limits(await client.post(SEND, json={}))
        assert (after["remaining"], after["bucket"]) == ("4", headers["bucket"])


async def test_an_ordered_refusal_may_be_shared_or_global_or_name_another_bucket(fake: FakeDiscord) -> None:
    async with client_of(fake) as client:
        fake.refuse(MESSAGES, 7.2, scope="shared")
        shared = await client.post(SEND, json={})
        assert shared.json()["message"] == "The resource is being rate limited."
        assert (limits(shared)["scope"], limits(shared)["remaining"], limits(shared)["reset-after"]) == (
            "shared",
            "4",
            "1.000",
        )
        fake.refuse(None, 7.2, scope="global")
        assert limits(await client.get("/anything")) == {"global": "true", "scope": "global", "retry-after": "8"}
        fake.refuse("GET /anything", 1, bucket="abc", remaining=3, times=2)
        for _ in range(2):
            assert limits(await client.get("/anything"))["bucket"] == "abc"
        assert fake.refused[-1].bucket == "abc"
        assert (fake.refused[-1].answer["x-ratelimit-remaining"], limits(await client.get("/anything"))) == ("3", {})


async def test_answers_are_held_until_they_are_released_in_another_order(fake: FakeDiscord) -> None:
    finished: list[int] = []

    async def post(number: int) -> None:
        await client.post(SEND, json={"content": str(number)})
        finished.append(number)

    async with client_of(fake) as client, asyncio.TaskGroup() as tasks:
        with fake.hold(order="reverse"):
            for number in range(4):
                tasks.create_task(post(number))
                await until(lambda: fake.held == len(fake.requests) == len(tasks._tasks))
            assert (fake.created, finished) == (4, [])
            fake.release(1, order="arrival")
            await until(lambda: finished)
            assert (finished, fake.held) == ([0], 3)
    assert finished == [0, 3, 2, 1]


async def test_answers_can_be_held_without_a_block(fake: FakeDiscord) -> None:
    async with asyncio.timeout(SECONDS), client_of(fake) as client, asyncio.TaskGroup() as tasks:
        fake.hold()
        posting = tasks.create_task(client.post(SEND, json={}))
        await until(lambda: fake.held)
        fake.release()
        assert (await posting).status_code == 200
        assert (await client.post(SEND, json={})).status_code == 200, "and are held no more"


async def test_a_new_hash_keeps_the_used_calls_unless_it_is_another_bucket(
    fake: FakeDiscord, clock: ManualClock
) -> None:
    async with client_of(fake) as client:
        await client.post(SEND, json={})
        fake.change_hash(MESSAGES, "new")
        headers = limits(await client.post(SEND, json={}))
        assert (headers["bucket"], headers["remaining"]) == ("new", "3")
        fake.change_hash(CHANNEL, "new")
        headers = limits(await client.get("/channels/1001"))
        assert (headers["bucket"], headers["limit"], headers["remaining"]) == ("new", "5", "2")
        fake.change_hash(CHANNEL, "alone")
        headers = limits(await client.get("/channels/1001"))
        assert (headers["bucket"], headers["limit"], headers["remaining"]) == ("alone", "3", "2")


async def test_a_message_with_a_nonce_is_not_created_twice_for_some_minutes(
    fake: FakeDiscord, clock: ManualClock
) -> None:
    async with client_of(fake, "a") as client, client_of(fake, "b") as other:
        body = {"content": "x", "nonce": "n", "enforce_nonce": True}
        ids = [(await asker.post(SEND, json=body)).json()["id"] for asker in (client, client, other)]
        assert ids[0] == ids[1] != ids[2]
        assert fake.created == 2
        for more in ({"nonce": "other"}, {"enforce_nonce": False}, {"enforce_nonce": False}):
            await client.post(SEND, json=body | more)
        assert fake.created == 5
        clock.advance(300)
        assert (await client.post(SEND, json=body)).json()["id"] != ids[0]
    assert len({message["id"] for message in fake.messages}) == fake.created == 6


async def test_a_message_sent_with_a_file_is_read_too(fake: FakeDiscord) -> None:
    async with client_of(fake) as client:
        files = {"files[0]": ("a.bin", b"\r\n--\x00\xff")}
        await client.post(SEND, data={"payload_json": '{"content": "with a file"}'}, files=files)
        await client.post(SEND, content=b"{not json")
    assert [message["content"] for message in fake.messages] == ["with a file", ""]


async def test_a_webhook_works_until_it_is_killed_or_deleted(fake: FakeDiscord) -> None:
    async with client_of(fake) as client:
        made = (await client.post("/channels/1001/webhooks", json={"name": "x"})).json()
        path = f"/webhooks/{made['id']}/{made['token']}"
        assert fake.webhooks == {made["id"]: made["token"]}
        assert (await client.post(path, json={"content": "x"})).status_code == 204
        assert (await client.post(f"{path}?wait=true", json={"content": "y"})).json()["webhook_id"] == made["id"]
        assert [message["content"] for message in fake.messages] == ["x", "y"]
        fake.kill_webhook(made["id"])
        for answer in (await client.post(path, json={}), await client.delete(f"{path}/messages/5")):
            assert (answer.status_code, answer.json()) == (404, {"message": "Unknown Webhook", "code": 10015})
        assert (await client.delete("/webhooks/77/token")).status_code == 204
        assert (await client.post("/webhooks/77/token", json={})).status_code == 404
    assert (fake.webhooks, fake.created) == ({}, 2)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("GET /gateway/bot", 200),
        ("GET /oauth2/applications/@me", 200),
        ("GET /channels/1001/messages", 200),
        ("GET /channels/1001/messages/5", 200),
        ("DELETE /channels/1001/messages/5", 204),
        ("PUT /channels/1001/messages/5/reactions/a:1/@me", 204),
        ("POST /users/@me/channels", 200),
        ("POST /guilds/1001/anything/new", 200),
        ("GET /", 200),
    ],
)
@pytest.mark.parametrize("prefix", ["http://fake", "http://fake/api", "http://fake/proxy/api/v9"])
async def test_every_route_answers_something_below_any_prefix(
    fake: FakeDiscord, path: str, status: int, prefix: str
) -> None:
    method, path = path.split()
    async with client_of(fake) as client:
        answer = await client.request(method, prefix + path)
    assert (answer.status_code, bool(answer.content), fake.requests[0].path) == (status, status == 200, path)


@pytest.mark.parametrize(
    ("order", "arguments", "says"),
    [
        ("fail", (200,), r"fail\(503\)"),
        ("fail", (429,), r"refuse\(\)"),
        ("stop", (-1,), "seconds=2.5"),
        ("ban", ("long",), "seconds=2.5"),
        ("refuse", (MESSAGES, float("nan")), "retry_after=2.5"),
        ("refuse", ("messages", 1.0), "POST /channels"),
        ("change_hash", ("GET /users/@me", "abc"), "a route that has a bucket"),
        ("release", (None,), "arrival"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    fake: FakeDiscord, order: str, arguments: tuple[object, ...], says: str
) -> None:
    fake.order = "backwards"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=says):
        getattr(fake, order)(*arguments)


@pytest.mark.parametrize("options", [{"times": 0}, {"when": "during"}])
async def test_a_fault_that_makes_no_sense_is_refused(fake: FakeDiscord, options: Any) -> None:
    with pytest.raises(ValueError, match=r"times=3|before"):
        fake.drop(**options)
