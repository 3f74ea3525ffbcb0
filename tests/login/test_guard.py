"""The scenarios of the LoginGuard, with exact counts: guessing, stuffing, spraying, lock-out, and blocks that grow."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from asgi_ratelimit import FixedWindow, LeakyBucket, MemoryStore, RateLimited, RateLimitError, TokenBucket
from asgi_ratelimit.login import Attempt, LoginGuard
from asgi_ratelimit.testing import ManualClock, unlimited
from tests.support.log_ins import RecordingStore, log_in, results

pytestmark = pytest.mark.anyio

HOME, OFFICE, ELSEWHERE = "198.51.100.7", "203.0.113.1", "192.0.2.9"


@pytest.fixture
def guard(store: MemoryStore) -> LoginGuard:
    return LoginGuard(store=store)


async def guess(guard: LoginGuard, number: int, account: str = "ada", address: str = HOME) -> Counter[str]:
    return await results(guard, [(account, address)] * number)


async def refusal(guard: LoginGuard, account: str = "ada", address: str = HOME) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        async with guard.attempt(account, address):
            pass
    return caught.value


async def test_five_guesses_and_no_more(guard: LoginGuard) -> None:
    assert await guess(guard, 100) == {"wrong": 5, "blocked": 95}
    assert (await refusal(guard)).retry_after == 60.0


async def test_each_block_is_longer_than_the_one_before(guard: LoginGuard, clock: ManualClock) -> None:
    for seconds in (60, 300, 1800, 1800):
        assert await guess(guard, 10) == {"wrong": 5, "blocked": 5}
        assert (await refusal(guard)).retry_after == seconds
        clock.advance(seconds - 0.000001)
        assert await guess(guard, 1) == {"blocked": 1}
        clock.advance(0.000001)
    assert await guess(guard, 1) == {"wrong": 1}


async def test_a_block_is_remembered_for_a_day(guard: LoginGuard, clock: ManualClock) -> None:
    await guess(guard, 5)
    clock.advance(86_400 - 1)
    await guess(guard, 5)
    assert (await refusal(guard)).retry_after == 300.0
    clock.advance(86_400)
    await guess(guard, 5)
    assert (await refusal(guard)).retry_after == 60.0


@pytest.mark.parametrize(
    ("block", "after_six_minutes", "after_an_hour", "after_two_hours"),
    [((60, 300, 1800), 15, 20, 30), ((), 7, 25, 45)],
)
async def test_blocks_allow_more_at_first_and_less_in_the_end(
    block: tuple[float, ...],
    after_six_minutes: int,
    after_an_hour: int,
    after_two_hours: int,
    store: MemoryStore,
    clock: ManualClock,
) -> None:
    guard = LoginGuard(store=store, block=block)
    wrong, counts = 0, {}
    for second in range(0, 7201, 30):
        wrong += (await guess(guard, 6))["wrong"]
        counts[second] = wrong
        clock.advance(30)
    assert (counts[360], counts[3600], counts[7200]) == (after_six_minutes, after_an_hour, after_two_hours)


async def test_what_flows_back_is_the_limits_own_matter(guard: LoginGuard, clock: ManualClock) -> None:
    assert await guess(guard, 4) == {"wrong": 4}
    clock.advance(180)  # one of five in a quarter of an hour
    assert (await guard.peek("ada")).remaining == 2
    assert await guess(guard, 4) == {"wrong": 2, "blocked": 2}


async def test_without_blocks_the_limit_alone_counts(store: MemoryStore, clock: ManualClock) -> None:
    guard = LoginGuard(store=store, block=())
    assert await guess(guard, 10) == {"wrong": 5, "limited": 5}
    assert (await refusal(guard)).retry_after == 180.0
    clock.advance(180)
    assert await guess(guard, 2) == {"wrong": 1, "limited": 1}


async def test_success_costs_nothing_and_clears_the_account(guard: LoginGuard) -> None:
    for _ in range(30):
        assert await guess(guard, 4) == {"wrong": 4}
        assert await log_in(guard, "ada", HOME, right=True) == "in"
        await guard.clear_address(HOME)
        assert (await guard.peek("ada", HOME)).remaining == 5


async def test_success_clears_no_failures_with_other_accounts(guard: LoginGuard) -> None:
    """An attacker logs in to an account of his own between his guesses."""
    counts: Counter[str] = Counter()
    for victim in range(100):
        assert await log_in(guard, "mallory", HOME, right=True) == ("in" if counts["wrong"] < 50 else "blocked")
        counts += await results(guard, [(f"victim {victim}", HOME)])
    assert counts == {"wrong": 50, "blocked": 50}


async def test_the_memory_of_blocks_outlives_a_success(guard: LoginGuard, clock: ManualClock) -> None:
    await guess(guard, 5)
    clock.advance(60)
    await guess(guard, 4)
    assert await log_in(guard, "ada", ELSEWHERE, right=True) == "in"
    await guess(guard, 5)
    assert (await refusal(guard)).retry_after == 300.0


async def test_no_block_is_forgotten_before_the_failures_that_caused_it(store: MemoryStore, clock: ManualClock) -> None:
    guard = LoginGuard(account=FixedWindow("5/week"), store=store)
    assert await guess(guard, 6) == {"wrong": 5, "blocked": 1}
    clock.advance(60 + 86_400)
    assert (await guard.peek("ada")).allowed


async def test_stuffing_a_thousand_accounts_from_one_address(guard: LoginGuard) -> None:
    stuffed = await results(guard, [(f"user {number}", HOME) for number in range(1000)])
    assert stuffed == {"wrong": 50, "blocked": 950}
    assert (await refusal(guard, "someone else", HOME)).retry_after == 60.0
    assert await log_in(guard, "user 999", OFFICE, right=True) == "in"  # each account is as it was
    assert (await guard.peek("user 999", ELSEWHERE)).remaining == 5
    assert (await guard.peek("user 7")).remaining == 4


async def test_spraying_one_account_from_a_thousand_addresses(guard: LoginGuard) -> None:
    await log_in(guard, "ada", OFFICE, right=True)
    sprayed = await results(guard, [("ada", f"10.0.{number // 250}.{number % 250}") for number in range(1000)])
    assert sprayed == {"wrong": 5, "blocked": 995}
    assert await log_in(guard, "ada", OFFICE, right=True) == "in"
    assert (await guard.peek("bob", "10.0.3.9")).remaining == 5  # a refused attempt is charged to no address
    assert (await guard.peek("bob", "10.0.0.0")).remaining == 5


async def test_a_victim_is_not_locked_out_of_a_known_address(guard: LoginGuard) -> None:
    await log_in(guard, "ada", HOME, right=True)
    await guess(guard, 100, address=ELSEWHERE)
    assert await guess(guard, 6) == {"wrong": 5, "blocked": 1}  # the bucket of the place, which is as strict
    assert (await refusal(guard, address=OFFICE)).decision.reason == "blocked"


async def test_a_victim_is_not_locked_out_of_a_known_device(guard: LoginGuard) -> None:
    assert await log_in(guard, "ada", HOME, "a phone", right=True) == "in"
    await guess(guard, 100, address=ELSEWHERE)
    await guard.clear_address(ELSEWHERE)
    assert await log_in(guard, "ada", ELSEWHERE, "another phone", right=True) == "blocked"
    assert await log_in(guard, "ada", ELSEWHERE, "a phone", right=True) == "in"


async def test_a_device_that_is_new_after_a_success_is_known_from_then_on(guard: LoginGuard) -> None:
    async with guard.attempt("ada", HOME) as attempt:
        attempt.succeeded("a phone")
    await guess(guard, 100, address=ELSEWHERE)
    assert await log_in(guard, "ada", ELSEWHERE, "a phone", right=True) == "in"
    async with guard.attempt("ada", OFFICE, "a phone") as attempt:
        attempt.succeeded("a new name of it")
    await guess(guard, 100, address="192.0.2.3")
    assert await log_in(guard, "ada", "192.0.2.3", "a new name of it", right=True) == "in"


async def test_a_known_device_may_log_in_behind_an_address_that_is_blocked(guard: LoginGuard) -> None:
    await log_in(guard, "ada", HOME, "a phone", right=True)
    await results(guard, [(f"user {number}", ELSEWHERE) for number in range(1000)])
    assert await log_in(guard, "ada", ELSEWHERE, right=True) == "blocked"
    assert not (await guard.peek("ada", ELSEWHERE)).allowed
    assert (await guard.peek("ada", ELSEWHERE, "a phone")).allowed
    assert await log_in(guard, "ada", ELSEWHERE, "a phone", right=True) == "in"
    counts = Counter([await log_in(guard, "ada", ELSEWHERE, "a phone") for _ in range(9)])
    assert counts == {"wrong": 5, "blocked": 4}


async def test_a_device_is_known_to_its_own_account_only(guard: LoginGuard) -> None:
    await log_in(guard, "mallory", HOME, "a phone", right=True)
    counts = Counter([await log_in(guard, f"user {number}", HOME, "a phone") for number in range(100)])
    assert counts == {"wrong": 50, "blocked": 50}


@pytest.mark.parametrize(("days", "result"), [(30, "in"), (61, "blocked")])
async def test_a_place_is_known_for_thirty_days_at_least(
    days: int, result: str, guard: LoginGuard, clock: ManualClock
) -> None:
    for _ in range(3):
        await log_in(guard, "ada", HOME, right=True)
        clock.advance(7 * 86_400)
    await log_in(guard, "ada", HOME, right=True)
    clock.advance(days * 86_400 - 0.001)
    await guess(guard, 5, address=ELSEWHERE)
    assert await log_in(guard, "ada", HOME, right=True) == result


async def test_an_account_gets_to_know_twenty_new_places_a_day(guard: LoginGuard, store: MemoryStore) -> None:
    for number in range(100):
        assert await log_in(guard, "mallory", HOME, f"phone {number}", right=True) == "in"
    records = len(store)
    for number in range(100, 200):
        await log_in(guard, "mallory", HOME, f"phone {number}", right=True)
    await guess(guard, 5, "mallory", ELSEWHERE)
    known = [await log_in(guard, "mallory", ELSEWHERE, f"phone {number}", right=True) for number in range(200)]
    assert known.count("in") == 19  # and the address
    assert len(store) - records < 20


async def test_an_account_can_be_cleared_by_hand(guard: LoginGuard) -> None:
    await log_in(guard, "ada", OFFICE, "a phone", right=True)
    await guess(guard, 9)
    await guess(guard, 9, address=OFFICE)
    await guard.clear(" ADA ")
    assert await guess(guard, 9) == {"wrong": 5, "blocked": 4}
    assert (await refusal(guard)).retry_after == 60.0  # the first block again
    assert await log_in(guard, "ada", OFFICE, right=True) == "blocked"
    await guard.clear("ada", OFFICE, "a phone")
    assert await log_in(guard, "ada", OFFICE, right=True) == "in"


async def test_an_address_can_be_cleared_by_hand(guard: LoginGuard) -> None:
    visits = [(f"user {number}", HOME) for number in range(100)]
    assert await results(guard, visits) == {"wrong": 50, "blocked": 50}
    await guard.clear_address(HOME)
    assert await results(guard, visits) == {"wrong": 50, "blocked": 50}
    assert (await refusal(guard)).retry_after == 60.0


async def test_a_look_charges_nothing(guard: LoginGuard) -> None:
    await guess(guard, 3)
    for _ in range(9):
        assert (await guard.peek("ada", HOME)).remaining == 2
    assert (await guard.peek("nobody")).remaining == 5
    await guess(guard, 2)
    looked = await guard.peek("ada", HOME)
    assert (looked.allowed, looked.reason, looked.retry_after) == (False, "blocked", 60.0)


@pytest.mark.parametrize(
    "spelling", ["ADA@example.com", " ada@EXAMPLE.com\n", "\uff41\uff44\uff41@example.com", "ada\u200b@example.com"]
)
async def test_spellings_of_an_account_share_its_bucket(spelling: str, guard: LoginGuard) -> None:
    await guess(guard, 5, "ada@example.com")
    assert await guess(guard, 1, spelling, ELSEWHERE) == {"blocked": 1}


@pytest.mark.parametrize("other", ["a.da@example.com", "ada+x@example.com", "ada@example.org"])
async def test_other_e_mail_addresses_are_other_accounts(other: str, guard: LoginGuard) -> None:
    await guess(guard, 5, "ada@example.com")
    assert await guess(guard, 1, other, ELSEWHERE) == {"wrong": 1}


async def test_spellings_of_an_address_share_its_bucket(guard: LoginGuard) -> None:
    hosts = ["2001:db8::1", "2001:DB8::2", "2001:db8::/64", "2001:db8:0:0:ffff::"]
    counts = await results(guard, [(f"user {number}", hosts[number % 4]) for number in range(60)])
    assert counts == {"wrong": 50, "blocked": 10}


@pytest.mark.parametrize("nothing", [None, "", 7, b"x", "\ud800", "x" * 100_000])
async def test_no_value_of_a_form_is_an_error(nothing: Any, guard: LoginGuard) -> None:
    assert await log_in(guard, nothing, nothing, nothing) == "wrong"
    assert await log_in(guard, nothing, nothing, nothing, right=True) == "in"


async def test_several_limits_for_an_account(store: MemoryStore, clock: ManualClock) -> None:
    guard = LoginGuard(account=["5/15 minutes", "8/day"], block=(), store=store)
    assert await guess(guard, 6) == {"wrong": 5, "limited": 1}
    clock.advance(900)
    assert await guess(guard, 6) == {"wrong": 3, "limited": 3}
    assert (await refusal(guard)).retry_after > 9000


async def test_limits_may_be_turned_off_for_a_users_tests(guard: LoginGuard) -> None:
    with unlimited():
        assert await guess(guard, 100) == {"wrong": 100}
    assert (await guard.peek("ada", HOME)).remaining == 5


@pytest.mark.parametrize("right", [False, True])
async def test_right_and_wrong_names_take_the_same_calls_to_the_store(right: bool, clock: ManualClock) -> None:
    """So that no time and no difference in a refusal says whether an account exists."""
    store = RecordingStore(clock=clock)
    guard = LoginGuard(store=store)
    for address, device in ((OFFICE, "a phone"), (OFFICE, None)):
        await log_in(guard, "ada", address, device, right=True)
    calls, refusals = [], []
    for account in ("ada", "no such account"):
        store.calls.clear()
        for _ in range(7):
            await log_in(guard, account, ELSEWHERE, "a forged device")
        await log_in(guard, account, ELSEWHERE, right=right)
        calls.append([(limiter, verb) for limiter, verb, *_ in store.calls])
        refused = await refusal(guard, account, ELSEWHERE)
        headers = {**refused.headers, "x-ratelimit-reset": "by the machine's clock"}
        refusals.append((headers, repr(refused.decision)))
    assert len(calls[0]) > 50
    assert calls[0] == calls[1]
    assert refusals[0] == refusals[1]


# What is a result


async def test_to_leave_without_a_word_is_a_failure(guard: LoginGuard) -> None:
    async with guard.attempt("ada", HOME):
        pass
    assert (await guard.peek("ada")).remaining == 4


class Answered(Exception):
    status_code = 401


class Broken(Exception):
    status_code = 503


class RefusedElsewhere(RateLimitError):
    status_code = 429


@pytest.mark.parametrize(
    ("error", "remaining"),
    [(Answered(), 4), (ValueError(), 5), (Broken(), 5), (RefusedElsewhere(), 5), (asyncio.CancelledError(), 4)],
    ids=repr,
)
async def test_what_an_exception_says_of_the_result(error: BaseException, remaining: int, guard: LoginGuard) -> None:
    with pytest.raises(type(error)):
        async with guard.attempt("ada", HOME):
            raise error
    decision = await guard.peek("ada", HOME)
    assert decision.remaining == remaining


async def say_and_fail(attempt: Attempt, word: str) -> None:
    async with attempt:
        getattr(attempt, word)()
        raise ValueError("the session cannot be stored")


async def test_a_result_that_was_said_counts_whatever_follows(guard: LoginGuard) -> None:
    for word, remaining in (("failed", 4), ("succeeded", 5)):
        attempt = guard.attempt("ada", HOME)
        with pytest.raises(ValueError, match="the session"):
            await say_and_fail(attempt, word)
        assert (await guard.peek("ada", HOME)).remaining == remaining


async def test_an_attempt_is_used_once(guard: LoginGuard) -> None:
    attempt = guard.attempt("ada", HOME)
    with pytest.raises(RuntimeError, match="async with"):
        _ = attempt.decision
    async with attempt:
        assert attempt.decision.remaining == 4
    with pytest.raises(RuntimeError, match="once"):
        async with attempt:
            pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"account": "5/"}, "5/"),
        ({"account": "0/day"}, "account"),
        ({"account": LeakyBucket("5/minute")}, "account"),
        ({"account": TokenBucket("5/minute", scope="global")}, "account"),
        ({"address": 50}, "50"),
        ({"block": 60}, "block=(60, 300, 1800)"),
        ({"block": (60, 10)}, "at least as long as the one before"),
        ({"block": (0,)}, "number of seconds"),
        ({"block": (True,)}, "number of seconds"),
        ({"memory": 60}, "at least as long as the longest block"),
        ({"account": "5/week", "memory": 86_400}, "as account '5/week' takes to refill, e.g. memory=604800, not 86400"),
        ({"address": ["9/s", FixedWindow("50/2 days")], "memory": 86_400}, "e.g. memory=172800"),
        ({"remember": -1}, "remember is a number of seconds"),
        ({"max_wait": -1}, "max_wait=5"),
        ({"name": ""}, "login"),
        ({"secret": ""}, "secret must be a string"),
        ({"fold": "lower"}, "fold=str.casefold"),
        ({"store": "redis://x"}, "RedisStore"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        LoginGuard(**options)
    assert text in str(caught.value)
