"""An outer RateLimitMiddleware: it exempts the endpoint, or the charge of each verified interaction is given back."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from asgi_ratelimit import (
    Decision,
    LeakyBucket,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitWarning,
    StoreUnavailable,
)
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.interactions.endpoint import InteractionLimit
from asgi_ratelimit.memory.buckets import MemoryBuckets
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import REACHED, limited, reached, refusals
from tests.support.signing import PING, PONG, PUBLIC_KEY, URL, Discord, command, content, encoded, now, signature_of

pytestmark = pytest.mark.anyio


async def page(request: Request) -> Response:
    return JSONResponse("page")


def site(store: MemoryStore, limit: Any = "2/60s", *, of: InteractionLimit | None = None, **options: Any) -> FastAPI:
    """The endpoint and a page of the same path, behind an outer limit of 2 per minute for each address."""
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=limit, store=store, **options)
    guard = Depends(of or limited(store, "3/10s"))
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=[guard])
    app.add_api_route("/{page}", lambda page: page, methods=["GET", "POST"])
    return app


async def visits(discord: Discord, url: str = "/page", *, method: str = "GET", times: int = 3) -> list[int]:
    return [(await discord.send(b"", {}, method=method, url=url)).status_code for _ in range(times)]


@pytest.mark.parametrize("limit", ["1/60s", LeakyBucket("1/10s")])
@pytest.mark.parametrize("first", [PING, command("1")], ids=["ping", "command"])
async def test_discord_s_own_addresses_are_not_one_visitor(
    store: MemoryStore, clock: ManualClock, first: Any, limit: Any
) -> None:
    discord = Discord(site(store, limit), clock)
    assert (await discord.post(first)).status_code == 200
    assert await refusals(discord, *[command(str(user)) for user in range(2, 30)]) == [False] * 28
    assert [(await discord.post(PING)).json() for _ in range(5)] == [PONG] * 5


async def test_the_charge_of_a_verified_interaction_is_given_back(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(site(store), clock)
    answer = await discord.post(PING)
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    assert await visits(discord) == [200, 200, 429]


@pytest.mark.parametrize("headers", ["discord", None])
async def test_with_refunds_by_status_it_is_given_back_once(
    store: MemoryStore, clock: ManualClock, headers: Any
) -> None:
    discord = Discord(site(store, refund=lambda status: status == 200, headers=headers), clock)
    await visits(discord, "/nowhere/at/all", times=1)
    await discord.post(PING)
    assert await visits(discord, "/nowhere/at/all", times=2) == [404, 429]


async def test_a_forged_request_stays_charged(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(site(store), clock)
    answers = [await discord.post(PING, forged=True) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]


async def test_a_replay_stays_charged(store: MemoryStore, clock: ManualClock) -> None:
    guard = limited(store)
    body = encoded(command())
    headers = signature_of(body, now(clock))
    assert reached(await Discord(site(store, "9/s", of=guard), clock).send(body, headers))
    again = Discord(site(store, name="again", of=guard), clock)
    assert [(await again.send(body, headers)).status_code for _ in range(3)] == [401, 401, 429]


async def test_a_signature_on_another_path_stays_charged(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(site(store), clock, url="/page")
    assert [(await discord.post(PING)).status_code for _ in range(3)] == [200, 200, 429]


async def test_an_exempt_endpoint_is_left_alone_and_nothing_else(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(site(store, "1/60s", exempt=(URL,)), clock)
    assert await visits(discord, "/page", method="POST", times=2) == [200, 429]
    assert await visits(discord, URL + "/", method="POST", times=1) == [429]
    assert (await discord.post(PING)).json() == PONG
    assert await refusals(discord, *[command(str(user)) for user in range(5)]) == [False] * 5


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_default_limit_leaves_the_endpoint_alone(store: MemoryStore, clock: ManualClock, wrapped: bool) -> None:
    limit = limited(store, failures="2/60s")
    app = site(store, "1/60s", of=limit, default=True)
    if wrapped:
        app = FastAPI()
        app.add_middleware(RateLimitMiddleware, limit="1/60s", store=store, default=True)
        route = Route(URL, JSONResponse(REACHED), methods=["POST"], middleware=[Middleware(limit.wrap)])
        app.router.routes.append(route)
    discord = Discord(app, clock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await refusals(discord, *[command(str(user)) for user in range(5)]) == [False] * 5
        assert [(await discord.send(b"{}", {})).status_code for _ in range(3)] == [401, 401, 429]


async def test_a_default_limit_counts_an_endpoint_that_counts_no_failures(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = Discord(site(store, "1/60s", of=limited(store, failures=None), default=True), clock)
    assert [(await discord.send(b"{}", {})).status_code for _ in range(2)] == [401, 429]


async def test_without_exempt_it_warns_once_and_shares_a_bucket_with_other_visitors(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = Discord(site(store, "1/60s"), clock)
    with pytest.warns(RateLimitWarning, match=r"ARL111 .* add exempt=\('/interactions',\) to the middleware"):
        assert (await discord.post(PING)).json() == PONG
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await discord.post(PING)).json() == PONG
    await visits(discord, times=1)
    assert (await discord.post(PING)).status_code == 429


async def test_another_limit_of_the_route_stays_charged_and_nothing_is_warned_about(
    store: MemoryStore, clock: ManualClock
) -> None:
    app = FastAPI()
    dependencies = [Depends(RateLimit("2/10s", store=store)), Depends(limited(store, "50/10s"))]
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=dependencies)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = [await Discord(app, clock).post(command(str(user))) for user in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


async def test_the_warning_names_the_path_as_exempt_compares_it(store: MemoryStore, clock: ManualClock) -> None:
    app = site(store)

    async def below_a_root(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": f"/api{scope['path']}", "root_path": "/api"}, receive, send)

    with pytest.warns(RateLimitWarning, match=r"exempt=\('/interactions',\)"):
        assert (await Discord(below_a_root, clock).post(PING)).json() == PONG
    outer = Starlette(routes=[Mount("/bots", site(store, None))])
    outer.add_middleware(RateLimitMiddleware, limit="9/s", store=store, name="outer")
    with pytest.warns(RateLimitWarning, match=r"exempt=\('/bots/interactions',\)"):
        assert (await Discord(outer, clock, url=f"/bots{URL}").post(PING)).json() == PONG


async def test_a_refund_that_fails_is_no_error(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refund(self: MemoryBuckets, decision: Decision) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(MemoryBuckets, "refund", refund)
    app = site(store, refund=lambda status: True)
    assert (await Discord(app, clock).post(PING)).json() == PONG
    assert await visits(Discord(app, clock), times=1) == [200]


async def test_with_exempt_or_no_limit_outside_there_is_no_warning(store: MemoryStore, clock: ManualClock) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for options in ({"exempt": (URL,)}, {"limit": None}):
            assert (await Discord(site(store, **options), clock).post(PING)).json() == PONG
    assert [str(warning.message) for warning in warned if warning.category is RateLimitWarning] == []


async def test_every_middleware_that_counted_it_gives_its_charge_back(store: MemoryStore, clock: ManualClock) -> None:
    route = Route("/", JSONResponse(REACHED), methods=["POST"], middleware=[Middleware(limited(store).wrap)])
    inner = RateLimitMiddleware(Starlette(routes=[route]), limit="1/60s", store=store, name="inner")
    app = RateLimitMiddleware(Starlette(routes=[Mount(URL, inner)]), limit="1/60s", store=store, name="outer")
    assert await refusals(Discord(app, clock, url=f"{URL}/"), *[command(str(user)) for user in range(5)]) == [False] * 5


async def test_the_charge_of_a_rewritten_path_is_given_back(store: MemoryStore, clock: ManualClock) -> None:
    app = site(store, None)

    async def rewriting(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": scope["path"].removeprefix("/bot")}, receive, send)

    door = RateLimitMiddleware(rewriting, limit="1/60s", store=store)
    assert (await Discord(door, clock, url=f"/bot{URL}").post(PING)).json() == PONG
    assert await refusals(Discord(door, clock, url=f"/bot{URL}"), command("1"), command("2")) == [False, False]
    assert await visits(Discord(door, clock), URL, method="POST", times=2) == [401, 429]


async def test_the_charge_is_given_back_before_background_work_is_done(store: MemoryStore, clock: ManualClock) -> None:
    answers: list[int] = []

    async def another() -> None:
        if len(answers) < 3:
            answers.append((await discord.post(command(str(len(answers))))).status_code)

    async def endpoint(request: Request) -> Response:
        return JSONResponse(REACHED, background=BackgroundTask(another))

    app = Starlette(routes=[Route(URL, endpoint, methods=["POST"], middleware=[Middleware(limited(store).wrap)])])
    discord = Discord(RateLimitMiddleware(app, limit="1/60s", store=store), clock)
    await discord.post(command("9"))
    assert answers == [200, 200, 200]


async def test_an_outer_store_keeps_its_buckets_unless_it_has_one_of_its_own(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = Discord(site(store, None, of=InteractionLimit(PUBLIC_KEY, "1/10s")), clock)
    assert reached(await discord.post(command()))  # by the outer store's clock its timestamp is fresh
    assert f"<t:{now(clock) + 10}:R>" in content(await discord.post(command()))


async def test_a_refused_interaction_is_charged_by_no_limit_of_its_route(
    store: MemoryStore, clock: ManualClock
) -> None:
    wide, strict = InteractionLimit(PUBLIC_KEY, "3/60s", name="wide", store=store), limited(store, "1/10s")
    app = FastAPI()
    limits = [Depends(RateLimit("9/hour", name="route", store=store)), Depends(wide), Depends(strict)]
    app.add_api_route(URL, lambda: REACHED, methods=["POST"], dependencies=limits)
    app.add_api_route("/quota", lambda: None, dependencies=limits[:1])
    app.add_api_route("/wide", lambda: REACHED, methods=["POST"], dependencies=[Depends(wide)])
    discord = Discord(app, clock)
    assert await refusals(discord, *(command("1") for _ in range(6))) == [False] + [True] * 5
    quota = await discord.send(b"", {}, method="GET", url="/quota")
    assert quota.headers["x-ratelimit-remaining"] == "7"
    bodies = [encoded(command("1")) for _ in range(3)]
    answers = [await discord.send(body, signature_of(body, now(clock)), url="/wide") for body in bodies]
    assert [reached(answer) for answer in answers] == [True, True, False]
