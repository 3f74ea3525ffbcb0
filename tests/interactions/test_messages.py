"""What a limited user gets to read, how long one is held, and that nothing in the app gets in between."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import LeakyBucket, MemoryStore, Quota, RateLimitWarning, TokenBucket
from asgi_ratelimit.interactions.endpoint import InteractionLimit
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import REACHED, as_dependency, limited, reached, refusals, with_limit
from tests.support.signing import PING, PONG, PUBLIC_KEY, URL, Discord, command, content, now

pytestmark = pytest.mark.anyio

# What is answered


@pytest.mark.parametrize("kind", [2, 3, 5, 99])
async def test_commands_components_and_modals_get_a_message(store: MemoryStore, clock: ManualClock, kind: int) -> None:
    discord = with_limit(store, clock)
    await discord.post(command(type=kind))
    assert "<t:" in content(await discord.post(command(type=kind)))


async def test_who_types_too_fast_gets_no_choices(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock)
    assert reached(await discord.post(command(type=4)))
    refused = await discord.post(command(type=4))
    assert (refused.status_code, refused.json()) == (200, {"type": 8, "data": {"choices": []}})


async def test_typing_uses_up_no_command_but_a_limited_user_gets_no_choices(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = with_limit(store, clock, autocomplete="3/10s")
    assert await refusals(discord, *[command(type=4)] * 1, command(type=4)) == [False, False]
    assert await refusals(discord, command(), command(type=4), command()) == [False, True, True]
    clock.advance(10)
    assert await refusals(discord, *[command(type=4) for _ in range(4)]) == [False, False, False, True]


TEXTS = {"de": "Langsam! {when}", "pt-BR": "Calma {when}", "default": "Slow down {when}"}


@pytest.mark.parametrize(
    ("locale", "said"),
    [("de", "Langsam!"), ("de-AT", "Langsam!"), ("pt-BR", "Calma"), ("pt", "Slow"), ("fr", "Slow"), (5, "Slow")],
)
async def test_a_text_is_in_the_users_language(store: MemoryStore, clock: ManualClock, locale: Any, said: str) -> None:
    discord = with_limit(store, clock, text=TEXTS)
    await discord.post(command(locale=locale))
    assert content(await discord.post(command(locale=locale))).startswith(f"{said} " if said != "Slow" else "Slow down")


async def test_a_language_that_no_text_is_for_gets_ours(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, text={"de": "Langsam!"})
    await discord.post(command())
    assert "Try again <t:" in content(await discord.post(command(locale="ja")))


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_says_it_in_its_own_words(store: MemoryStore, clock: ManualClock, is_async: bool) -> None:
    def say(interaction: dict[str, Any], decision: Any) -> str:
        return f"{interaction['data']['name']} {{x}} {decision.retry_after:g} {{when}}"

    async def say_slowly(interaction: dict[str, Any], decision: Any) -> str:
        return say(interaction, decision)

    discord = with_limit(store, clock, text=say_slowly if is_async else say)
    await discord.post(command())
    assert content(await discord.post(command())) == f"play {{x}} 10 <t:{now(clock) + 10}:R>"


@pytest.mark.parametrize("nothing", [None, "", 5])
async def test_a_function_without_words_gets_ours(store: MemoryStore, clock: ManualClock, nothing: Any) -> None:
    discord = with_limit(store, clock, text=lambda *_: nothing)
    await discord.post(command())
    assert "Try again" in content(await discord.post(command()))


async def test_a_text_never_grows_longer_than_discord_takes(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, text="{when}" * 300)
    await discord.post(command())
    assert len(content(await discord.post(command()))) == 2000


# Waiting


async def test_a_short_wait_for_a_slot_is_waited(clock: ManualClock) -> None:
    waits: list[float] = []

    class Patient(ManualClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    patient = Patient()
    discord = with_limit(MemoryStore(clock=patient), patient, LeakyBucket("4/s", queue=10))
    assert await refusals(discord, *[command() for _ in range(4)]) == [False, False, False, True]
    assert waits == [0.25, 0.5]


async def test_a_wait_that_is_too_long_is_a_refusal_that_costs_nothing(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, LeakyBucket("1/10s", queue=10))
    assert reached(await discord.post(command()))
    for _ in range(20):  # more than the queue has room for
        assert f"<t:{now(clock) + 10}:R>" in content(await discord.post(command()))
    clock.advance(10)
    assert reached(await discord.post(command()))


# Where it stands


async def test_two_limits_of_one_route_verify_once_and_both_count(store: MemoryStore, clock: ManualClock) -> None:
    user, guild = limited(store, "2/10s"), limited(store, "3/10s", key="guild", name="guild")
    app = FastAPI(dependencies=[Depends(user)])
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=[Depends(guild), Depends(user)])
    asked = [command(user) for user in "11122"]
    assert await refusals(Discord(app, clock), *asked) == [False, False, True, False, True]


async def test_two_limits_of_one_name_that_differ_are_noticed(store: MemoryStore, clock: ManualClock) -> None:
    app = FastAPI(dependencies=[Depends(limited(store, "2/10s"))])
    limits = [Depends(limited(store, limit)) for limit in ("3/10s", "2/10s")]
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=limits)
    with pytest.warns(RateLimitWarning) as caught:
        await refusals(Discord(app, clock), command(), command())
    assert sorted({str(one.message)[:6] for one in caught}) == ["ARL101", "ARL102"]


async def test_a_soft_limit_refuses_nobody_and_a_quota_counts_down_to_its_end(
    store: MemoryStore, clock: ManualClock
) -> None:
    limits = [TokenBucket("1/hour", enforce=False), Quota("2/month")]
    discord = Discord(as_dependency(limited(store, limits, text="{when}")), clock)
    assert await refusals(discord, command(), command()) == [False, False]
    answer = await discord.post(command())
    now = datetime.fromtimestamp(clock.wall(), UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    assert content(answer) == f"<t:{round(end.timestamp())}:R>"


async def test_a_guard_around_a_dependency_counts_once(store: MemoryStore, clock: ManualClock) -> None:
    limit = limited(store)
    asked = [command() for _ in range(3)]
    assert await refusals(Discord(limit.wrap(as_dependency(limit)), clock), *asked) == [False, False, True]


async def test_limits_of_two_applications_do_not_trust_each_other(store: MemoryStore, clock: ManualClock) -> None:
    other = InteractionLimit("ab" * 32, store=store)
    assert (await Discord(other.wrap(as_dependency(limited(store))), clock).post(PING)).status_code == 401
    assert (await Discord(limited(store).wrap(as_dependency(other)), clock).post(command())).status_code == 401


async def test_an_apps_own_way_of_showing_errors_does_not_get_in_between(
    store: MemoryStore, clock: ManualClock
) -> None:
    async def login(request: Request, error: Exception) -> Response:
        return PlainTextResponse("please log in", 303)

    app: Any = as_dependency(limited(store))
    for kind in (401, 413, HTTPException, Exception):
        app.add_exception_handler(kind, login)
    discord = Discord(app, clock)
    assert (await discord.post(PING)).json() == PONG
    assert (await discord.post(PING, forged=True)).status_code == 401


async def test_a_limit_may_be_added_to_an_app_that_has_started(store: MemoryStore, clock: ManualClock) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "up")
    discord = Discord(app, clock)
    assert (await discord.send(b"", {}, method="GET", url="/")).status_code == 200
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=[Depends(limited(store))])
    assert (await discord.post(PING)).json() == PONG


async def test_what_it_wraps_is_closed_to_websockets(store: MemoryStore) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await limited(store).wrap(JSONResponse(REACHED))({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_lifespan_reaches_the_app_behind_it(store: MemoryStore) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await limited(store).wrap(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.usefixtures("no_test_run")
async def test_several_workers_with_a_memory_each_are_warned_about(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    discord = with_limit(store, clock)
    with pytest.warns(RateLimitWarning, match="ARL105"):
        await discord.post(PING)
    assert (await discord.post(PING)).json() == PONG


async def test_one_that_is_made_for_each_request_is_warned_about(store: MemoryStore, clock: ManualClock) -> None:
    async def forgetful(request: Request) -> Response:
        return JSONResponse(await InteractionLimit(PUBLIC_KEY, store=store)(request))

    discord = Discord(Starlette(routes=[Route(URL, forgetful, methods=["POST"])]), clock)
    with pytest.warns(RateLimitWarning, match="ARL106"):
        assert (await discord.post(PING)).json() == PONG
