"""A door's limit, key and cost: whatever a user's functions say, there is neither a 500 nor an open door."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.requests import HTTPConnection

from asgi_ratelimit import (
    FixedWindow,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    SlidingWindow,
    TokenBucket,
    by_header,
)
from asgi_ratelimit.testing import ManualClock
from tests.inbound.conftest import Said
from tests.support.asgi import ask, hello, statuses

pytestmark = pytest.mark.anyio


def shown(value: object) -> str:
    """A test's id, without addresses in memory."""
    return repr(value).partition(" at 0x")[0]


class Trouble(Exception):
    """A user's own."""


class Named(BaseUser):
    """A user with a name only: the identity that Starlette's base class has raises NotImplementedError."""

    is_authenticated = True

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def display_name(self) -> str:
        return self._name


def door(store: MemoryStore, limit: Any = "2/60s", **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(hello, limit=limit, store=store, **options)


# Limits


@pytest.mark.parametrize(
    "limit",
    ["2/60s", TokenBucket("2/60s"), FixedWindow("2/60s"), SlidingWindow("2/60s"), ["2/60s", "9/s"], ("9/s", "2/60s")],
    ids=str,
)
async def test_every_kind_of_limit_is_kept(store: MemoryStore, limit: Any) -> None:
    assert await statuses(door(store, limit), 4) == [200, 200, 429, 429]


@pytest.mark.parametrize("wrap", [False, True], ids=["sync", "async"])
async def test_a_limit_may_depend_on_the_request(store: MemoryStore, wrap: bool) -> None:
    def tier(conn: HTTPConnection) -> str:
        return "3/60s" if conn.headers.get("x-tier") == "gold" else "1/60s"

    async def later(conn: HTTPConnection) -> str:
        return tier(conn)

    app = door(store, later if wrap else tier)
    assert await statuses(app, 2) == [200, 429]
    gold: dict[str, Any] = {"headers": [("x-tier", "gold")], "client": ("203.0.113.8", 1)}
    assert await statuses(app, 4, **gold) == [200, 200, 200, 429]


async def test_a_limit_that_moves_hands_out_no_fresh_bucket(store: MemoryStore) -> None:
    counts = iter(range(100, 400))
    app = door(store, lambda conn: f"{next(counts)}/hour")
    passed = (await statuses(app, 300)).count(200)
    assert passed <= 399  # of the largest; a fresh bucket each time would let pass all of the 300
    assert passed < 300


async def test_a_plan_that_is_toggled_keeps_what_was_used(store: MemoryStore) -> None:
    app = door(store, lambda conn: conn.headers["x-limit"])
    small, large = [("x-limit", "4/hour")], [("x-limit", "8/hour")]
    assert await statuses(app, 3, headers=large) == [200] * 3  # 3/8 of any plan are used
    assert (await ask(app, headers=small))["x-ratelimit-remaining"] == "1"
    assert (await ask(app, headers=large))["x-ratelimit-remaining"] == "2"
    assert await statuses(app, 4, headers=small) == [200, 429, 429, 429]


async def test_a_function_may_give_any_kind_of_limit(store: MemoryStore) -> None:
    given: list[Any] = ["1/60s", FixedWindow("1/60s"), ["5/s", SlidingWindow("1/60s")], iter(["1/60s", "7/s"])]
    app = door(store, lambda conn: given.pop())
    for client in range(len(given)):
        answer = await ask(app, client=(f"203.0.113.{client}", 1))
        assert answer.status == 200
        assert answer["x-ratelimit-limit"] == "1"


async def test_a_function_that_gives_none_says_unlimited(store: MemoryStore) -> None:
    app = door(store, lambda conn: None)
    answers = [await ask(app) for _ in range(50)]
    assert {answer.status for answer in answers} == {200}
    assert not answers[-1].about_limits
    assert len(store) == 0


async def test_a_limit_that_a_function_gives_twice_is_one_bucket(store: MemoryStore) -> None:
    app = door(store, lambda conn: ["2/60s", TokenBucket("9/s")])
    assert await statuses(app, 3) == [200, 200, 429]


async def test_a_thousand_limits_made_up_in_between_refill_nothing(store: MemoryStore) -> None:
    app = door(store, lambda conn: conn.headers["x-limit"])
    assert await statuses(app, 2, headers=[("x-limit", "1/60s")]) == [200, 429]
    for count in range(2, 1_100):
        await ask(app, headers=[("x-limit", f"{count}/60s")])
    assert await statuses(app, 1, headers=[("x-limit", "1/60s")]) == [429]


@pytest.mark.parametrize(
    "limit", ["", "5", "-5/s", 5, 0, False, [], {}, b"5/s", True, ["5/s", None], ["5/s", "5/s"]], ids=shown
)
def test_a_bad_limit_is_refused_where_it_is_written(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit"):
        RateLimitMiddleware(hello, limit=limit)


async def test_a_refused_request_is_charged_to_none_of_several_limits(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, ["1/s", "3/60s"])
    assert await statuses(app, 9) == [200] + [429] * 8
    clock.advance(1)
    assert await statuses(app, 1) == [200]
    clock.advance(1)
    assert await statuses(app, 1) == [200]
    clock.advance(1)
    assert (await ask(app))["x-ratelimit-limit"] == "3"


async def test_a_client_that_polls_while_refused_still_recovers(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store, "1/10s")
    await ask(app)
    for _ in range(9):
        clock.advance(1)
        assert await statuses(app, 1) == [429]
    clock.advance(1)
    assert await statuses(app, 1) == [200]


async def test_a_global_limit_counts_everybody_and_a_users_limit_does_not(store: MemoryStore) -> None:
    app = door(store, ["2/60s", TokenBucket("3/60s", scope="global")])
    assert await statuses(app, 3, client=("203.0.113.1", 1)) == [200, 200, 429]
    assert await statuses(app, 2, client=("203.0.113.2", 1)) == [200, 429]
    assert await statuses(app, 1, client=("203.0.113.3", 1)) == [429]


async def test_a_blocked_key_is_refused_for_as_long_as_it_is_blocked(store: MemoryStore, clock: ManualClock) -> None:
    app = door(store)
    await Limiter("2/60s", store=store, name="app").block("203.0.113.7", 600)
    refusal = await ask(app)
    assert (refusal.status, refusal["retry-after"], refusal.json["retry_after"]) == (429, "600", 600.0)
    assert (await ask(app, client=("203.0.113.8", 1))).status == 200
    clock.advance(600)
    assert (await ask(app)).status == 200


# Keys


async def test_every_key_has_a_bucket_of_its_own(store: MemoryStore) -> None:
    app = door(store, key=by_header("x-key"))
    assert await statuses(app, 3, headers=[("x-key", "a")]) == [200, 200, 429]
    assert await statuses(app, 3, headers=[("x-key", "b")]) == [200, 200, 429]


async def test_a_key_function_may_be_async(store: MemoryStore) -> None:
    async def key(conn: HTTPConnection) -> str:
        return conn.headers["x-key"]

    app = door(store, key=key)
    assert await statuses(app, 3, headers=[("x-key", "a")]) == [200, 200, 429]
    assert await statuses(app, 1, headers=[("x-key", "b")]) == [200]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (UUID(int=1), UUID(int=2)),
        (b"\xff", b"\xfe"),
        (SimpleNamespace(id=1), SimpleNamespace(id=2)),
        (SimpleNamespace(identity="a", id=1), SimpleNamespace(identity="b", id=1)),
        (SimpleNamespace(id=UUID(int=1)), SimpleNamespace(id=UUID(int=2))),
        (SimpleNamespace(identity=0), SimpleNamespace(identity=1)),
        ({"id": 1}, {"id": 2}),
        ({"sub": "a", "aud": "app"}, {"sub": "b", "aud": "app"}),
        (SimpleUser("ada"), SimpleUser("grace")),
        (Named("ada"), Named("grace")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_identifies_somebody_is_a_key(store: MemoryStore, one: Any, other: Any) -> None:
    keys = iter([one, one, one, other])
    app = door(store, key=lambda conn: next(keys))
    assert await statuses(app, 4) == [200, 200, 429, 200]


@pytest.mark.parametrize(
    ("no_key", "code"),
    [
        (None, "ARL103"),
        ("", "ARL103"),
        (b"", "ARL103"),
        (UnauthenticatedUser(), "ARL103"),
        (1.5, "ARL201"),
        (math.nan, "ARL201"),
        ([], "ARL201"),
        (("a", 1), "ARL201"),
        ({"tenant": 7}, "ARL201"),
        (object(), "ARL201"),
        (lambda: "key", "ARL201"),
    ],
    ids=shown,
)
async def test_no_key_is_one_shared_bucket_and_a_word_about_it(
    store: MemoryStore, said: Said, no_key: Any, code: str
) -> None:
    app = door(store, key=lambda conn: no_key)
    assert await statuses(app, 2, client=("203.0.113.1", 1)) == [200, 200]
    assert await statuses(app, 2, client=("203.0.113.2", 1)) == [429, 429]
    assert said() == [code]


async def test_who_has_no_address_shares_a_bucket(store: MemoryStore, said: Said) -> None:
    app = door(store)
    assert await statuses(app, 2, client=None) == [200, 200]
    assert await statuses(app, 1, client=["", None]) == [429]
    assert await statuses(app, 1) == [200]
    assert said() == ["ARL103"]


@pytest.mark.parametrize("key", [None, "ip", 7, "by_ip"], ids=shown)
def test_a_key_that_is_no_function_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="by_user_or_ip"):
        RateLimitMiddleware(hello, limit="5/s", key=key)


# Costs


async def test_a_request_may_cost_more_than_one(store: MemoryStore) -> None:
    app = door(store, "5/60s", cost=2)
    assert await statuses(app, 3) == [200, 200, 429]
    refusal = await ask(app)
    assert refusal["x-ratelimit-remaining"] == "1"
    assert refusal["retry-after"] == "12"


@pytest.mark.parametrize("wrap", [False, True], ids=["sync", "async"])
async def test_a_cost_may_depend_on_the_request(store: MemoryStore, wrap: bool) -> None:
    def price(conn: HTTPConnection) -> int:
        return 3 if conn.scope["method"] == "POST" else 1

    async def later(conn: HTTPConnection) -> int:
        return price(conn)

    app = door(store, "5/60s", cost=later if wrap else price)
    assert (await ask(app, method="POST"))["x-ratelimit-remaining"] == "2"
    assert (await ask(app))["x-ratelimit-remaining"] == "1"
    assert (await ask(app, method="POST")).status == 429


@pytest.mark.parametrize("free", [0, 0.0, False], ids=shown)
async def test_a_cost_of_nothing_is_not_counted(store: MemoryStore, free: Any) -> None:
    app = door(store, cost=lambda conn: free)
    answers = [await ask(app) for _ in range(9)]
    assert {answer.status for answer in answers} == {200}
    assert not answers[0].about_limits
    assert len(store) == 0


@pytest.mark.parametrize(
    ("cost", "charged", "codes"),
    [
        (True, 1, []),
        (2.0, 2, []),
        (1.2, 2, []),
        (6, 5, ["ARL203"]),
        (1e300, 5, ["ARL203"]),
        (10**5000, 5, ["ARL203"]),
        (-1, 1, ["ARL203"]),
        (-0.5, 1, ["ARL203"]),
        (math.nan, 1, ["ARL203"]),
        (math.inf, 1, ["ARL203"]),
        ("2", 1, ["ARL203"]),
        (None, 1, ["ARL203"]),
        (object(), 1, ["ARL203"]),
    ],
    ids=[f"{i}" for i in range(13)],
)
async def test_a_cost_that_makes_no_sense_is_read_safely(
    store: MemoryStore, said: Said, cost: Any, charged: int, codes: list[str]
) -> None:
    app = door(store, "5/60s", cost=lambda conn: cost)
    assert (await ask(app))["x-ratelimit-remaining"] == str(5 - charged)
    await ask(app, client=("203.0.113.8", 1))
    assert said() == codes


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary())
@pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")
async def test_no_cost_is_a_500_and_only_zero_is_free(cost: Any) -> None:
    app = door(MemoryStore(clock=ManualClock()), "5/60s", cost=lambda conn: cost)
    answer = await ask(app)
    assert answer.status == 200
    assert ("x-ratelimit-limit" in answer) == (isinstance(cost, (str, bytes)) or cost is None or cost != 0)


@pytest.mark.parametrize("cost", [0, -1, 6, 1.0, True, "1", None, math.nan], ids=shown)
def test_a_bad_cost_is_refused_where_it_is_written(cost: Any) -> None:
    with pytest.raises(ValueError, match="from 1 to 5"):
        RateLimitMiddleware(hello, limit="5/s", cost=cost)


async def test_a_cost_above_what_a_function_allows_counts_as_all_of_it(store: MemoryStore, said: Said) -> None:
    app = door(store, lambda conn: "5/60s", cost=10)
    assert await statuses(app, 2) == [200, 429]
    assert said() == ["ARL203"]


# Whose error it is


def raising(conn: HTTPConnection, *more: object) -> Any:
    raise Trouble("mine")


async def raising_later(conn: HTTPConnection, *more: object) -> Any:
    raise Trouble("mine")


@pytest.mark.parametrize("option", ["limit", "key", "cost", "exempt"])
@pytest.mark.parametrize("function", [raising, raising_later])
async def test_what_a_users_function_raises_is_passed_on_and_charges_nothing(
    store: MemoryStore, option: str, function: Callable[..., Any]
) -> None:
    options: dict[str, Any] = {"limit": "2/60s", option: function}
    with pytest.raises(Trouble, match=r"^mine$"):
        await ask(RateLimitMiddleware(hello, store=store, **options))
    assert len(store) == 0


@pytest.mark.parametrize("function", [raising, raising_later])
async def test_what_on_limited_raises_is_passed_on(store: MemoryStore, function: Callable[..., Any]) -> None:
    app = door(store, "1/60s", on_limited=function)
    assert (await ask(app)).status == 200
    with pytest.raises(Trouble, match=r"^mine$"):
        await ask(app)


async def test_what_refund_raises_is_passed_on(store: MemoryStore) -> None:
    with pytest.raises(Trouble, match=r"^mine$"):
        await ask(door(store, refund=raising))


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"max_wait": -1}, "max_wait=2.5"),
        ({"max_wait": math.nan}, "max_wait=2.5"),
        ({"max_wait": math.inf}, "max_wait=2.5"),
        ({"max_wait": "1"}, "max_wait=2.5"),
        ({"headers": "rfc"}, "discord"),
        ({"headers": ["discord"]}, "discord"),
        ({"refund": 401}, "function"),
        ({"on_limited": "slow down"}, "function"),
        ({"exempt": ["health"]}, "/health"),
        ({"exempt": [7]}, "/health"),
        ({"messages": "many"}, "5/5s"),
        ({"name": ""}, "search"),
        ({"name": None}, "search"),
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", ["5/s", lambda conn: "5/s"], ids=["limit", "function"])
def test_a_bad_option_is_refused_with_a_right_one(limit: Any, options: Any, right: str) -> None:
    with pytest.raises(ValueError, match=right):
        RateLimitMiddleware(hello, limit=limit, **options)
