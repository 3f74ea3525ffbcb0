"""`by`: limits of one list that have a key of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import (
    Concurrency,
    Escalate,
    Estimate,
    Limit,
    Limiter,
    LimitSource,
    MemoryStore,
    Policy,
    Quota,
    RateLimitMiddleware,
    TokenBucket,
    by,
    by_header,
    by_ip,
    by_user,
    by_user_or,
)
from asgi_ratelimit.inbound.keyed_limits import keyed_limits
from asgi_ratelimit.observe import Event
from asgi_ratelimit.testing import ManualClock
from tests.inbound.conftest import Said
from tests.support.asgi import CONNECT, LEFT, Answer, Exchange, ask, body, handshake, hello, http, settle

pytestmark = pytest.mark.anyio

BOTH: list[str | Limit] = ["9/hour", TokenBucket("99/day")]


def account_of(conn: HTTPConnection) -> str | None:
    return conn.headers.get("x-account")


async def team_of(conn: Request) -> str | None:
    await asyncio.sleep(0)
    return conn.headers.get("x-team")


def door(limit: LimitSource, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(options.pop("app", hello), limit=limit, **{"key": by_ip, **options})


async def call(app: RateLimitMiddleware, account: str = "", address: str = "203.0.113.7", **more: Any) -> Answer:
    headers = [("x-account", account)] if account else []
    return await ask(app, client=(address, 5), headers=[*headers, *more.pop("headers", [])], **more)


async def test_an_address_and_an_account_are_counted_apart_and_charged_together(store: MemoryStore) -> None:
    app = door(["5/hour", by(account_of, "3/15 minutes")], store=store)
    assert [(await call(app, "alice")).status for _ in range(4)] == [200, 200, 200, 429]
    assert [(await call(app, "bob")).status for _ in range(3)] == [200, 200, 429]
    assert (await call(app, "alice", "203.0.113.8")).status == 429
    answer = await call(app, "bob", "203.0.113.8")
    assert (answer.status, answer["x-ratelimit-remaining"]) == (200, "0")


async def test_the_headers_are_those_of_the_limit_that_refused_or_has_the_fewest_left(store: MemoryStore) -> None:
    app = door(["5/hour", by(account_of, "3/hour", name="account")], store=store, headers="both")
    answer = await call(app, "alice")
    assert (answer["x-ratelimit-limit"], answer["x-ratelimit-remaining"]) == ("3", "2")
    assert answer["ratelimit-policy"] == '"app";q=5;w=3600, "account";q=3;w=3600'
    assert answer["ratelimit"].startswith('"app";r=4;t=720, "account";r=2;t=1200')
    for account in ("bob", "bob", "bob", "carol"):
        await call(app, account)
    refused = await call(app, "dave")
    assert (refused.status, refused["x-ratelimit-limit"], refused["retry-after"]) == (429, "5", "720")


async def test_two_equal_limits_with_different_keys_have_a_bucket_each(store: MemoryStore) -> None:
    app = door(["2/hour", by(account_of, "2/hour"), by(team_of, "2/hour")], store=store)
    headers = [("x-team", "203.0.113.7")]
    assert [(await call(app, "203.0.113.7", headers=headers)).status for _ in range(3)] == [200, 200, 429]
    assert (await call(app, "alice", "203.0.113.8", headers=[("x-team", "red")])).status == 200


async def test_an_account_with_the_name_of_an_address_is_no_address(store: MemoryStore) -> None:
    app = door(["3/hour", by(account_of, "3/hour")], store=store)
    for address in ("203.0.113.8", "203.0.113.8", "203.0.113.9"):
        assert (await call(app, "203.0.113.7", address)).status == 200
    assert (await call(app, "203.0.113.7")).status == 429
    assert (await call(app, "alice")).status == 200
    await Limiter("3/hour", store=store, name="app").block("account_of:203.0.113.7", 60)
    assert (await call(app, "alice")).status == 200
    await Limiter("3/hour", store=store, name="app").block("203.0.113.7", 60)
    assert (await call(app, "alice")).status == 429


async def test_a_text_of_the_caller_s_is_never_the_key_of_another_function(store: MemoryStore) -> None:
    """The key function of the door returns what the client has sent."""
    app = door(["9/hour", by(account_of, "9/hour")], store=store, key=lambda conn: conn.headers["x-name"])
    await Limiter("9/hour", store=store, name="app").block("account_of:alice", 60)
    assert (await call(app, "bob", headers=[("x-name", "account_of:alice")])).status == 200
    assert (await call(app, "alice", headers=[("x-name", "bob")])).status == 429


async def test_a_request_without_a_key_shares_one_bucket_and_that_is_said(store: MemoryStore, said: Said) -> None:
    app = door(["99/hour", by(account_of, "2/hour")], store=store)
    answers = [await call(app, "", f"203.0.113.{i}") for i in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (await call(app, "alice")).status == 200
    assert said() == ["ARL103"]


async def test_an_optional_key_leaves_a_request_without_it_to_the_other_limits(store: MemoryStore, said: Said) -> None:
    events: list[Event] = []
    store.observers.add(events.append)
    app = door(["5/hour", by(account_of, "2/hour", optional=True)], store=store)
    assert [(await call(app)).status for _ in range(2)] == [200, 200]
    assert [(await call(app, "alice")).status for _ in range(3)] == [200, 200, 429]
    assert [(await call(app)).status for _ in range(2)] == [200, 429]
    assert said() == []
    alone = door(by(account_of, "1/hour", optional=True), store=store, name="alone")
    assert [(await call(alone)).status for _ in range(3)] == [200] * 3
    assert [event.kind for event in events[-3:]] == ["exempt"] * 3
    assert [(await call(alone, "alice")).status for _ in range(2)] == [200, 429]


async def test_hammering_blocks_the_key_that_was_refused_and_never_all_requests_without_one(
    store: MemoryStore, clock: ManualClock, said: Said
) -> None:
    escalate = Escalate(after=3, within=60, block=(600,))
    app = door(["99/s", by(account_of, "1/s")], store=store, escalate=escalate)
    for account in ("alice", ""):
        assert [(await call(app, account)).status for _ in range(6)] == [200] + [429] * 5
    clock.advance(2)
    assert (await call(app, "alice", "203.0.113.8")).status == 429
    assert [(await call(app, account)).status for account in ("bob", "")] == [200, 200]
    assert said() == ["ARL103"]


async def test_a_user_that_comes_too_late_for_a_limit_of_users_is_noticed(store: MemoryStore, said: Said) -> None:
    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = {"id": 7}
        await hello(scope, receive, send)

    per_user = by(by_user, "1/s", optional=True)
    limits: dict[str, LimitSource] = {"beside": ["9/s", per_user], "alone": per_user}
    for name, limit in limits.items():
        app = door(limit, store=store, app=authenticated, name=name)
        assert (await ask(app)).status == 200
    assert said() == ["ARL107"] * 2


async def test_an_address_behind_a_proxy_is_noticed_where_it_is_the_key_of_one_limit(
    store: MemoryStore, said: Said
) -> None:
    app = door(["9/s", by(by_ip, "1/s")], store=store, key=by_header("x-account"))
    await call(app, "alice", headers=[("x-forwarded-for", "198.51.100.9")])
    assert said() == ["ARL104"]


async def test_a_key_that_is_no_string_and_one_of_a_user_are_read_as_those_of_the_door(
    store: MemoryStore, said: Said
) -> None:
    app = door(by(lambda conn: conn.scope["team"], "1/hour", name="team"), store=store)
    teams: list[Any] = [7, "8", {"id": 9}]
    for team in teams:
        assert [(await ask(app, team=team)).status for _ in range(2)] == [200, 429]
    assert said() == []
    teams = [[], 1.5]
    assert [(await ask(app, team=team)).status for team in teams] == [200, 429]
    assert said() == ["ARL201"]


async def test_an_error_of_a_key_function_is_passed_on(store: MemoryStore) -> None:
    app = door(["9/hour", by(account_of, "9/hour"), by(lambda conn: conn.headers["x-team"], "1/s", name="team")])
    with pytest.raises(KeyError, match="x-team"):
        await call(app, "alice")
    assert len(store) == 0


async def test_shipped_key_functions_have_names(store: MemoryStore) -> None:
    sources = [
        by(by_ip, "1/s"),
        by(by_user, "1/s"),
        by(by_user_or(account_of), "1/s"),
        by(by_header("x-api-key"), "1/s"),
    ]
    assert [source.name for source in sources] == ["by_ip", "by_user", "by_user_or", "x-api-key"]
    app = door(sources, store=store)
    headers = [("x-api-key", "k")]
    assert [(await call(app, "alice", headers=headers)).status for _ in range(2)] == [200, 429]


async def test_a_limit_function_may_choose_limits_with_keys_of_their_own(store: MemoryStore, said: Said) -> None:
    per_account = by(account_of, "2/hour")

    async def tier(conn: HTTPConnection) -> list[str | by] | by | None:
        lists: dict[str, list[str | by] | by | None] = {"/": ["9/hour", per_account], "/alone": per_account}
        return lists.get(conn.url.path)

    app = door(tier, store=store)
    assert [(await call(app, "alice")).status for _ in range(2)] == [200, 200]
    assert (await call(app, "alice", path="/alone")).status == 429
    assert [(await call(app, "alice", path="/free")).status for _ in range(3)] == [200] * 3
    twice = door(lambda conn: ["1/s", by(account_of, "1/s"), by(team_of, "2/s", name="account_of")], name="twice")
    assert (await call(twice, "alice")).status == 429
    assert said() == ["ARL202"]


async def test_a_request_may_be_held_for_the_limit_of_its_account(store: MemoryStore, clock: ManualClock) -> None:
    app = door(["9/hour", by(account_of, "2/2s")], store=store, max_wait=5)
    for _ in range(2):
        await call(app, "alice")
    held = [Exchange(app, http(headers=[("x-account", "alice")]), *body(b"")) for _ in range(2)]
    assert (await call(app, "bob")).status == 200
    for _ in range(2):
        await settle()
        clock.advance(1)
    assert [(await one.answer()).status for one in held] == [200, 200]
    left = await Limiter(["9/hour", TokenBucket("2/2s", name="account_of")], store=store, name="app").peek(
        ("203.0.113.7", "account_of:alice")
    )
    assert [part.remaining for part in left.parts] == [4, 0]


async def test_costs_are_charged_to_each_key_and_settled_in_each(store: MemoryStore) -> None:
    app = door(
        ["900/hour", by(account_of, "90/hour")],
        store=store,
        cost=Estimate(start=50),
        settle=lambda served: int(dict(served.scope["headers"])[b"x-used"]),
    )
    await call(app, "alice", headers=[("x-used", "10")])
    limiter = Limiter(["900/hour", TokenBucket("90/hour", name="account_of")], store=store, name="app")
    left = await limiter.peek(("203.0.113.7", "account_of:alice"))
    assert [part.remaining for part in left.parts] == [890, 80]


async def test_a_slot_of_an_account_ends_with_the_response(store: MemoryStore) -> None:
    inside: list[str] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append("x")
        await release.wait()
        await hello(scope, receive, send)

    release = asyncio.Event()
    app = door(["9/hour", by(account_of, Concurrency(1))], store=store, app=slow)
    first = Exchange(app, http(headers=[("x-account", "alice")]), *body(b""))
    await settle()
    assert (await call(app, "alice", "203.0.113.9")).status == 429
    release.set()
    assert (await first.answer()).status == 200
    assert (await call(app, "alice", "203.0.113.9")).status == 200
    assert len(inside) == 2


async def test_shadow_mode_exemptions_and_sockets_are_as_with_one_key(store: MemoryStore) -> None:
    shadow = door(["9/hour", by(account_of, "1/hour")], store=store, enforce=False, exempt=("/health",))
    assert [(await call(shadow, "alice")).status for _ in range(3)] == [200] * 3
    assert "x-ratelimit-limit" not in await call(shadow, "alice", path="/health")
    sockets = door(["9/hour", by(account_of, "1/hour")], store=store, name="sockets")
    headers = [("x-account", "alice")]
    assert (await handshake(sockets, headers=headers)).sent[0]["type"] == "websocket.accept"
    refused = await Exchange(sockets, {**http(headers=headers), "type": "websocket"}, CONNECT, LEFT).answer()
    assert refused.sent[0]["type"] == "websocket.close"


async def test_an_event_has_the_key_of_the_limit_that_refused_or_the_first(store: MemoryStore) -> None:
    events: list[Event] = []
    store.observers.add(events.append)
    app = door(["2/hour", by(account_of, "1/hour")], store=store)
    for account in ("alice", "alice", "bob", "carol"):
        await call(app, account)
    assert [(event.kind, event.key) for event in events if event.kind != "near"] == [
        ("allowed", "203.0.113.7"),
        ("limited", "account_of:alice"),
        ("allowed", "203.0.113.7"),
        ("limited", "203.0.113.7"),
    ]
    await Limiter("2/hour", store=store, name="app").block("account_of:dave", 60)
    await call(app, "dave", "203.0.113.8")
    assert (events[-1].kind, events[-1].key) == ("blocked", "account_of:dave")


class PlainStore(MemoryStore):
    """A store of somebody's that knows one key alone."""

    def open(self, name: str, policies: Any) -> Any:
        return _PlainBuckets(super().open(name, policies))


class _PlainBuckets:
    def __init__(self, buckets: Any) -> None:
        self.decide, self.peek, self.refund, self.settle = buckets.decide, buckets.peek, buckets.refund, buckets.settle
        self.reset, self.block = buckets.reset, buckets.block


async def test_a_store_for_one_key_says_so_and_serves_one_key() -> None:
    with pytest.raises(ValueError, match="PlainStore takes one key for all limits of a list"):
        door(["9/hour", by(account_of, "1/hour")], store=PlainStore())
    app = door(BOTH, store=PlainStore())
    assert (await call(app)).status == 200


def a_lambda(limit: Any = "1/s") -> by:
    return by(lambda conn: "x", limit)


MISTAKES: dict[str, Any] = {
    "by needs a name of letters and digits": a_lambda,
    "other keys begin with 'user'": lambda: by(account_of, "1/s", name="user"),
    "other keys begin with 'host'": lambda: by(account_of, "1/s", name="host"),
    "by takes a function of the connection": lambda: by("account", "1/s"),  # type: ignore[arg-type]
    "by takes a key function such as by_header": lambda: by(by_header, "1/s"),  # type: ignore[arg-type]
    "a limit is a string such as": lambda: by(account_of, 5),  # type: ignore[arg-type]
    "optional is True or False": lambda: by(account_of, "1/s", optional="yes"),  # type: ignore[arg-type]
    "by.{5} is for limits with a bucket for each key": lambda: by(account_of, TokenBucket("1/s", scope="global")),
    "two key functions of one list have the name 'account_of'": lambda: keyed_limits(
        [by(account_of, "1/s"), by(team_of, "2/s", name="account_of")]
    ),
    "have the same kind and period": lambda: keyed_limits([by(account_of, "1/s"), by(account_of, "2/s")]),
    "an empty list limits nothing": lambda: keyed_limits([]),
    "not 7": lambda: keyed_limits(["1/s", by(account_of, "2/s"), 7]),
    "a list has at most 100 limits": lambda: keyed_limits(by(account_of, f"1/{i + 1}s") for i in range(101)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_a_value_error_that_shows_a_right_value(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()


def test_a_dependency_is_no_key_of_a_middleware() -> None:
    class Depends:
        dependency = staticmethod(account_of)

    with pytest.raises(ValueError, match=r"which FastAPI resolves for Depends\(RateLimit\(...\)\) alone"):
        door(["1/s", by(Depends(), "1/s")])  # type: ignore[arg-type]


def test_the_limits_of_a_by_are_the_same_limits_under_a_name() -> None:
    month = Quota("5/month", tz="Europe/Berlin")
    source = by(account_of, ["5/hour", month, TokenBucket("1/s", name="burst")])
    assert [limit.name for limit in source.limits] == ["account_of", "account_of", "burst"]
    assert source.limits[1] == Quota("5/month", tz="Europe/Berlin", name="account_of")
    assert month.name is None
    assert Policy("app", source.limits[0]).bucket == Policy("app", TokenBucket("5/hour", name="account_of")).bucket
    assert repr(source).startswith("by(account_of, ['5/hour'")
