"""An address never uses up what Discord bears of invalid requests: a warning, slower calls, then none at all."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from asgi_ratelimit import MemoryStore, StoreUnavailable
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.discord import DiscordEvent, DiscordRateLimited, InvalidBudgetSpent
from asgi_ratelimit.discord.invalid_requests import ALLOWED, InvalidRequests
from asgi_ratelimit.discord.routes import route_of
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import SlidingWindow
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import TOKEN, all_of, bot, bot_of, passing, settled, taken
from tests.support.fake_discord import MESSAGES, SEND

pytestmark = pytest.mark.anyio

ROUTE = route_of("GET", "/users/@me")


async def use_up(store: MemoryStore, count: int, egress: str = "default") -> None:
    """As if so many requests of the address had been answered with a 403, by whichever process."""
    limiter = Limiter(SlidingWindow(f"{ALLOWED}/10m"), store=store, name="discord-invalid")
    assert (await limiter.try_acquire(egress, cost=count)).allowed


async def counted(store: MemoryStore, egress: str = "default") -> int:
    limiter = Limiter(SlidingWindow(f"{ALLOWED}/10m"), store=store, name="discord-invalid")
    return ALLOWED - (await limiter.peek(egress)).remaining


# After a 401 a second opinion on the token is asked for, which is another one.
@pytest.mark.parametrize(("status", "count"), [(401, 2), (403, 1), (404, 0), (400, 0), (200, 0), (503, 0)])
async def test_the_requests_that_discord_counts_are_counted(clock: ManualClock, status: int, count: int) -> None:
    async with bot_of(lambda request: httpx.Response(status, json={}), clock, max_retries=0) as discord:
        await discord.get("/users/@me")
        assert await counted(discord._pacing._store) == count  # type: ignore[arg-type]


@pytest.mark.parametrize(("scope", "count"), [("user", 1), ("global", 1), ("shared", 0)])
async def test_so_are_429s_but_for_shared_ones(clock: ManualClock, store: MemoryStore, scope: str, count: int) -> None:
    fake = FakeDiscord(clock=clock)
    fake.refuse(MESSAGES, 1.0, scope=scope)  # type: ignore[arg-type]
    async with bot(fake, store=store) as discord:
        await passing(clock, discord.post(SEND, json={}))
    assert await counted(store) == count


async def test_at_half_of_it_there_is_a_warning_once(
    clock: ManualClock, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[DiscordEvent] = []
    budget = InvalidRequests(store, "default", events.append)
    await use_up(store, ALLOWED // 2 - 1)
    await budget.count(ROUTE)
    for _ in range(5):
        await budget.count(ROUTE)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "5000 of 10000 invalid requests" in caplog.text
    assert [event.kind for event in events] == ["invalid"]
    clock.advance(601)
    await budget.admit(ROUTE, None)
    await use_up(store, ALLOWED // 2)
    await budget.count(ROUTE)
    assert len(events) == 2, "as it had recovered in between"


async def admitted(budget: InvalidRequests, count: int) -> list[float]:
    return [(await budget.admit(ROUTE, None))[0] for _ in range(count)]


async def test_from_seven_tenths_on_the_rest_is_spread_over_the_time_that_is_left(
    clock: ManualClock, store: MemoryStore
) -> None:
    budget = InvalidRequests(store, "default", lambda event: None)
    await use_up(store, 6_999)
    assert await admitted(budget, 3) == [0, 0, 0]
    clock.advance(1)
    await use_up(store, 1)
    assert await admitted(budget, 3) == [0, pytest.approx(0.2), pytest.approx(0.4)], "600 s / 3000"


async def test_a_call_that_gives_up_its_turn_delays_no_other(clock: ManualClock, store: MemoryStore) -> None:
    await use_up(store, 7_000)
    fake = FakeDiscord(clock=clock)
    async with bot(fake, store=store) as discord:
        await discord.get("/users/@me")
        with pytest.raises(DiscordRateLimited, match="too many invalid requests"):
            await discord.get("/users/@me", extensions={"deadline": 0.1})
        waiting = [asyncio.create_task(discord.get("/users/@me")) for _ in range(500)]
        await settled()
        for task in waiting:
            task.cancel()
        await settled()
        assert await taken(clock, discord.get("/users/@me")) < 1, "not 500 turns later"


async def test_with_hardly_anything_left_nothing_is_sent(clock: ManualClock, store: MemoryStore) -> None:
    await use_up(store, 5_000)
    clock.advance(60)
    await use_up(store, 4_500)
    fake = FakeDiscord(clock=clock)
    async with bot(fake, store=store) as discord:
        for _ in range(3):
            with pytest.raises(InvalidBudgetSpent) as spent:
                await discord.get("/users/@me")
        assert (spent.value.used, spent.value.allowed) == (9_500, 10_000)
        assert spent.value.retry_after == pytest.approx(540, abs=0.1)
        assert "540 s" in str(spent.value)
        assert fake.count() == 0
        clock.advance(spent.value.retry_after)
        assert (await passing(clock, discord.get("/users/@me"))).status_code == 200


async def test_a_bot_that_is_always_refused_stops_before_it_is_banned(clock: ManualClock, store: MemoryStore) -> None:
    await use_up(store, 9_480)
    fake = FakeDiscord(clock=clock)
    async with bot(fake, store=store) as discord:
        fake.fail(403, times=100)
        for _ in range(20):
            assert (await passing(clock, discord.get("/users/@me"), step=0.2)).status_code == 403
        with pytest.raises(InvalidBudgetSpent):
            await passing(clock, discord.get("/users/@me"), step=0.2)
    assert fake.count(403) == 20


async def test_all_clients_that_name_one_egress_share_it_whatever_their_token(
    clock: ManualClock, store: MemoryStore
) -> None:
    fake = FakeDiscord(clock=clock, token=TOKEN)
    await use_up(store, 9_499, "office")
    async with bot(fake, store=store, token="wrong", egress="office") as one:
        assert (await one.get("/users/@me")).status_code == 401
    async with bot(fake, store=store, egress="office") as two, bot(fake, store=store) as elsewhere:
        with pytest.raises(InvalidBudgetSpent):
            await two.get("/users/@me")
        assert (await elsewhere.get("/users/@me")).status_code == 200


async def test_a_ban_holds_every_token_of_the_address_also_those_in_line(
    clock: ManualClock, store: MemoryStore
) -> None:
    fake = FakeDiscord({MESSAGES: "1/5s"}, clock=clock)
    events: list[DiscordEvent] = []
    async with bot(fake, store=store, on_event=events.append) as one, bot(fake, store=store, token="two") as two:
        await two.post(SEND, json={})
        in_line = asyncio.create_task(two.post(SEND, json={}))
        await settled()
        fake.ban(30)
        banned = asyncio.create_task(one.get("/users/@me"))
        await settled()
        begun = clock.now_us()
        clock.advance(1)
        await passing(clock, all_of([banned, in_line, two.get("/users/@me"), one.get("/gateway")]), step=0.1)
        assert clock.now_us() - begun >= 30_000_000
    assert len(fake.refused) == 1, "after the ban was known nobody tried"
    assert [event.kind for event in events if event.kind in ("limited", "banned")] == ["limited", "banned"]


async def test_within_a_transport_a_ban_holds_other_tokens_at_once(clock: ManualClock, store: MemoryStore) -> None:
    fake = FakeDiscord({MESSAGES: "1/5s"}, clock=clock)
    async with bot(fake, store=store) as discord:
        other = {"Authorization": "Bot another"}
        await discord.post(SEND, json={}, headers=other)
        in_line = asyncio.create_task(discord.post(SEND, json={}, headers=other))
        await settled()
        fake.ban(30)
        banned = asyncio.create_task(discord.get("/users/@me"))
        await settled()
        with pytest.raises(DiscordRateLimited) as refused:
            await discord.get("/users/@me", headers=other, extensions={"deadline": 5})
        assert (refused.value.scope, refused.value.cause) == ("cloudflare", "banned")
        await passing(clock, all_of([in_line, banned]), step=0.1)
    assert len(fake.refused) == 1


async def test_the_shared_count_is_read_once_a_second_at_most(clock: ManualClock, store: MemoryStore) -> None:
    budget, looks = InvalidRequests(store, "default", lambda event: None), 0
    peek = budget._limiter.peek

    async def counting(key: str, *, cost: int = 1) -> Decision:
        nonlocal looks
        looks += 1
        return await peek(key, cost=cost)

    budget._limiter.peek = counting  # type: ignore[method-assign, assignment]
    for _ in range(30):
        await budget.admit(ROUTE, None)
        clock.advance(0.1)
    assert looks == 3


async def test_a_store_that_is_out_holds_no_call_up(clock: ManualClock, store: MemoryStore) -> None:
    async def fail(*args: object, **more: object) -> Decision:
        raise StoreUnavailable("out")

    budget = InvalidRequests(store, "default", lambda event: None)
    for verb in ("peek", "try_acquire", "block"):
        setattr(budget._limiter, verb, fail)
    await budget.count(ROUTE)
    assert await budget.admit(ROUTE, None) == (0.0, None)
    await budget.ban(5.0)
    assert (await budget.admit(ROUTE, None))[1] == "banned"


@pytest.mark.parametrize("headers", [{"X-RateLimit-Scope": "user"}, {"X-RateLimit-Bucket": "abc"}])
async def test_a_429_of_discord_without_a_body_is_no_ban(clock: ManualClock, headers: dict[str, str]) -> None:
    """As every answer to a HEAD is."""
    answers = [httpx.Response(429, headers=headers | {"Via": "1.1 google", "Retry-After": "5"})]
    async with bot_of(lambda request: answers.pop() if answers else httpx.Response(200), clock) as discord:
        call = asyncio.ensure_future(discord.head("/channels/1"))
        await settled()
        assert (await discord.get("/guilds/1")).status_code == 200, "nobody else waits"
        await passing(clock, call)


async def test_a_probe_that_leaves_lets_another_one_go(clock: ManualClock) -> None:
    ban = httpx.Response(429, text="error code: 1015", headers={"Retry-After": "60"})
    answers, hanging = [ban], asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if "hangs" in request.url.path:
            await hanging.wait()
        return answers.pop() if answers else httpx.Response(200)

    async with bot_of(answer, clock, max_retries=0) as discord:
        await discord.get("/channels/1")
        clock.advance(61)
        probe = asyncio.ensure_future(discord.get("/hangs"))
        await settled()
        other = asyncio.ensure_future(discord.get("/channels/2"))
        await settled()
        probe.cancel()
        assert await taken(clock, other) <= 0.5
        await asyncio.gather(probe, return_exceptions=True)


async def test_a_ban_that_comes_after_the_end_holds_up_nobody(clock: ManualClock) -> None:
    ban = httpx.Response(429, text="error code: 1015", headers={"Retry-After": "3600"})
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        await release.wait()
        return ban

    discord = bot_of(answer, clock)
    call = asyncio.ensure_future(discord.get("/channels/1"))
    await settled()
    await discord.aclose()
    release.set()
    with pytest.raises(RuntimeError, match="closed"):
        await passing(clock, call)
