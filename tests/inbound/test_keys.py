"""Keys by user and by header, and that keys of different kinds never meet."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.requests import HTTPConnection

from asgi_ratelimit import (
    ClientIP,
    MemoryStore,
    RateLimitMiddleware,
    by_header,
    by_ip,
    by_user,
    by_user_or,
    by_user_or_ip,
)
from asgi_ratelimit.fastapi import RateLimit
from tests.support.asgi import hello, http, statuses

pytestmark = pytest.mark.anyio


def peer(host: object, **more: Any) -> HTTPConnection:
    return HTTPConnection(http(client=(host, 4711), **more))


# Users


class Member(BaseUser):
    def __init__(self, identity: Any, *, authenticated: bool = True) -> None:
        self._identity, self._authenticated = identity, authenticated

    @property
    def is_authenticated(self) -> bool:
        return self._authenticated

    @property
    def identity(self) -> str:
        return self._identity  # type: ignore[no-any-return]


class Named(BaseUser):
    """A user with a name only: the identity that Starlette's base class has raises NotImplementedError."""

    is_authenticated = True
    display_name = "ada"


def as_user(user: object) -> HTTPConnection:
    return peer("203.0.113.7", user=user)


def test_a_user_is_known_by_identity() -> None:
    assert by_user(as_user(Member("7"))) == by_user(as_user(Member(7))) == "user:7"


def test_a_user_without_identity_is_known_by_display_name() -> None:
    assert by_user(as_user(Named())) == "user:ada"


@pytest.mark.parametrize("user", [Member("7", authenticated=False), UnauthenticatedUser(), None, object(), Member("")])
def test_nobody_is_a_user_without_being_authenticated(user: object) -> None:
    assert by_user(as_user(user)) is None


@dataclass
class Account:
    """A user as many backends have it: any class with an id."""

    id: Any
    is_active: bool = True


class Titled(BaseUser):
    """A user whose name may be that of another one."""

    is_authenticated = True
    display_name = "ada"

    def __init__(self, number: int) -> None:
        self.id = number


class ObjectId:
    """The id of a database that has a type of its own."""

    def __str__(self) -> str:
        return "65f0c0ffee"


class WithMethod:
    """An object with a function where others have a value. Its text is another one for each object."""

    def identity(self) -> str:
        return "ada"


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (Account(ObjectId()), "user:65f0c0ffee"),
        (SimpleNamespace(identity=ObjectId(), is_authenticated=True), "user:65f0c0ffee"),
        (WithMethod(), None),
        (Account(1.5), None),
        (Account(["7"]), None),
        (Account("7"), "user:7"),
        (Account(7), "user:7"),
        (Account(0), "user:0"),
        (Account(UUID(int=7)), f"user:{UUID(int=7)}"),
        (SimpleNamespace(identity="ada", id=7), "user:ada"),
        (SimpleNamespace(id=7, is_authenticated=True), "user:7"),
        (SimpleNamespace(sub="auth0|7"), "user:auth0|7"),
        ({"sub": "7", "iss": "same"}, "user:7"),
        ({"id": 7}, "user:7"),
        (Titled(7), "user:7"),
        ("ada", "user:ada"),
        (7, "user:7"),
        (SimpleNamespace(id=7, is_authenticated=False), None),
        (Account(None), None),
        (Account(""), None),
        (Account(True), None),
        (Account(object()), None),
        ({"name": "ada"}, None),
        ({}, None),
        ("", None),
        (True, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_user_of_any_kind_is_known_by_what_it_has(user: object, key: str | None) -> None:
    assert by_user(as_user(user)) == key
    assert by_user_or_ip(as_user(user)) == (key or "203.0.113.7")


async def test_two_users_of_one_address_have_two_buckets_whatever_they_are(store: MemoryStore) -> None:
    app = RateLimitMiddleware(hello, limit="1/day", store=store)
    for user in (Account(1), {"sub": "2"}, SimpleUser("ada"), SimpleNamespace(id=3, is_authenticated=False)):
        assert await statuses(app, 2, user=user) == [200, 429]
    assert await statuses(app, 1, user=None) == [429]


def test_a_long_identity_is_cut_to_a_digest() -> None:
    one, other = (by_user(as_user(Account("a" * 100_000 + end))) for end in "xy")
    assert one is not None
    assert one != other
    assert len(one) < 64


def test_without_authentication_nobody_is_a_user() -> None:
    assert by_user(peer("203.0.113.7")) is None


TEXTS = st.text() | st.sampled_from(["203.0.113.7", "user:ada", "ada", "host:ada", "user", "header:user:ada", "user:"])


@given(TEXTS, TEXTS, TEXTS)
def test_keys_of_users_addresses_and_headers_never_meet(user: str, host: str, value: str) -> None:
    headers = [(name, value.encode("utf-8", "surrogatepass").decode("latin-1")) for name in ("user", "host", "visitor")]
    conn = peer(host, user=SimpleUser(user), headers=headers)
    keys = [by_user(conn), by_ip(conn), *(by_header(name)(conn) for name, _ in headers)]
    found = [key for key in keys if key is not None]
    assert len(set(found)) == len(found)


def test_who_is_no_user_is_known_by_address() -> None:
    assert by_user_or_ip(as_user(SimpleUser("ada"))) == "user:ada"
    assert by_user_or_ip(as_user(UnauthenticatedUser())) == "203.0.113.7"


async def test_the_fallback_may_be_async_and_is_asked_only_when_needed() -> None:
    asked = []

    async def fallback(conn: HTTPConnection) -> str:
        asked.append(conn)
        return "nobody"

    key = by_user_or(fallback)
    assert key(as_user(SimpleUser("ada"))) == "user:ada"
    assert not asked
    answer = key(peer("203.0.113.7"))
    assert answer is not None
    assert not isinstance(answer, str)
    assert await answer == "nobody"


async def test_no_visitor_has_the_key_of_a_user_through_a_fallback_of_ones_own() -> None:
    def named(conn: HTTPConnection) -> str:
        return conn.headers["x-name"]

    async def named_later(conn: HTTPConnection) -> str:
        return named(conn)

    visitor = peer("203.0.113.7", headers=[("x-name", "user:ada")])
    key, later = by_user_or(named)(visitor), by_user_or(named_later)(visitor)
    assert isinstance(key, str)
    assert not isinstance(later, str | None)
    assert key == await later != by_user(as_user(SimpleUser("ada")))


def test_a_fallback_that_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match="by_ip"):
        by_user_or("ip")  # type: ignore[arg-type]


# Headers


def sent(*pairs: tuple[str, str]) -> HTTPConnection:
    return peer("203.0.113.7", headers=pairs)


def test_a_header_is_a_key_whatever_its_case() -> None:
    assert by_header("X-Api-Key")(sent(("x-api-key", "secret"))) == by_header("x-api-key")(
        sent(("x-api-key", "secret"))
    )
    assert by_header("x-api-key")(sent(("x-api-key", "one"))) != by_header("x-api-key")(sent(("x-api-key", "two")))


def test_the_same_value_of_two_headers_is_two_keys() -> None:
    assert by_header("x-a")(sent(("x-a", "7"))) != by_header("x-b")(sent(("x-b", "7")))


def test_a_header_that_is_missing_or_empty_is_no_key() -> None:
    assert by_header("x-api-key")(sent()) is None
    assert by_header("x-api-key")(sent(("x-api-key", ""))) is None


@pytest.mark.parametrize(
    "value",
    [
        "Bearer tok",
        "bearer tok",
        "BEARER tok",
        "Bearer   tok",
        "Bearer tok  ",
        "  Bearer \t tok\t",
        "Bearer\ttok",
        "tok",
    ],
)
def test_all_spellings_of_credentials_are_one_key(value: str) -> None:
    key = by_header("Authorization")
    assert key(sent(("authorization", value))) == key(sent(("authorization", "Bearer tok")))
    assert key(sent(("authorization", value))) != key(sent(("authorization", "Bearer Tok")))


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ"


@pytest.mark.parametrize(
    ("spellings", "other"),
    [
        (
            ["Basic YWRhOnB3", "basic YWRhOnB3", "Basic YW!RhOnB3", "Basic YWRhOnB3=", "Basic YWRh  OnB3=="],
            "Basic YWRhOnB0",
        ),
        (["Basic YTpiMQ==", "Basic YTpiMQ", "Basic YTpiMR==", "Basic YTpi*MQ="], "Basic YTpiMg=="),
        ([f"Bearer {TOKEN}.c2ln", f"bearer {TOKEN}.c2!ln", f"Bearer {TOKEN}.c2lo"], f"Bearer {TOKEN}x.c2ln"),
        (["Bearer v4.public.one"], "Bearer v4.public.two"),
        (["Basic a"], "Basic b"),
    ],
)
def test_credentials_that_an_app_decodes_alike_are_one_key(spellings: list[str], other: str) -> None:
    key = by_header("authorization")
    assert len({key(sent(("authorization", spelling))) for spelling in spellings}) == 1
    assert key(sent(("authorization", other))) != key(sent(("authorization", spellings[0])))


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    key = by_header("x-api-key")
    assert key(sent(("x-api-key", " \t secret\t "))) == key(sent(("x-api-key", "secret")))
    assert key(sent(("x-api-key", "se cret"))) != key(sent(("x-api-key", "se  cret")))
    assert key(sent(("x-api-key", " \t"))) is None


@pytest.mark.parametrize("first", ["secret", ""])
def test_the_first_line_of_a_repeated_header_counts_as_it_does_for_the_app(first: str) -> None:
    conn = sent(("x-api-key", first), ("x-api-key", "invented"))
    assert conn.headers["x-api-key"] == first
    assert by_header("x-api-key")(conn) == by_header("x-api-key")(sent(("x-api-key", first)))


def test_a_long_value_is_cut_to_a_digest() -> None:
    one, other = (by_header("x-api-key")(sent(("x-api-key", "a" * 100_000 + end))) for end in "xy")
    assert one is not None
    assert one != other
    assert len(one) < 64


@pytest.mark.parametrize("name", ["", "  ", "clé", "x api", "x:", None, 7], ids=repr)
def test_a_header_without_a_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="x-api-key"):
        by_header(name)


# Key functions that have yet to be made


@pytest.mark.parametrize(
    ("key", "right"),
    [
        (by_header, "by_header"),
        (ClientIP, "ClientIP"),
        (by_user_or, "by_user_or"),
        ("user", "by_user_or_ip"),
        (None, "by_user_or_ip"),
    ],
)
def test_a_key_that_is_no_key_function_is_refused_with_a_right_one(key: Any, right: str) -> None:
    for make in (lambda: RateLimitMiddleware(hello, limit="5/s", key=key), lambda: RateLimit(key=key)):
        with pytest.raises(ValueError, match=rf"{right}\W.*not"):
            make()
    with pytest.raises(ValueError, match=right):
        by_user_or(key)
