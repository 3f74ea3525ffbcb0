"""A scripted run of a Discord client in the metrics: each answer, wait, 429, stop, ban and retry, once."""

from __future__ import annotations

import httpx
import pytest

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock
from tests.discord.test_event_log import Answers, ban, refusal
from tests.observe.scrapes import Scraped
from tests.support.clients import bot_of, passing

pytestmark = pytest.mark.anyio

ROUTE = "GET /channels/{channel_id}"
RUN = (refusal(2.5), httpx.Response(502), refusal(3, scope="global"), refusal(1, scope="shared"), ban(600))


async def test_the_metrics_are_those_of_the_run(clock: ManualClock) -> None:
    scraped = Scraped()
    async with bot_of(Answers(*RUN), clock, store=MemoryStore(clock=clock, observers=[scraped.observer])) as discord:
        await passing(clock, discord.get("/channels/1234567890"), step=1)
    changed = scraped.changed()
    assert numbers(changed["discord_requests_total"], "status") == {"429": 4, "502": 1, "200": 1}
    assert {labels["route"] for labels, _ in changed["discord_requests_total"]} == {ROUTE}
    assert numbers(changed["discord_refused_total"], "scope") == dict.fromkeys(
        ("user", "global", "shared", "cloudflare"), 1
    )
    assert changed["discord_invalid_requests_total"] == [({}, 2.0)]  # neither the shared one nor the ban
    assert numbers(changed["discord_retries_total"], "status") == {"502": 1}
    assert numbers(changed["discord_stops_total"], "cause") == {"stopped": 1, "banned": 1}
    assert scraped.value("discord_wait_seconds_count", cause="stopped") == 1.0
    assert scraped.value("discord_wait_seconds_sum", cause="banned") == pytest.approx(600, abs=2)
    assert "1234567890" not in scraped.text
    assert "ratelimit_decisions_total" not in changed


async def test_a_token_that_is_dead_is_counted(clock: ManualClock) -> None:
    scraped = Scraped()
    store = MemoryStore(clock=clock, observers=[scraped.observer])
    async with bot_of(lambda request: httpx.Response(401, json={}), clock, store=store) as discord:
        await passing(clock, discord.get("/channels/1"))
    assert scraped.value("discord_rejected_total", credential="token") == 1.0
    assert scraped.value("discord_invalid_requests_total") == sum(
        value for _, value in scraped.changed()["discord_requests_total"]
    )


def numbers(samples: list[tuple[dict[str, str], float]], label: str) -> dict[str, float]:
    return {labels[label]: value for labels, value in samples}
