"""A stage plays a scenario and keeps the score: what was asked, refused, lost and doubled, and how long it took."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from asgi_ratelimit.testing import ManualClock
from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS
from asgi_ratelimit.testing.fake_discord.stage import Stage, scenario_of
from tests.support.fake_discord import SECONDS

pytestmark = pytest.mark.anyio

BASE = "http://fake/api/v10"


def client_on(stage: Stage) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=stage)
    return httpx.AsyncClient(transport=transport, base_url="http://fake", headers={"Authorization": "Bot x"})


async def ask(client: httpx.AsyncClient, call: Mapping[str, Any], clock: ManualClock) -> int:
    """The status of one planned request; its way takes no more than a tenth of a second of the clock."""
    asking = asyncio.create_task(client.request(call["method"], f"{BASE}{call['path']}", json=call.get("json")))
    await passing(clock, asking.done)
    return (await asking).status_code


async def passing(clock: ManualClock, condition: Callable[[], object]) -> None:
    """Let time pass until it holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0)
            clock.advance(0.001)


async def test_whoever_follows_the_plan_loses_nothing(clock: ManualClock) -> None:
    async with client_on(Stage(SCENARIOS["routes"], clock=clock)) as client:
        plan = (await client.get("/_plan")).json()
        assert (plan["scenario"], plan["global_limit"], len(plan["processes"])) == ("routes", 50, 1)
        calls = plan["processes"][0]
        statuses = [await ask(client, call, clock) for call in calls[:6]]
        assert statuses == [200, 204] * 2 + [200, 429]
        clock.advance(1)
        assert [await ask(client, call, clock) for call in calls[5:10]] == [204, 200, 204, 200, 204]
        clock.advance(1)
        assert [await ask(client, call, clock) for call in calls[10:]] == [200, 204]
        result = (await client.get("/_result")).json()
    assert (result["requests"], result["refused"]) == (13, {"user": 1})
    assert (result["lost"], result["doubled"], result["lost_calls"]) == (0, 0, [])
    assert 2.0 < result["makespan"] < 3.0
    assert result["ideal"] == pytest.approx(2.04)


async def test_it_counts_what_is_lost_and_what_is_doubled(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["bucket"], clock=clock)
    async with client_on(stage) as client:
        calls = (await client.get("/_plan")).json()["processes"][0]
        for call in (calls[0], calls[0]):
            assert await ask(client, call, clock) == 200
        result = (await client.get("/_result")).json()
    assert (result["lost"], result["doubled"]) == (8, 1)
    assert result["lost_calls"] == [f"POST {call['json']['content']}" for call in calls[1:]]
    assert not stage.score().is_well


@pytest.mark.parametrize("key", [key for key, scenario in SCENARIOS.items() if not scenario.stop])
async def test_it_knows_every_planned_call_again(clock: ManualClock, key: str) -> None:
    stage = Stage(SCENARIOS[key], clock=clock)
    kinds = {call.verb: call for call in stage.scenario.all_calls()}
    async with client_on(stage) as client:
        for call in kinds.values():
            assert call.identity in stage.score().lost_calls
            await ask(client, call.as_json(), clock)
            assert call.identity not in stage.score().lost_calls
    assert stage.score().doubled == 0


async def test_what_is_gone_already_counts_as_deleted(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["purge"], clock=clock)
    async with client_on(stage) as client:
        statuses = [await ask(client, call.as_json(), clock) for call in stage.scenario.calls[0][:11]]
    assert statuses == [404, 204] * 5 + [429]
    assert (stage.score().lost, stage.score().doubled) == (50, 0)


async def test_a_stop_refuses_callbacks_too(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["callbacks"], clock=clock)
    async with client_on(stage) as client:
        call = stage.scenario.calls[0][0].as_json()
        assert await ask(client, call, clock) == 429
        clock.advance(1.5)
        assert await ask(client, call, clock) == 204
    assert (stage.score().refused, stage.score().lost) == ({"global": 1}, 49)


async def test_a_login_is_a_request_but_no_part_of_the_makespan(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["bucket"], clock=clock)
    async with client_on(stage) as client:
        login = {"method": "GET", "path": "/users/@me"}
        assert await ask(client, login, clock) == 200
        clock.advance(60)
        score = stage.score()
        assert (score.requests, score.makespan, score.idle) == (1, 0.0, 0.0)


async def test_it_starts_anew_or_with_another_scenario_or_counts_from_a_moment_on(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["bucket"], clock=clock)
    async with client_on(stage) as client:
        calls = (await client.get("/_plan")).json()["processes"][0]
        assert [await ask(client, call, clock) for call in calls[:3]] == [200, 200, 429]
        await client.post("/_start")
        assert (stage.score().requests, await ask(client, calls[2], clock)) == (0, 429), "the bucket stays used"
        await client.post("/_reset")
        assert (stage.score().requests, await ask(client, calls[2], clock)) == (0, 200)
        assert (await client.post("/_reset", json={"scenario": "herd"})).json() == {"scenario": "herd"}
        assert (await client.get("/_result")).json()["lost"] == 100


@pytest.mark.parametrize("body", [b'{"scenario": "flock"}', b'{"scenario": 5}', b"[", b"5"])
async def test_a_scenario_that_is_none_is_refused(body: bytes) -> None:
    stage = Stage(SCENARIOS["bucket"])
    async with client_on(stage) as client:
        answer = await client.post("/_reset", content=body)
    assert (answer.status_code, stage.scenario.key) == (400, "bucket")
    assert answer.json()["message"]


async def test_the_score_of_a_slow_scenario_shows_who_asks_twice(clock: ManualClock) -> None:
    stage = Stage(SCENARIOS["slow"], clock=clock)
    async with client_on(stage) as client:
        call = stage.scenario.calls[0][0].as_json()
        first = asyncio.create_task(client.post(f"{BASE}{call['path']}", json=call["json"]))
        await passing(clock, lambda: stage.fake.created)
        assert await ask(client, call, clock) == 200
        assert not first.done()
        assert stage.score().doubled == 1
        clock.advance(6)
        await first


def test_a_scenario_is_found_by_its_name() -> None:
    assert scenario_of("herd") is SCENARIOS["herd"]
    with pytest.raises(ValueError, match=r"one of bucket, sliding, .* not 'flock'"):
        scenario_of("flock")


PROGRAM = """
import json
from dataclasses import asdict
from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS
from asgi_ratelimit.testing.fake_discord.serving import serve
from asgi_ratelimit.testing.fake_discord.stage import Stage

stage = Stage(SCENARIOS["bucket"])
serve(stage, lambda address: print(address, flush=True))
print(json.dumps(asdict(stage.score())))
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_with_the_score(ending: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        call = SCENARIOS["bucket"].calls[0][0].as_json()
        headers = {"Authorization": "Bot x"}
        with httpx.Client(headers=headers, trust_env=False) as client:
            client.post(f"{address}/api/v10{call['path']}", json=call["json"]).raise_for_status()
            process.send_signal(ending)
            output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    score = json.loads(output)
    assert (process.returncode, score["requests"], score["lost"]) == (0, 1, 8)
