"""The names of records: nothing that a user wrote is in them, and nothing in them means anything to Redis."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from asgi_ratelimit import FixedWindow, Limiter, SlidingWindow, TokenBucket
from asgi_ratelimit.redis.names import Namer
from tests.support.servers import Server
from tests.support.stores import names_of, new_store

NAME = re.compile(r"pre:\{[A-Za-z0-9+/_-]{20}\}:[A-Za-z0-9+/_-]+")
HOSTILE = [
    "",
    "{",
    "}",
    "{a}",
    "}{",
    "{}",
    "*",
    "a*b?[c]",
    "\n",
    "\r\n",
    "\0",
    "a b",
    "\udcff",
    "é",
    "\U0001d54f",
    "x" * 10_000,
]
TEXTS = st.text(max_size=8) | st.text(alphabet="{}*\n:0123456789\udcff", max_size=8)


@pytest.mark.anyio
@pytest.mark.parametrize("secret", [None, "secret", b"\xff" * 200])
async def test_no_text_of_a_user_is_in_a_name(any_redis: Server, secret: str | bytes | None) -> None:
    limits = [TokenBucket("9/day"), SlidingWindow("9/day", scope="shared"), FixedWindow("9/day", scope="global")]
    async with new_store(any_redis.url, prefix="pre", secret=secret) as store:
        for text in HOSTILE:
            await Limiter("9/day", store=store).try_acquire(text)
            if text:
                await Limiter(limits, store=store, name=text).try_acquire(text, per=text)
                await Limiter("9/day", store=store, name=text).block(text, 60)
    names = names_of(any_redis)
    assert len(names) > 4 * len(HOSTILE) - 10
    assert [name for name in names if not NAME.fullmatch(name)] == []


@pytest.mark.anyio
@pytest.mark.parametrize("key", HOSTILE)
async def test_a_key_of_any_characters_has_buckets_of_its_own(any_redis: Server, key: str) -> None:
    async with new_store(any_redis.url) as store:
        limiter = Limiter("1/day", store=store)
        for other in dict.fromkeys((key, key + "y", "x" + key)):
            assert (await limiter.try_acquire(other)).allowed
            assert not (await limiter.try_acquire(other)).allowed
        for per in (key, key + "x") if key else ("x",):
            assert (await limiter.try_acquire("of", per=per)).allowed
            assert not (await limiter.try_acquire("of", per=per)).allowed


@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), TEXTS, TEXTS)
def test_different_texts_have_different_tags(some: list[str], others: list[str], text: str, other: str) -> None:
    namer = Namer("pre", b"")
    same = (some, text) == (others, other)
    assert (namer.tag(namer.start(*some), text) == namer.tag(namer.start(*others), other)) == same


@given(TEXTS, TEXTS, TEXTS)
def test_names_of_one_tag_are_in_one_slot(text: str, one: str, other: str) -> None:
    namer = Namer("pre", b"secret")
    tag = namer.tag(namer.start("limiter"), text)
    rests = [namer.tag(namer.start(), rest) for rest in (one, other)]
    assert len({key_slot(namer.name(tag, rest).encode()) for rest in ("block", *rests)}) == 1
    assert key_slot(namer.name(tag, "block").encode()) == key_slot(tag.encode())


def test_a_secret_makes_other_names_and_its_end_counts_too() -> None:
    secrets = [b"", b"a", b"b", b"x" * 64, b"x" * 65, b"x" * 64 + b"y", b"x" * 100]
    tags = {Namer("pre", secret).tag(Namer("pre", secret).start("limiter"), "user:1") for secret in secrets}
    assert len(tags) == len(secrets)


@pytest.mark.anyio
async def test_stores_share_buckets_under_the_same_prefix_and_secret_only(any_redis: Server) -> None:
    options = [{}, {"prefix": "other"}, {"secret": "one"}, {"secret": "two"}]
    for each in options:
        for expected in (True, False):
            async with new_store(any_redis.url, **{"prefix": "pre", **each}) as store:
                assert (await Limiter("1/day", store=store).try_acquire("a")).allowed is expected


@pytest.mark.anyio
async def test_a_secret_may_be_text_or_bytes(any_redis: Server) -> None:
    async with new_store(any_redis.url, prefix="pre", secret="s€cret") as store:
        assert (await Limiter("1/day", store=store).try_acquire("a")).allowed
    async with new_store(any_redis.url, prefix="pre", secret="s€cret".encode()) as store:
        assert not (await Limiter("1/day", store=store).try_acquire("a")).allowed
