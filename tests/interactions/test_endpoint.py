"""The interactions endpoint as Discord sees it: validation first, then a limit for whoever is asking."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import BUILDS, MOUNTED, as_dependency, limited, reached, refusals, with_limit
from tests.support.signing import PING, PONG, URL, Discord, command, content, encoded, now, signature_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BUILDS, ids=lambda build: build.__name__)
def any_discord(request: pytest.FixtureRequest, store: MemoryStore, clock: ManualClock) -> Discord:
    """An app of each kind, with 2 per 10 s for each user."""
    return Discord(request.param(limited(store)), clock, url=f"{URL}/" if request.param in MOUNTED else URL)


@pytest.fixture
def discord(store: MemoryStore, clock: ManualClock) -> Discord:
    return Discord(as_dependency(limited(store)), clock)


# Validation, in every place where it may stand


async def test_a_ping_is_answered_with_pong_and_never_limited(any_discord: Discord) -> None:
    answers = [await any_discord.post(PING) for _ in range(20)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, PONG)] * 20
    assert answers[0].headers["content-type"] == "application/json"


EVENT = {"version": 1, "application_id": "5", "type": 1, "event": {"type": "ENTITLEMENT_CREATE", "data": {"id": "9"}}}


async def test_a_webhook_event_reaches_the_endpoint_verified_and_unlimited(any_discord: Discord) -> None:
    answers = [await any_discord.post({**EVENT, "id": str(number)}) for number in range(20)]
    assert all(reached(answer) for answer in answers)
    assert (await any_discord.post(EVENT, forged=True)).status_code == 401
    assert (await any_discord.post(EVENT, late=301.0)).status_code == 401


async def test_the_ping_of_webhook_events_gets_204_without_a_body(any_discord: Discord) -> None:
    answers = [await any_discord.post({"version": 1, "application_id": "5", "type": 0}) for _ in range(20)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 20
    assert answers[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("interaction", [PING, command("7")], ids=["ping", "command"])
async def test_a_bad_signature_is_401(any_discord: Discord, interaction: dict[str, Any]) -> None:
    assert (await any_discord.post(interaction, forged=True)).status_code == 401


async def test_a_request_without_a_signature_is_401(any_discord: Discord) -> None:
    assert (await any_discord.send(encoded(PING), {})).status_code == 401


@pytest.mark.parametrize("late", [301.0, -301.0])
async def test_a_stale_timestamp_is_401(any_discord: Discord, late: float) -> None:
    assert (await any_discord.post(PING, late=late)).status_code == 401
    assert (await any_discord.post(command(), late=late)).status_code == 401


async def test_the_tolerance_itself_is_not_stale(any_discord: Discord) -> None:
    assert reached(await any_discord.post(command("1"), late=300))
    assert reached(await any_discord.post(command("2"), late=-300))


async def test_a_replay_is_401_and_costs_nothing(any_discord: Discord, clock: ManualClock) -> None:
    body = encoded(command())
    headers = signature_of(body, now(clock))
    assert reached(await any_discord.send(body, headers))
    shouted = {name: value.upper() for name, value in headers.items()}
    assert {(await any_discord.send(body, each)).status_code for each in (headers, shouted) * 3} == {401}
    assert reached(await any_discord.post(command()))


async def test_a_replay_is_401_for_as_long_as_its_timestamp_is_good(discord: Discord, clock: ManualClock) -> None:
    body = encoded(command())
    headers = signature_of(body, now(clock) + 300)
    assert reached(await discord.send(body, headers))
    for _ in range(6):
        clock.advance(100)
        await discord.post(command())
        answer = await discord.send(body, headers)
        assert answer.status_code == 401
        assert "been here" in answer.text
    clock.advance(1)
    assert "stale" in (await discord.send(body, headers)).text


async def test_a_limited_user_reads_when_to_come_again(any_discord: Discord, clock: ManualClock) -> None:
    clock.advance(0.3)
    assert [reached(await any_discord.post(command())) for _ in range(2)] == [True, True]
    clock.advance(0.4)
    refused = await any_discord.post(command())
    assert f"<t:{now(clock) + 6}:R>" in content(refused)  # 5.3 s, rounded up
    assert reached(await any_discord.post(command("2")))
    clock.advance(4.6)
    assert reached(await any_discord.post(command()))


async def test_a_forged_body_cannot_spend_another_users_quota(any_discord: Discord, clock: ManualClock) -> None:
    for _ in range(10):
        assert (await any_discord.post(command("1"), forged=True)).status_code == 401
    assert [reached(await any_discord.post(command("1"))) for _ in range(3)] == [True, True, False]


# Whose bucket it is

DM = {"member": None, "guild_id": None, "user": {"id": "1"}}


async def test_a_user_is_the_same_in_a_guild_and_in_a_direct_message(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock)
    assert await refusals(discord, command("1"), command("1", **DM), command("2")) == [False, True, False]


async def test_a_guild_shares_and_a_direct_message_counts_for_its_user(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, key="guild")
    asked = [command("1"), command("2"), command("1", **DM), command("1", **DM), command("1", guild_id="8")]
    assert await refusals(discord, *asked) == [False, True, False, True, False]
    assert await refusals(discord, command(**{**DM, "user": {"id": "2"}})) == [False]


async def test_a_command_counts_for_each_user(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, key="command")
    others = [command("1", data={"name": "stop"}), *(command("1", data={"custom_id": x}, type=3) for x in ("a", "b"))]
    asked = [command("1"), *others, command("2")]
    assert await refusals(discord, *asked) == [False] * 5
    assert await refusals(discord, *({**each, "id": "0"} for each in asked)) == [True] * 5


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, ["page:37", "page:38", "page"]),
        ({"component": "|"}, ["page|1:2", "page|3:4"]),
        ({"component": lambda custom_id: custom_id[:4]}, ["page-1", "page-2"]),
    ],
    ids=["colon", "separator", "function"],
)
async def test_custom_ids_with_state_are_one_component(
    store: MemoryStore, clock: ManualClock, options: dict[str, Any], ids: list[str]
) -> None:
    discord = with_limit(store, clock, key="command", **options)
    asked = [command("1", data={"custom_id": each}, type=3) for each in [*ids, "stop"]]
    assert await refusals(discord, *asked) == [False, *[True] * (len(ids) - 1), False]


async def test_a_custom_id_that_begins_with_the_separator_is_a_component_of_its_own(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = with_limit(store, clock, key="command")
    asked = [command("1", data={"custom_id": each}, type=3) for each in (":1", ":2", ":1")]
    assert await refusals(discord, *asked) == [False, False, True]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_says_who_is_asking(store: MemoryStore, clock: ManualClock, is_async: bool) -> None:
    def channel(interaction: dict[str, Any]) -> str:
        return str(interaction["channel_id"])

    async def slowly(interaction: dict[str, Any]) -> str:
        return channel(interaction)

    discord = with_limit(store, clock, key=slowly if is_async else channel)
    asked = [command("1", channel_id="5"), command("2", channel_id="5"), command("1", channel_id="6")]
    assert await refusals(discord, *asked) == [False, True, False]
