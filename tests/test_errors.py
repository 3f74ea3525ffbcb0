"""The errors cross a process boundary, with what they say and nothing else."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from math import ceil
from typing import Any

import pytest
from starlette.responses import Response

import asgi_ratelimit
from asgi_ratelimit import (
    Decision,
    FixedWindow,
    Limiter,
    MemoryStore,
    Policy,
    RateLimited,
    RateLimitError,
    SlidingWindow,
    StoreUnavailable,
    TokenBucket,
)
from asgi_ratelimit.discord.errors import (
    DiscordError,
    DiscordRateLimited,
    InvalidBudgetSpent,
    TokenRejected,
    WebhookGone,
)
from asgi_ratelimit.discord.routes import route_of
from asgi_ratelimit.fastapi.refusals import _Refused, _RefusedOnce, _Unavailable

ROUTE = route_of("POST", "/channels/1001/messages")


def refusal() -> Decision:
    return Decision(Policy("search", TokenBucket("1/minute")), 1, 60_000_000, 0, False, bucket_key="user:ada")


class Own(RateLimited):
    """A user's own error, with a constructor of its own."""

    def __init__(self, decision: Decision, *, advice: str) -> None:
        super().__init__(decision)
        self.advice = advice


ERRORS: list[RateLimitError] = [
    RateLimitError("trouble"),
    RateLimited(refusal()),
    Own(refusal(), advice="rest"),
    StoreUnavailable("down"),
    DiscordError(ROUTE, "trouble"),
    DiscordRateLimited(ROUTE, 1.5, "global", "abc"),
    InvalidBudgetSpent(ROUTE, 9_000, 10_000, 60.0),
    TokenRejected(ROUTE),
    WebhookGone(ROUTE),
    _Refused(refusal(), [(b"retry-after", b"60")]),
    _Unavailable(),
]
NAMES = [type(error).__name__ for error in ERRORS]


def fail(number: int) -> None:
    raise ERRORS[number]


def assert_same(one: BaseException, other: RateLimitError) -> None:
    assert type(one) is type(other)
    assert (str(one), one.args, vars(one)) == (str(other), other.args, vars(other))


def test_there_is_an_example_of_every_error() -> None:
    for module in pkgutil.walk_packages(asgi_ratelimit.__path__, "asgi_ratelimit."):
        importlib.import_module(module.name)
    kinds = {kind for kind in kinds_of(RateLimitError) if kind.__module__.startswith("asgi_ratelimit")}
    assert (kinds | {RateLimitError}) - {_RefusedOnce} == {type(error) for error in ERRORS} - {Own}


def kinds_of(kind: type[Any]) -> Iterator[type[Any]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from kinds_of(narrower)


@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
def test_an_error_is_the_same_after_a_pickle_and_a_copy(error: RateLimitError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
    assert_same(copy.copy(error), error)
    assert_same(copy.deepcopy(error), error)


def test_an_error_keeps_its_notes() -> None:
    error = RateLimited(refusal())
    error.add_note("while searching")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while searching"]


def test_errors_come_out_of_a_process_pool() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(fail, number) for number in range(len(ERRORS))]
        for future, error in zip(futures, ERRORS, strict=True):
            raised = future.exception(timeout=60)
            assert raised is not None
            assert_same(raised, error)


LIMITS: list[Any] = [
    "5/day",
    SlidingWindow("5/day"),
    ["5/day", FixedWindow("9/day", scope="shared"), TokenBucket("99/day", scope="global")],
]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_a_pickle_holds_the_key_of_its_own_caller_only(store: MemoryStore, limit: Any) -> None:
    limiter = Limiter(limit, store=store)
    for number in range(9):
        await limiter.try_acquire(f"user:secret{number}", per="room")
    await limiter.block("user:secret-blocked", 60)
    for _ in range(7):
        decision = await limiter.try_acquire("user:ada", per="room")
        for value in (decision, RateLimited(decision), decision.as_refusal(1)):
            pickled = pickle.dumps(value)
            assert b"secret" not in pickled
            assert len(pickled) < 3_000
        assert pickle.loads(pickle.dumps(decision)) == decision


@pytest.mark.anyio
async def test_a_pickled_decision_refunds_nothing(store: MemoryStore) -> None:
    limiter = Limiter(["5/day", "9/week"], store=store)
    decision = await limiter.try_acquire("ada")
    for copied in (pickle.loads(pickle.dumps(decision)), copy.deepcopy(decision)):
        await limiter.refund(copied)
        await limiter.settle(copied, 5)
    assert (await limiter.peek("ada")).remaining == 4
    await limiter.refund(decision)
    assert (await limiter.peek("ada")).remaining == 5


STARTED = time.time()


# The headers for a response of one's own


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["2/minute", "0/day", ["9/s", "2/minute"]], ids=str)
async def test_a_refusal_carries_the_headers_of_its_response(limit: Any) -> None:
    limiter = Limiter(limit, store=MemoryStore())
    with suppress(RateLimited):
        for _ in range(2):
            await limiter.acquire("ada", timeout=0)
    with pytest.raises(RateLimited) as raised:
        await limiter.acquire("ada", timeout=0)
    refused = raised.value
    headers = refused.headers
    wait = ceil(refused.retry_after)
    assert headers["retry-after"] == str(wait)
    assert headers["via"] == "1.1 asgi_ratelimit"
    assert headers["x-ratelimit-limit"] == str(refused.decision.limit)
    assert headers["x-ratelimit-remaining"] == "0"
    assert headers["x-ratelimit-bucket"] == refused.decision.bucket
    assert headers["x-ratelimit-scope"] == "user"
    assert float(headers["x-ratelimit-reset-after"]) >= refused.retry_after
    assert 0 <= float(headers["x-ratelimit-reset"]) - float(headers["x-ratelimit-reset-after"]) - STARTED <= 600
    assert refused.headers is headers


def test_a_global_refusal_names_no_bucket() -> None:
    policy = Policy("app", TokenBucket("1/minute", scope="global"))
    headers = RateLimited(Decision(policy, 1, 60_000_000, 0, False)).headers
    assert headers == {
        "via": "1.1 asgi_ratelimit",
        "x-ratelimit-global": "true",
        "x-ratelimit-scope": "global",
        "retry-after": "60",
    }


def test_the_dependency_s_own_refusal_has_those_of_its_response() -> None:
    assert _Refused(refusal(), [(b"retry-after", b"60")]).headers == {"via": "1.1 asgi_ratelimit", "retry-after": "60"}


def test_a_refusal_with_a_function_for_its_response_leaves_that_behind() -> None:
    error = _RefusedOnce(refusal(), [], lambda conn, decision: Response(), lambda response: None)
    assert type(pickle.loads(pickle.dumps(error))) is RateLimited
