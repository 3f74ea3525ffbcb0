"""FakeDiscord counts, refuses and says so as Discord does: its headers, its bodies, its buckets, its global limit."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from starlette.types import Message

from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock
from tests.support.fake_discord import MESSAGES, SEND, client_of, limits, until

pytestmark = pytest.mark.anyio

REACTION = "/channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"
BUCKET = {"limit", "remaining", "reset", "reset-after", "bucket"}
START = 1_700_000_000.0


async def test_a_success_names_its_bucket_in_discords_form(clock: ManualClock) -> None:
    async with client_of(FakeDiscord({MESSAGES: "5/2s"}, clock=clock)) as client:
        headers = limits(await client.post(SEND, json={}))
    assert set(headers) == BUCKET
    assert (headers["limit"], headers["remaining"], headers["reset-after"]) == ("5", "4", "0.400")
    assert headers["reset"] == f"{START + 0.4:.3f}"
    assert re.fullmatch("[0-9a-f]{32}", headers["bucket"])


async def test_a_refusal_is_one_that_real_clients_obey(clock: ManualClock) -> None:
    async with client_of(FakeDiscord({MESSAGES: "2/129.14s"}, clock=clock)) as client:
        for _ in range(3):
            response = await client.post(SEND, json={})
    assert response.status_code == 429
    assert response.headers["via"] == "1.1 google"
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}
    headers = limits(response)
    assert set(headers) == BUCKET | {"scope", "retry-after"}
    assert (headers["retry-after"], headers["remaining"], headers["scope"]) == ("65", "0", "user")


async def test_a_sliding_bucket_gets_one_back_at_a_time_and_a_fixed_one_all_at_once(clock: ManualClock) -> None:
    fixed = FakeBucket("4/2s", window="fixed")
    fake = FakeDiscord({MESSAGES: "4/2s", "GET /channels/{channel_id}": fixed}, clock=clock)
    async with client_of(fake) as client:
        for _ in range(5):
            sliding = await client.post(SEND, json={})
            window = await client.get("/channels/1001")
        assert (limits(sliding)["reset-after"], sliding.json()["retry_after"]) == ("2.000", 0.5)
        assert (limits(window)["reset-after"], window.json()["retry_after"]) == ("2.000", 2.0)
        clock.advance(0.5)
        assert [(await client.post(SEND, json={})).status_code for _ in range(2)] == [200, 429]
        assert (await client.get("/channels/1001")).status_code == 429
        clock.advance(1.5)
        assert [(await client.get("/channels/1001")).status_code for _ in range(5)] == [200] * 4 + [429]


async def test_each_top_level_resource_and_each_token_has_its_own_bucket(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/s", "POST /webhooks/{webhook_id}/{webhook_token}": "1/s"}, clock=clock)
    async with client_of(fake) as client, client_of(fake, "other") as other:
        paths = (SEND, "/channels/1002/messages", "/webhooks/1/a", "/webhooks/1/b", "/webhooks/2/a")
        first = [await client.post(path, json={}) for path in paths]
        assert all(response.is_success for response in [*first, await other.post(SEND, json={})])
        assert (await client.post(SEND, json={})).status_code == 429
        assert limits(first[0])["bucket"] == limits(first[1])["bucket"], "the hash does not name the resource"


async def test_the_parameters_that_split_a_bucket_can_be_chosen(clock: ManualClock) -> None:
    per_bot = FakeBucket("1/s", per=())
    per_person = FakeBucket("1/s", per=("guild_id", "user_id"))
    fake = FakeDiscord({MESSAGES: per_bot, "PUT /guilds/{guild_id}/bans/{user_id}": per_person}, clock=clock)
    async with client_of(fake) as client:
        sent = [await client.post(f"/channels/{number}/messages", json={}) for number in (1, 2)]
        banned = [await client.put(f"/guilds/1/bans/{number}") for number in (1, 2, 1)]
    assert [response.status_code for response in sent] == [200, 429]
    assert [response.status_code for response in banned] == [204, 204, 429]


async def test_routes_of_one_hash_share_a_bucket(clock: ManualClock) -> None:
    bucket = FakeBucket("1/250ms", window="fixed", hash="abc")
    fake = FakeDiscord({f"PUT {REACTION}": bucket, f"DELETE {REACTION}": bucket}, clock=clock)
    async with client_of(fake) as client:
        path = f"{SEND}/5/reactions/👍/@me"
        answers = [await client.put(path), await client.delete(path)]
    assert [answer.status_code for answer in answers] == [204, 429]
    assert {limits(answer)["bucket"] for answer in answers} == {"abc"}
    assert [seen.route for seen in fake.requests] == [f"PUT {REACTION}", f"DELETE {REACTION}"]


async def test_a_route_that_is_written_out_goes_before_one_with_a_parameter(clock: ManualClock) -> None:
    fake = FakeDiscord({"GET /users/{user_id}": "5/s", "GET /users/@me": "7/s"}, clock=clock)
    async with client_of(fake) as client:
        capacities = [limits(await client.get(f"/users/{user}"))["limit"] for user in ("@me", "1001")]
    assert capacities == ["7", "5"]


async def test_a_hidden_bucket_shows_itself_in_its_refusals_only(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: ["9/s", FakeBucket("1/s", hidden=True, hash="h")]}, clock=clock)
    alone = FakeDiscord({MESSAGES: FakeBucket("1/s", hidden=True)}, clock=clock)
    async with client_of(fake) as client, client_of(alone) as other:
        first, second = [limits(await client.post(SEND, json={})) for _ in range(2)]
        assert (first["limit"], first["remaining"]) == ("9", "8")
        assert (second["limit"], second["remaining"], second["bucket"]) == ("1", "0", "h")
        assert first["bucket"] != "h"
        assert [set(limits(await other.post(SEND, json={}))) for _ in range(2)] == [
            set(),
            BUCKET | {"scope", "retry-after"},
        ]


async def test_a_sub_limit_refuses_in_the_name_of_the_outer_bucket_and_charges_nothing(clock: ManualClock) -> None:
    renames = FakeBucket("2/10m", window="fixed", only_if=lambda body: "name" in body)
    fake = FakeDiscord({"PATCH /channels/{channel_id}": [renames, FakeBucket("5/h", hash="outer")]}, clock=clock)
    async with client_of(fake) as client:
        answers = [await client.patch("/channels/1001", json={"name": "x"}) for _ in range(3)]
        headers = limits(answers[2])
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (headers["bucket"], headers["limit"], headers["remaining"], headers["scope"]) == (
            "outer",
            "5",
            "3",
            "user",
        )
        assert (headers["retry-after"], answers[2].json()["retry_after"]) == ("600", 600.0)
        others = [await client.patch("/channels/1001", json={"nsfw": True}) for _ in range(4)]
        assert [answer.status_code for answer in others] == [200, 200, 200, 429]


async def test_a_shared_limit_is_everybodys_and_its_headers_are_no_guide(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: FakeBucket("3/9s", scope="shared")}, clock=clock)
    both = FakeDiscord({MESSAGES: ["5/s", FakeBucket("1/9s", scope="shared")]}, clock=clock, invalid_limit=1)
    async with client_of(fake, "a") as one, client_of(fake, "b") as other, client_of(both) as client:
        for _ in range(3):
            await one.post(SEND, json={})
        clock.advance(1)
        refusal = await other.post(SEND, json={})
        assert refusal.json() == {"message": "The resource is being rate limited.", "retry_after": 2.0, "global": False}
        assert (limits(refusal)["scope"], limits(refusal)["remaining"], limits(refusal)["reset-after"]) == (
            "shared",
            "2",
            "3.000",
        )
        answers = [await client.post(SEND, json={}) for _ in range(4)]
        assert [limits(answer)["remaining"] for answer in answers] == ["4"] * 4, "refusals charge nothing"
        assert all("via" in answer.headers for answer in answers), "and are no invalid requests"


async def test_a_global_refusal_names_no_bucket(clock: ManualClock) -> None:
    clock.advance(0.25)
    fake = FakeDiscord({MESSAGES: "5/s"}, global_limit=1, clock=clock)
    async with client_of(fake) as client, client_of(fake, "other") as other:
        await client.get("/users/@me")
        refusal = await client.post(SEND, json={})
        assert (await other.post(SEND, json={})).status_code == 200, "it is one token's"
    assert limits(refusal) == {"global": "true", "scope": "global", "retry-after": "1"}
    assert refusal.json() == {"message": "You are being rate limited.", "retry_after": 0.75, "global": True}
    assert refusal.headers["via"]
    assert refusal.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("window", "statuses"),
    [
        ("calendar", [200] * 4 + [429]),  # 2 late in one second, 2 early in the next
        ("fixed", [200, 200, 429, 429, 429]),
        ("sliding", [200, 200, 429, 429, 429]),
    ],
)
async def test_the_global_limit_counts_in_the_chosen_window(
    clock: ManualClock, window: Any, statuses: list[int]
) -> None:
    clock.advance(0.9)
    async with client_of(FakeDiscord(global_limit=2, global_window=window, clock=clock)) as client:
        early = [(await client.get("/users/@me")).status_code for _ in range(2)]
        clock.advance(0.1)
        late = [(await client.get("/users/@me")).status_code for _ in range(3)]
        assert early + late == statuses
        clock.advance(1.0)
        assert (await client.get("/users/@me")).status_code == 200


async def test_interactions_are_outside_the_global_limit(clock: ManualClock) -> None:
    fake = FakeDiscord(global_limit=1, application_id=42, clock=clock)
    async with client_of(fake) as client:
        await client.get("/users/@me")
        assert (await client.get("/users/@me")).status_code == 429
        assert (await client.post("/interactions/7/token/callback", json={"type": 4})).status_code == 204
        assert (await client.patch("/webhooks/42/token/messages/@original", json={})).status_code == 200
        assert (await client.post("/webhooks/43/token", json={})).status_code == 429


async def test_a_bucket_that_refuses_is_still_counted_globally(clock: ManualClock) -> None:
    async with client_of(FakeDiscord({MESSAGES: "1/s"}, global_limit=3, clock=clock)) as client:
        scopes = [limits(await client.post(SEND, json={})).get("scope") for _ in range(4)]
    assert scopes == [None, "user", "user", "global"]


async def test_the_wall_clock_may_be_wrong_though_the_waits_are_right(clock: ManualClock) -> None:
    async with client_of(FakeDiscord({MESSAGES: "5/5s"}, wall_skew=30.0, clock=clock)) as client:
        response = await client.post(SEND, json={})
    assert limits(response)["reset"] == f"{START + 31:.3f}"
    assert limits(response)["reset-after"] == "1.000"
    assert parsedate_to_datetime(response.headers["date"]).timestamp() == START + 30


async def test_half_of_the_latency_passes_before_a_request_is_counted_and_half_after(clock: ManualClock) -> None:
    delays = [1.0, 2.0]
    fake = FakeDiscord({MESSAGES: "5/s"}, latency=delays.pop, clock=clock)
    finished = []
    async with client_of(fake) as client, asyncio.TaskGroup() as tasks:

        async def post(name: str) -> None:
            await client.post(SEND, json={"content": name})
            finished.append(name)

        for name in ("slow", "fast"):
            tasks.create_task(post(name))
        await until(lambda: not delays)
        clock.advance(0.5)
        await until(lambda: len(fake.requests) == 1)
        assert not finished
        clock.advance(0.5)
        await until(lambda: len(fake.requests) == 2 and finished == ["fast"])
        clock.advance(1.0)
    assert [(seen.json["content"], seen.at - START) for seen in fake.requests] == [("fast", 0.5), ("slow", 1.0)]
    assert finished == ["fast", "slow"]


async def test_a_range_of_latencies_is_the_same_for_the_same_seed() -> None:
    drawn = [[FakeDiscord(latency=(0.1, 0.2), seed=seed)._latency() for _ in range(5)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0.1 <= seconds <= 0.2 for seconds in drawn[0])


async def test_a_wrong_token_is_refused_and_paths_with_a_token_need_none(clock: ManualClock) -> None:
    fake = FakeDiscord(token="test", clock=clock)
    async with client_of(fake) as right, client_of(fake, "wrong") as wrong, client_of(fake, None) as anonymous:
        assert (await right.get("/users/@me")).status_code == 200
        for client in (wrong, anonymous):
            answer = await client.get("/users/@me")
            assert (answer.status_code, answer.json()) == (401, {"message": "401: Unauthorized", "code": 0})
        assert (await anonymous.post("/webhooks/5/token", json={})).status_code == 204
        assert (await anonymous.get("/gateway")).status_code == 200


async def test_too_many_invalid_requests_of_an_address_end_in_a_ban_by_cloudflare(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/s"}, token="test", invalid_limit=3, clock=clock)
    async with (
        client_of(fake) as client,
        client_of(fake, "wrong") as wrong,
        client_of(fake, address="10.0.0.9") as elsewhere,
    ):
        await wrong.get("/users/@me")
        for _ in range(3):
            refusal = await client.post(SEND, json={})
        assert "via" in refusal.headers
        clock.advance(60)
        ban = await client.get("/users/@me")
        assert (ban.status_code, ban.headers["retry-after"]) == (429, "540")
        assert "via" not in ban.headers
        assert (await elsewhere.get("/users/@me")).status_code == 200
        clock.advance(540)
        assert (await client.get("/users/@me")).status_code == 200


async def test_ten_thousand_requests_take_well_under_ten_seconds_of_the_processor() -> None:
    fake = FakeDiscord({MESSAGES: "10000/h"}, global_limit=None, record=False)
    scope = {"type": "http", "method": "POST", "path": SEND, "headers": [(b"authorization", b"Bot test")]}

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"content": "hello"}'}

    async def send(message: Message) -> None:
        pass

    began = time.process_time()
    for _ in range(10_000):
        await fake(scope, receive, send)
    assert (fake.count(200), fake.created, fake.requests, fake.messages) == (10_000, 10_000, [], [])
    assert time.process_time() - began < 10


async def test_every_request_is_recorded(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: FakeBucket("1/s", hash="abc")}, clock=clock)
    async with client_of(fake) as client:
        for number in range(2):
            await client.post(f"{SEND}?a=b", json={"content": str(number)}, headers={"X-Audit-Log-Reason": "why"})
        await client.get("/somewhere/123456/else")
    first, second, third = fake.requests
    assert (first.method, first.path, first.query, first.route) == ("POST", SEND, "a=b", MESSAGES)
    assert (first.status, first.bucket, first.at, first.client) == (200, "abc", START, "127.0.0.1")
    assert (first.headers["x-audit-log-reason"], json.loads(first.body), first.json) == (
        "why",
        {"content": "0"},
        {"content": "0"},
    )
    assert (second.status, second.scope, second.answer["retry-after"]) == (429, "user", "1")
    assert (third.route, third.bucket, third.scope) == ("GET /somewhere/{id}/else", None, None)
    assert fake.refused == [second]
    assert (fake.count(), fake.count(200), fake.count(429), fake.count(503)) == (3, 2, 1, 0)
    assert Counter(seen.status for seen in fake.requests) == {200: 2, 429: 1}
    fake.reset_record()
    assert (fake.requests, fake.refused, fake.messages, fake.created, fake.count()) == ([], [], [], 0, 0)
    async with client_of(fake) as client:
        assert (await client.post(SEND, json={})).status_code == 429, "what is used of the limits stays used"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limits": {"/channels": "5/s"}}, "POST /channels/{channel_id}/messages"),
        ({"limits": {MESSAGES: "five"}}, "5/5s"),
        ({"limits": {MESSAGES: []}}, "5/5s"),
        ({"limits": {MESSAGES: 5}}, "5/5s"),
        ({"limits": [MESSAGES]}, "5/5s"),
        ({"limits": {MESSAGES: FakeBucket("1/s", per=("guild_id",))}}, "channel_id"),
        ({"limits": {"GET /a": FakeBucket("1/s", hash="h"), "GET /b": FakeBucket("2/s", hash="h")}}, "same limit"),
        ({"global_limit": 0}, "50"),
        ({"global_window": "minute"}, '"calendar"'),
        ({"invalid_limit": 0}, "10_000"),
        ({"latency": -1}, "latency=2.5"),
        ({"latency": (3, 2)}, r"\(0.02, 0.06\)"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_with_a_right_one(options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FakeDiscord(**options)


@pytest.mark.parametrize(
    "options",
    [{"window": "calendar"}, {"scope": "global"}, {"hash": ""}, {"per": "channel_id"}, {"only_if": "name"}],
)
async def test_a_bucket_that_makes_no_sense_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="not "):
        FakeBucket("1/s", **options)
