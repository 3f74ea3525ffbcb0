"""Requests that cannot be verified are counted: by a middleware, or by the endpoint itself, for each client."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import httpx
import pytest

from asgi_ratelimit import ClientIP, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.inbound.options import ASGIApplication
from asgi_ratelimit.interactions.endpoint import InteractionLimit
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import BUILDS, MOUNTED, as_dependency, limited, reached
from tests.support.signing import PING, PONG, PUBLIC_KEY, URL, Discord, command, encoded, now, signature_of

pytestmark = pytest.mark.anyio


def behind(app: ASGIApplication, address: str) -> ASGIApplication:
    """The app as a client of this address reaches it."""

    async def from_there(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": (address, 5)}, receive, send)

    return from_there


async def forged(discord: Discord, times: int = 300) -> Counter[int]:
    return Counter([(await discord.post(command(), forged=True)).status_code for _ in range(times)])


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
async def test_forged_requests_after_a_verified_one_are_counted_though_no_middleware_is_around(
    store: MemoryStore, clock: ManualClock, build: Any
) -> None:
    discord = Discord(build(limited(store, "9/s")), clock, url=f"{URL}/" if build in MOUNTED else URL)
    assert reached(await discord.post(command()))
    assert await forged(discord) == {401: 60, 429: 240}


@pytest.mark.parametrize("options", [{"exempt": (URL,)}, {"limit": None}], ids=["exempt", "no limit"])
async def test_they_are_counted_though_the_middleware_counts_nothing(
    store: MemoryStore, clock: ManualClock, options: Any
) -> None:
    app = RateLimitMiddleware(as_dependency(limited(store)), store=store, **{"limit": "9/hour", **options})
    discord = Discord(app, clock)
    assert reached(await discord.post(command()))
    assert await forged(discord) == {401: 60, 429: 240}


async def test_a_middleware_that_counts_them_does_so_on_its_own(store: MemoryStore, clock: ManualClock) -> None:
    guard = limited(store, failures="1/hour")
    discord = Discord(RateLimitMiddleware(as_dependency(guard), limit="10/hour", store=store), clock)
    with pytest.warns(match="ARL111"):
        assert reached(await discord.post(command()))
    assert await forged(discord) == {401: 10, 429: 290}


async def test_the_429_names_the_wait(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(as_dependency(limited(store, failures="2/10s")), clock)
    await forged(discord, 2)
    refused = await discord.post(command(), forged=True)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    clock.advance(5)
    assert await forged(discord, 2) == {401: 1, 429: 1}


async def test_failures_of_every_kind_are_counted(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(as_dependency(limited(store, failures="5/hour", max_body=1000)), clock)
    body = encoded(command())
    headers = signature_of(body, now(clock))
    assert reached(await discord.send(body, headers))
    failures = [
        await discord.send(body, headers), await discord.send(body, {}), await discord.post(b"x" * 1001),
        await discord.post(b"{}"), await discord.post(PING, late=400),
    ]  # fmt: skip
    assert [failure.status_code for failure in failures] == [401, 401, 413, 400, 401]
    again: list[httpx.Response] = [
        await discord.send(body, headers), await discord.send(body, {}), await discord.post(b"x" * 1001),
        await discord.post(b"{}"), await discord.post(PING, late=400),
    ]  # fmt: skip
    assert [failure.status_code for failure in again] == [429] * 5


async def test_a_verified_interaction_never_fails_for_the_failures_of_its_address(
    store: MemoryStore, clock: ManualClock
) -> None:
    discord = Discord(as_dependency(limited(store, "9/s", failures="1/hour")), clock)
    await forged(discord, 5)
    assert reached(await discord.post(command()))
    assert (await discord.post(PING)).json() == PONG


async def test_one_limit_in_two_apps_counts_for_each_of_their_stores(clock: ManualClock) -> None:
    limit = InteractionLimit(PUBLIC_KEY, failures="2/hour")
    inner = as_dependency(limit)
    apps = [RateLimitMiddleware(inner, limit=None, store=MemoryStore(clock=clock)) for _ in range(2)]
    answers = [await forged(Discord(app, clock), 1) for _ in range(3) for app in apps]
    assert answers == [{401: 1}] * 4 + [{429: 1}] * 2


async def test_each_client_has_a_bucket_and_their_number_is_bounded(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_ratelimit.interactions.failures._MOST_CLIENTS", 10)
    app = as_dependency(limited(store, failures="1/hour"))
    assert await forged(Discord(behind(app, "1.2.3.4"), clock), 2) == {401: 1, 429: 1}
    assert await forged(Discord(behind(app, "1.2.3.5"), clock), 2) == {401: 1, 429: 1}
    others = [Discord(behind(app, f"10.0.{n}.1"), clock) for n in range(100)]
    answers = [(await other.post(command(), forged=True)).status_code for other in others]
    assert answers[-10:] == [429] * 10  # newcomers share what is left


async def test_behind_a_proxy_the_client_is_who_the_proxy_names(store: MemoryStore, clock: ManualClock) -> None:
    limit = limited(store, failures="1/hour", client=ClientIP(trusted_proxies=["127.0.0.0/8"]))
    discord = Discord(as_dependency(limit), clock)
    body = encoded(command())
    answers = [await discord.send(body, {"X-Forwarded-For": f"1.2.3.{n}"}) for n in (4, 4, 5)]
    assert [answer.status_code for answer in answers] == [401, 429, 401]


async def test_failures_may_be_left_uncounted(store: MemoryStore, clock: ManualClock) -> None:
    assert await forged(Discord(as_dependency(limited(store, failures=None)), clock)) == {401: 300}


async def test_a_ping_that_is_repeated_without_end_is_counted_too(store: MemoryStore, clock: ManualClock) -> None:
    discord = Discord(as_dependency(limited(store, failures="5/hour")), clock)
    assert [(await discord.post(PING)).status_code for _ in range(10)] == [200] * 6 + [429] * 4
    clock.advance(1)  # a new timestamp, so it is another one
    assert (await discord.post(PING)).json() == PONG


# What is logged


async def test_stale_requests_are_one_line_a_minute_with_their_number(
    store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    body = encoded(PING)
    headers = signature_of(body, now(clock) - 400)
    discord = Discord(as_dependency(limited(store, failures=None)), clock)
    with caplog.at_level(logging.WARNING, logger="asgi_ratelimit"):
        assert [(await discord.send(body, headers)).status_code for _ in range(500)] == [401] * 500
        assert len(caplog.messages) == 1
        clock.advance(60)
        await discord.send(body, headers)
    text = "stale interactions were refused; Discord signed the last"
    assert caplog.messages == [
        f"1 {text} +400 s ago: is this clock right?",
        f"500 {text} +460 s ago: is this clock right?",
    ]


async def test_refused_failures_are_one_line_a_minute_with_their_number(
    store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    discord = Discord(as_dependency(limited(store, failures="1/hour")), clock)
    with caplog.at_level(logging.WARNING, logger="asgi_ratelimit"):
        await forged(discord, 100)
        clock.advance(60)
        await forged(discord, 2)
    text = "requests without a valid signature of Discord were refused (429)"
    assert caplog.messages == [f"1 {text}", f"99 {text}"]
