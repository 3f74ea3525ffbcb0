"""A door blocks a key that goes on hammering, for longer each time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from asgi_ratelimit import (
    Concurrency,
    Escalate,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    Store,
    TokenBucket,
    by_header,
    by_ip,
)
from asgi_ratelimit.events import Event
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.inbound.refusal_count import RefusalCount
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.testing import ManualClock
from tests.inbound.test_preflight import PREFLIGHT
from tests.support.asgi import Answer, ask, handshake, hello, settle, statuses
from tests.support.stores import UnavailableStore

pytestmark = pytest.mark.anyio

ESCALATE = Escalate(after=20, within=60, block=(60, 600))
ADDRESS = "203.0.113.7"


@pytest.fixture
def events(store: MemoryStore) -> list[Event]:
    """Of blocks that begin."""
    events: list[Event] = []
    store.observers.add(lambda event: events.append(event) if event.kind == "escalated" else None)
    return events


def door(store: Store, limit: Any = "1/hour", *, escalate: Escalate = ESCALATE, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(hello, limit=limit, store=store, escalate=escalate, **options)


async def hammer(app: Any, times: int, **request: Any) -> Answer:
    """The last answer."""
    for _ in range(times):
        answer = await ask(app, **request)
    return answer


async def reason_of(store: Store, key: str = ADDRESS, name: str = "app") -> str:
    return (await Limiter("1/hour", store=store, name=name).peek(key)).reason


async def test_the_block_begins_with_the_last_of_so_many_refusals(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store)
    assert await statuses(app, 20) == [200] + [429] * 19
    assert (await hammer(app, 1))["retry-after"] == "3600"  # the twentieth refusal is still the limit's
    for _ in range(50):
        clock.advance(1)
        await hammer(app, 2)
    last = await hammer(app, 1)
    assert (last.status, last["retry-after"], last["x-ratelimit-remaining"]) == (429, "10", "0")
    assert last["x-ratelimit-scope"] == "user"
    assert last["x-ratelimit-reset-after"] == "10.000"
    assert last.json["retry_after"] == 10
    assert last.json["global"] is False
    clock.advance(10)
    assert (await hammer(app, 1))["retry-after"] != "600"
    assert (await hammer(app, 19), await reason_of(store))[1] == "blocked"
    assert (await hammer(app, 1))["retry-after"] == "600"


async def test_other_keys_and_other_doors_are_left_alone(store: MemoryStore) -> None:
    app, other = door(store), door(store, name="other")
    await hammer(other, 1)
    await hammer(app, 30)
    assert await reason_of(store) == "blocked"
    assert await reason_of(store, name="other") == "limited"
    assert await statuses(app, 2, client=("203.0.113.8", 1)) == [200, 429]


async def test_the_start_of_a_block_is_an_event(store: MemoryStore, clock: ManualClock, events: list[Event]) -> None:
    app, stats = door(store, name="site"), Stats()
    store.observers.add(stats)
    await hammer(app, 100)
    clock.advance(60)
    await hammer(app, 100)
    assert [(event.limiter, event.seconds, event.cause) for event in events] == [("site", 60, ""), ("site", 600, "")]
    assert {event.key_digest for event in events} == {store.observers.digest(ADDRESS)}
    counts = stats.snapshot().limiters["site"]
    assert (counts.allowed, counts.limited, counts.blocked, counts.escalated) == (1, 40, 159, 2)
    assert (counts.total, sum(key.total for key in counts.keys)) == (200, 200)


async def test_the_log_counts_the_blocks(
    store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_ratelimit")
    await hammer(door(store), 100)
    clock.advance(60)
    await settle()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("app: 20 refused, 79 refused as blocked, 1 blocks begun after many refusals in 60 s")


async def test_shadow_mode_blocks_no_key_and_reports_the_block(
    store: MemoryStore, clock: ManualClock, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    app = door(store, enforce=False)
    assert await statuses(app, 100) == [200] * 100
    assert await reason_of(store) == "limited"
    assert [(event.seconds, event.cause) for event in events] == [(60, "shadow")]
    clock.advance(60)  # what comes during the block that would be is not counted
    assert await statuses(app, 19) == [200] * 19
    assert len(events) == 1
    await hammer(app, 1)
    assert [event.seconds for event in events] == [60, 600]
    said = [record.getMessage() for record in caplog.records if "blocks" in record.getMessage()]
    assert said == [f"{number} blocks would have begun (enforce=False) at app" for number in (1, 1)]


@pytest.mark.parametrize("exempting", [{"exempt": ("/health",)}, {"only": ("/login",)}, {"methods": ("POST",)}])
async def test_what_is_exempt_never_counts(store: MemoryStore, exempting: dict[str, Any]) -> None:
    app = door(store, "0/day", **exempting)
    assert set(await statuses(app, 100, path="/health")) == {200}
    assert len(store) == 0


async def test_a_reset_lifts_the_block_and_forgets_the_strikes(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store)
    for seconds in ("60", "600"):
        assert (await hammer(app, 30))["retry-after"] == seconds
        clock.advance(int(seconds))
    await hammer(app, 30)
    await Limiter("1/hour", store=store, name="app").reset(ADDRESS)
    assert await statuses(app, 20) == [200] + [429] * 19
    assert await reason_of(store) == "limited"
    assert (await hammer(app, 2))["retry-after"] == "60"


async def test_a_longer_block_of_an_operator_stays(store: MemoryStore, clock: ManualClock, events: list[Event]) -> None:
    app, limiter = door(store), Limiter("1/hour", store=store, name="app")
    await limiter.block(ADDRESS, 86_400)
    assert (await hammer(app, 100))["retry-after"] == "86400"
    assert not events
    # A refusal was on its way when the operator came.
    refusal = await Limiter("1/hour", store=MemoryStore()).try_acquire("x")
    refusal = refusal.as_refusal(1)
    count = RefusalCount(Escalate(after=1, within=60, block=(60,)), store, "app")
    await count.count(refusal, limiter, ADDRESS, enforced=True)
    assert (await hammer(app, 1))["retry-after"] == "86400"


@pytest.mark.parametrize(
    "limit",
    [
        "0/day",  # no slower client would pass
        lambda conn: 0,
        lambda conn: "nonsense",  # a mistake of the app
    ],
)
async def test_refusals_that_say_nothing_of_the_key_do_not_count(
    store: MemoryStore, events: list[Event], limit: Any
) -> None:
    app = door(store, limit)
    with pytest.warns() if callable(limit) and limit(None) else _nothing():
        await hammer(app, 100)
    assert not events


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("scope", ["global", "shared"])
async def test_no_key_is_blocked_for_what_others_have_used_up(
    store: MemoryStore, events: list[Event], scope: Any
) -> None:
    app = door(store, [TokenBucket("1/hour", scope=scope), "50/hour"], key=by_header("x-key"))
    await hammer(app, 1, headers=[("x-key", "bob")])
    await hammer(app, 100, headers=[("x-key", "ada")])
    assert not events
    app = door(store, [TokenBucket("1/hour", scope=scope), "1/hour"], name="both", key=by_header("x-key"))
    await hammer(app, 21, headers=[("x-key", "ada")])
    assert [event.seconds for event in events] == [60]


@pytest.mark.parametrize("limits", [["1/minute", "9/hour"], ["9/minute", "1/hour"]])
async def test_of_several_keys_it_is_that_of_the_limit_that_refuses(
    store: MemoryStore, events: list[Event], limits: list[str]
) -> None:
    limiter, count = Limiter(limits, store=store, name="app"), RefusalCount(ESCALATE, store, "app")
    await limiter.try_acquire("ada")
    refusal = await limiter.try_acquire("ada")
    for _ in range(20):
        await count.count(refusal, limiter, ("of the minute", "of the hour"), enforced=True)
    assert [event.key for event in events] == ["of the minute" if limits[0] == "1/minute" else "of the hour"]


@pytest.mark.filterwarnings("ignore:ARL103")
async def test_requests_without_any_identity_are_not_blocked_together(store: MemoryStore, events: list[Event]) -> None:
    assert await statuses(door(store, key=lambda conn: None), 100) == [200] + [429] * 99
    assert not events


async def test_a_refusal_that_is_a_503_does_not_count(store: MemoryStore, events: list[Event]) -> None:
    limit = Concurrency(1, status=503)
    async with Limiter(limit, store=store, name="app").hold(ADDRESS):
        assert await statuses(door(store, limit), 50) == [503] * 50
    assert not events


async def test_a_preflight_never_counts(store: MemoryStore, events: list[Event]) -> None:
    app = door(store, "1/hour")
    assert await statuses(app, 50, method="OPTIONS", headers=PREFLIGHT) == [200] + [429] * 49
    assert not events


async def test_requests_that_are_held_in_vain_count(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, max_wait=1.0)
    await hammer(app, 21)
    assert await reason_of(store) == "blocked"


async def test_websockets_count(store: MemoryStore) -> None:
    app = door(store)
    for _ in range(21):
        await handshake(app)
    assert await reason_of(store) == "blocked"


async def test_a_limit_function_has_one_count_for_all_of_its_limits(store: MemoryStore) -> None:
    app = door(store, lambda conn: "1/hour" if conn.url.path == "/a" else "2/day")
    await hammer(app, 11, path="/a")
    await hammer(app, 12, path="/b")
    assert await reason_of(store) == "blocked"


async def test_each_route_has_blocks_of_its_own(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("1/hour", store=store, key=by_ip, escalate=ESCALATE)

    @app.get("/search", dependencies=[Depends(limit)])
    async def search() -> None: ...

    @app.get("/other", dependencies=[Depends(limit)])
    async def other() -> None: ...

    await hammer(app, 30, path="/search")
    assert await reason_of(store, name="/search") == "blocked"
    assert (await ask(app, "/other")).status == 200
    answer = await ask(app, "/search")
    assert (answer.status, answer["retry-after"], answer["x-ratelimit-scope"]) == (429, "60", "user")


async def test_an_outage_that_fails_closed_is_no_500_and_counts_nothing() -> None:
    assert await statuses(door(UnavailableStore()), 3) == [503] * 3


async def test_a_store_that_fails_after_the_decision_is_no_500(store: MemoryStore) -> None:
    app = door(_Lame(store))
    assert await statuses(app, 30) == [200] + [429] * 29


class _Lame(MemoryStore):
    """It has no room for any count of refusals."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(clock=store.clock)

    def open(self, name: str, policies: Any) -> Any:
        return super().open(name, policies) if name == "app" else UnavailableStore().open(name, policies)


@pytest.mark.filterwarnings("ignore:ARL113")
async def test_an_attack_of_many_keys_fills_no_memory(clock: ManualClock, events: list[Event]) -> None:
    store = MemoryStore(clock=clock, max_keys=100, observers=[events.append])
    app = door(store, escalate=Escalate(after=2, within=60, block=(60,)), key=by_header("x-key"))
    for number in range(500):
        await hammer(app, 5, headers=[("x-key", f"k{number}")])
    assert 100 <= len(store) <= 105
    began = {event.key for event in events if event.kind == "escalated"}
    blocked = {event.key for event in events if event.kind == "blocked"}
    assert began == blocked  # those that the store has no room for are refused, not blocked
    assert 0 < len(began) < 100


async def test_a_dropped_door_leaves_nothing_behind(store: MemoryStore) -> None:
    await hammer(door(store), 1)
    await Limiter("1/hour", store=store, name="app").reset(ADDRESS)
    assert len(store) == 0


@pytest.mark.parametrize("escalate", [20, "20/60", {"after": 20}, Escalate])
def test_a_wrong_escalate_is_named(escalate: Any) -> None:
    for make in (
        lambda: RateLimitMiddleware(hello, limit="1/s", escalate=escalate),
        lambda: RateLimit("1/s", escalate=escalate),
    ):
        with pytest.raises(ValueError, match=r"escalate=Escalate\(after=20, within=60, block=\(60, 600\)\)"):
            make()


def test_without_a_limit_there_are_no_refusals_to_count() -> None:
    with pytest.raises(ValueError, match="limit=None refuses nothing"):
        RateLimitMiddleware(hello, limit=None, escalate=ESCALATE)


async def test_an_allowed_request_costs_no_step_more(store: MemoryStore) -> None:
    """The same records are read and written as without it."""
    plain, counting = door(store, name="plain"), door(store, name="counting")
    await hammer(plain, 1)
    before = len(store)
    await hammer(counting, 1)
    assert len(store) == before + 1
