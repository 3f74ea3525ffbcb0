"""The bot's page: bursts that draw no 429, the response to each interaction, and how a browser shows both."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, expect
from starlette.testclient import TestClient

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from example_app.bot import LIMIT, ROUTE, Bot, Bots, ideal, open_bots
from example_app.burst import REAL_MOST, Burst, Plan
from example_app.main import create_app
from example_app.signer import CASES
from tests.example_app.conftest import LOOKS, check_that_it_fits, look

Lines = list[dict[str, Any]]
PUBLIC_KEY = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"  # of RFC 8032's first test


# Out


async def account_of(burst: Burst, clock: ManualClock) -> Lines:
    """Every line of a burst, while time flies."""
    lines: Lines = []

    async def read() -> None:
        lines.extend([json.loads(line) async for line in burst.lines()])

    reading = asyncio.create_task(read())
    for _ in range(10_000):
        if reading.done():
            break
        clock.advance(0.005)
        for _ in range(10):
            await asyncio.sleep(0)
    await asyncio.wait_for(reading, 10)
    return lines


async def sent(plan: Plan) -> Lines:
    clock = ManualClock()
    async with open_bots(MemoryStore(clock=clock)) as bots:
        return await account_of(Burst(bots, plan), clock)


def of(kind: str, lines: Lines) -> Lines:
    return [line for line in lines if line["kind"] == kind]


def statuses(lines: Lines) -> Counter[int]:
    return Counter(line["status"] for line in of("answered", lines))


@pytest.mark.anyio
@pytest.mark.parametrize("window", ["fixed", "sliding"])
async def test_a_burst_is_sent_in_almost_ideal_time_without_a_429(window: Any) -> None:
    lines = await sent(Plan(messages=24, channels=2, window=window))
    begin, end = lines[0], lines[-1]
    assert begin["channels"] == [{"name": "general", "messages": 12}, {"name": "random", "messages": 12}]
    assert statuses(lines) == {200: 24}
    assert (end["kind"], end["delivered"], end["refused"], end["lost"]) == ("end", 24, 0, 0)
    assert begin["ideal"] == pytest.approx(ideal(24, 2, window))
    assert begin["ideal"] < end["at"] < begin["ideal"] + 1.0


def test_the_ideal_is_the_time_that_the_windows_require() -> None:
    assert LIMIT == "5/2s"
    assert [ideal(count, 1, "fixed") for count in (5, 6, 10, 11)] == [0.0, 2.0, 2.0, 4.0]
    assert [ideal(count, 1, "sliding") for count in (5, 6, 10)] == pytest.approx([0.0, 0.4, 2.0])
    assert ideal(20, 4, "fixed") == 0.0


@pytest.mark.anyio
async def test_the_queue_empties_while_one_looks_at_it() -> None:
    lines = await sent(Plan(messages=12, channels=1))
    calls = [line["lines"][0]["calls"] for line in of("queue", lines) if line["lines"]]
    calls = calls[calls.index(max(calls)) :]  # a few calls start in each pass of the event loop
    assert calls == sorted(calls, reverse=True)
    assert {7, 2} <= set(calls)  # after the first window and after the second
    held = [line for look in of("queue", lines) for line in look["lines"] if line["cause"] == "bucket"]
    assert all(0 < line["seconds"] <= 2.1 and line["channel"] == 0 for line in held)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("trouble", "answers"),
    [("none", {200: 12}), ("refusal", {200: 12, 429: 1}), ("hash", {200: 12}), ("failure", {200: 12, 503: 1})],
)
async def test_trouble_halfway_loses_nothing(trouble: Any, answers: dict[int, int]) -> None:
    lines = await sent(Plan(messages=12, channels=2, trouble=trouble))
    assert statuses(lines) == answers
    assert (lines[-1]["delivered"], lines[-1]["lost"]) == (12, 0)
    assert [line["what"] for line in of("trouble", lines)] == ([] if trouble == "none" else [trouble])
    kinds = {line["what"] for line in of("event", lines)}
    assert kinds == {"wait"} | {"refusal": {"limited"}, "failure": {"retry"}}.get(trouble, set())
    assert len({line["bucket"] for line in of("answered", lines) if line["status"] == 200}) == 1 + (trouble == "hash")


@pytest.mark.anyio
async def test_a_reader_that_leaves_cancels_unsent_messages() -> None:
    clock = ManualClock()
    async with open_bots(MemoryStore(clock=clock)) as bots:
        lines = Burst(bots, Plan(messages=40, channels=1)).lines()
        while '"queue"' not in await anext(lines):
            pass
        for _ in range(100):
            await asyncio.sleep(0)
        waiting = bots.by_window["fixed"].client.waiting
        assert [line.calls for line in waiting] == [39]
        await lines.aclose()  # type: ignore[attr-defined]
        for _ in range(100):
            await asyncio.sleep(0)
        assert bots.by_window["fixed"].client.waiting == []


@pytest.mark.anyio
async def test_bursts_at_the_same_time_report_only_their_own_calls() -> None:
    clock = ManualClock()
    async with open_bots(MemoryStore(clock=clock)) as bots:
        bursts = [Burst(bots, Plan(messages=7, channels=1)), Burst(bots, Plan(messages=14, channels=2))]
        one, other = await asyncio.gather(*(account_of(burst, clock) for burst in bursts))
    assert (statuses(one), statuses(other)) == ({200: 7}, {200: 14})
    assert max(len(look["lines"]) for look in of("queue", one)) == 1
    assert max(len(look["lines"]) for look in of("queue", other)) == 2
    assert (len(of("event", one)), len(of("event", other))) == (6, 12)  # all but the first wait, in each channel


@pytest.mark.anyio
async def test_few_go_to_a_real_channel_and_no_trouble_is_made_there() -> None:
    clock = ManualClock()
    fake = FakeDiscord({ROUTE: "5/2s"}, clock=clock)
    bot = Bot("token", httpx.ASGITransport(fake), MemoryStore(clock=clock), None)
    async with bot.client:
        plan = Plan(messages=60, channels=6, trouble="failure")
        lines = await account_of(Burst(Bots({"fixed": bot}, "4711"), plan), clock)
    assert Counter(seen.path for seen in fake.requests) == {"/channels/4711/messages": REAL_MOST}
    assert (lines[0]["ideal"], lines[0]["channels"]) == (None, [{"name": "4711", "messages": REAL_MOST}])
    assert statuses(lines) == {200: REAL_MOST}


@pytest.mark.anyio
async def test_a_message_that_discord_rejects_is_lost_with_a_reason() -> None:
    clock = ManualClock()
    bot = Bot("token", httpx.ASGITransport(FakeDiscord(token="another", clock=clock)), MemoryStore(clock=clock), None)
    async with bot.client:
        lines = await account_of(Burst(Bots({"fixed": bot}, "4711"), Plan.model_validate({"messages": 3})), clock)
    reasons = [line["why"] for line in of("lost", lines)]
    assert len(reasons) == lines[-1]["lost"] == 3
    assert "Discord has answered 401" in reasons
    assert all("Bot token" not in reason for reason in reasons)


def test_a_burst_is_reported_line_by_line() -> None:
    with TestClient(create_app(MemoryStore())) as client:
        answer = client.post("/discord/bursts", json={"messages": 10, "channels": 2})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert (lines[0]["kind"], lines[-1]["kind"], lines[-1]["delivered"]) == ("begin", "end", 10)


def test_bursts_are_limited_themselves(client: TestClient) -> None:
    answers = [client.post("/discord/bursts", json={"messages": 0}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [422] * 3 + [429]
    assert answers[-1].json()["retry_after"] == pytest.approx(10 / 3, abs=0.001)


def test_a_real_channel_has_to_be_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", "secret.of.the.bot")
    monkeypatch.setenv("DISCORD_CHANNEL", "4711")
    with TestClient(create_app(MemoryStore())) as client:
        page = client.get("/discord").text
        assert "real channel <code>4711</code>" in page
        assert "secret.of.the.bot" not in page
        assert client.post("/discord/bursts", json={}).status_code == 409


@pytest.mark.parametrize("alone", ["DISCORD_TOKEN", "DISCORD_CHANNEL"])
def test_without_a_token_and_a_channel_nothing_real_is_sent(monkeypatch: pytest.MonkeyPatch, alone: str) -> None:
    monkeypatch.setenv(alone, "4711")
    with TestClient(create_app(MemoryStore())) as client:
        assert "This Discord is a <code>FakeDiscord</code>" in client.get("/discord").text


# In


def interact(client: TestClient, case: str, user: str = "ada") -> dict[str, Any]:
    answer = client.post("/discord/tests", json={"case": case, "user": user})
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize(
    ("case", "status", "answer", "charged"),
    [
        ("command", 200, {"type": 4, "data": {"content": "The tide is rising."}}, 1),
        ("component", 200, {"type": 4, "data": {"content": "Refreshed: the tide is still rising."}}, 1),
        ("ping", 200, {"type": 1}, 0),
        ("forged", 401, {"message": "invalid request signature"}, 0),
        ("stale", 401, {"message": "stale request timestamp"}, 0),
        ("replay", 401, {"message": "this interaction has been here before"}, 1),
    ],
)
def test_each_kind_of_interaction_gets_its_answer(
    client: TestClient, case: str, status: int, answer: dict[str, Any], charged: int
) -> None:
    result = interact(client, case)
    assert result["answer"] == {"status": status, "body": answer}
    assert (result["left"]["remaining"], result["left"]["limit"]) == (5 - charged, 5)


def test_an_autocomplete_gets_choices_and_charges_no_command(client: TestClient) -> None:
    result = interact(client, "autocomplete")
    assert result["answer"]["body"]["type"] == 8
    assert len(result["answer"]["body"]["data"]["choices"]) == 3
    assert result["left"]["remaining"] == 5


def test_a_limited_user_reads_in_private_until_when(client: TestClient, clock: ManualClock) -> None:
    for _ in range(5):
        assert "flags" not in interact(client, "command")["answer"]["body"]["data"]
    refused = interact(client, "component")["answer"]
    until = int(clock.wall()) + 2
    text = f"You are doing that too often. Try again <t:{until}:R>."
    assert refused == {"status": 200, "body": {"type": 4, "data": {"content": text, "flags": 64}}}
    assert interact(client, "autocomplete")["answer"]["body"] == {"type": 8, "data": {"choices": []}}
    assert interact(client, "ping")["answer"]["body"] == {"type": 1}
    assert "flags" not in interact(client, "command", "grace")["answer"]["body"]["data"]
    clock.advance(2)
    assert "flags" not in interact(client, "command")["answer"]["body"]["data"]


def test_only_discord_signs_for_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_PUBLIC_KEY", PUBLIC_KEY)
    with TestClient(create_app(MemoryStore())) as client:
        page = client.get("/discord").text
        assert "DISCORD_PUBLIC_KEY is set, so only Discord itself can sign" in page
        assert re.search(r'<button[^>]* id="interact"[^>]* disabled', page)
        assert client.post("/discord/tests", json={"case": "command", "user": "ada"}).status_code == 409
        assert client.post("/discord/interactions", json={"type": 1}).status_code == 401


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/discord")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert "://" not in page.text
    for path in re.findall(r'(?:href|src)="(/static/[^"#]+)', page.text):
        assert client.get(path).status_code == 200


# In a browser


@pytest.fixture
def complaints(page: Page) -> Iterator[list[str]]:
    """The complaints of the browser's console, e.g. the content security policy."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", note)
    yield complaints
    page.remove_listener("console", note)
    assert complaints == []


def choose(page: Page, test_id: str) -> None:
    """Check a radio button. Not by a click at its place: the page may move under the mouse while a burst is drawn."""
    page.get_by_test_id(test_id).dispatch_event("click")
    expect(page.get_by_test_id(test_id)).to_be_checked()


def send(page: Page, **choices: object) -> None:
    for name, value in choices.items():
        choose(page, f"{name}-{value}")
    page.get_by_test_id("send").click()


def bars(page: Page, kind: str) -> Locator:
    return page.locator(f".strip rect[data-kind={kind}]")


@pytest.mark.usefixtures("complaints")
def test_a_burst_can_be_watched_and_ends_without_a_429(page: Page, shoot: Callable[[str], None]) -> None:
    page.goto("/")
    page.get_by_role("link", name="Discord").click()
    answered, waiting = page.get_by_test_id("answered"), page.get_by_test_id("waiting")
    expect(answered).to_have_text("0")
    send(page, messages=20, channels=2)
    expect(answered).to_have_text(re.compile(r"^(9|10)$"))  # two first windows
    expect(waiting).to_have_text(re.compile(r"^(10|11)$"))
    expect(page.get_by_test_id("strips")).to_contain_text(re.compile(r"#general\s*\d in line"))
    shoot("discord-burst")
    expect(answered).to_have_text("20", timeout=15_000)
    expect(waiting).to_have_text("0")
    expect(page.get_by_test_id("refused")).to_have_text("0")
    expect(bars(page, "ok")).to_have_count(20)
    summary = page.get_by_test_id("burst-said")
    expect(summary).to_have_text(
        re.compile(r"^20 of 20 delivered with no 429 in [\d.]+ s; the limits alone ask for 2\.0 s\.$")
    )
    expect(page.get_by_test_id("send")).to_have_attribute("aria-busy", "false")


@pytest.mark.usefixtures("complaints")
def test_a_429_that_is_forced_is_seen_and_waited_out(page: Page) -> None:
    page.goto("/discord")
    send(page, messages=10, channels=4, trouble="refusal")
    expect(page.get_by_test_id("burst-said")).to_contain_text("10 of 10 delivered with one 429", timeout=15_000)
    expect(page.get_by_test_id("refused")).to_have_text("1")
    expect(bars(page, "refused")).to_have_count(1)
    page.get_by_text("What the client tells").click()
    expect(page.get_by_test_id("told")).to_contain_text("a 429 out of nowhere")


def test_too_many_bursts_are_refused_by_the_page_itself(page: Page) -> None:
    page.goto("/discord")
    for _ in range(3):
        page.request.post("/discord/bursts", data={"messages": 0})
    send(page)
    expect(page.get_by_test_id("burst-said")).to_contain_text("Send the next one in")


@pytest.mark.usefixtures("complaints")
def test_interactions_are_shown_as_discord_would_show_them(page: Page) -> None:
    page.goto("/discord")
    talks = page.get_by_test_id("talk")
    newest = talks.first
    for count in range(1, 30):  # a busy machine is slower than the bucket refills, now and then
        page.get_by_test_id("interact").click()
        expect(talks).to_have_count(count)
        if count > 5 and "Try again" in newest.inner_text():
            break
    expect(newest).to_contain_text(re.compile(r"Try again (in \d seconds?|now)"))
    expect(newest.get_by_text("Only you can see this")).to_be_visible()
    expect(talks.last.get_by_text("The tide is rising.", exact=True)).to_be_visible()
    expect(talks.last.get_by_text("Only you can see this")).to_be_hidden()
    expect(page.get_by_test_id("allowance")).to_contain_text(re.compile(r"Ada: \d of 5 left"))
    newest.locator("summary").click()
    expect(newest).to_contain_text("X-Signature-Ed25519")
    expect(newest).to_contain_text('"flags":64')


@pytest.mark.usefixtures("complaints")
def test_nothing_sticks_out(page: Page, shoot: Callable[[str], None]) -> None:
    look(page, 390, 844, "light")
    page.goto("/login")
    page.get_by_test_id("log-in-grace").click()
    expect(page.get_by_test_id("dashboard")).to_be_visible()
    page.get_by_role("link", name="Discord").click()
    send(page, messages=20, channels=4, trouble="failure", window="sliding")
    for case in CASES:
        choose(page, f"case-{case}")
        page.get_by_test_id("interact").click()
        expect(page.get_by_test_id("interact")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_test_id("talk")).to_have_count(len(CASES))
    page.get_by_test_id("talk").first.locator("summary").click()
    expect(page.get_by_test_id("burst-said")).to_contain_text("20 of 20 delivered", timeout=15_000)
    for width, scheme in LOOKS:
        look(page, width, 844 if width < 500 else 1000, scheme)
        check_that_it_fits(page, width)
        assert page.get_by_test_id("chat").evaluate("list => list.scrollWidth - list.clientWidth") == 0
        shoot(f"discord-{width}-{scheme}")
