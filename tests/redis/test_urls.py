"""URLs that cannot be used: the error shows a right one, names what is wrong, and repeats no part of a password."""

from __future__ import annotations

import re
import traceback
from typing import Any

import pytest

from asgi_ratelimit.redis import RedisStore

SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "redis+cluster://", "unix://")
UNQUOTED = "\uff0f\u2100\uff20\uff1a\uff1f\uff03"  # in their plain form they are /, a/c, @, :, ? and #

BAD = [
    "",
    "localhost",
    "localhost:6379",
    "http://{}@localhost",
    "redis+something://{}@localhost",
    "redis://{}@localhost:port",
    "redis://{}@localhost:99999",
    "redis://{}@localhost/0?socket_timeout=often",
    "redis://{}/x@localhost",
    "redis://{}#x@localhost",
    "redis://{}?x@localhost",
    "redis+cluster://{}/x@one,two",
    "redis+sentinel://{}/x@one/service",
    "redis+cluster://{}@",
    "redis+cluster://{}@one,,two",
    "redis+cluster://{}@one:port",
    "redis+cluster://{}@one/0?socket_timeout=often",
    "redis+sentinel://{}@one",
    "redis+sentinel://{}@one/",
    "redis+sentinel://{}@one:port/service",
    "redis+sentinel://{}@one/service?socket_timeout=often",
    "redis://{}@[::1",
    "unix://{}@/run/redis.sock?db=seven",
]


@pytest.mark.parametrize("url", BAD)
def test_a_bad_url_is_a_value_error_that_shows_a_right_one_and_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="redis://localhost:6379/0") as caught:
        RedisStore(url.format("ada:hunter2"))
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        *(f"{start}ada:hun{sign}ter2@localhost/service" for start in SCHEMES for sign in UNQUOTED),
        "redis://ada:x@hunter2/y@localhost",
        "redis://ada:x@hunter2?y@localhost",
        "redis://ada:x@hunter2#y@localhost",
        "redis://ada:hunter2",
        "redis://hunter2@one,two",
        "redis://localhost?hunter2=hunter2",
        "redis://localhost?password=hunter2&socket_timeout=hunter2",
        "redis://localhost/hunter2",
        "redis+sentinel://one/service?sentinel_password=hunter2&socket_timeout=often",
        "redis+sentinel://one/service/hunter2",
        "redis+cluster://one/hunter2",
        "redis+cluster://one?sentinel_password=hunter2",
        "hunter2",
        b"redis://ada:hunter2@localhost",
        "rediss://ada:hunter2@localhost?ssl_cert_reqs=sometimes",
    ],
)
def test_no_part_of_a_password_is_in_the_error_of_a_bad_url(url: Any) -> None:
    with pytest.raises(ValueError, match="redis://localhost:6379/0") as caught:
        RedisStore(url)
    text = "".join(traceback.format_exception(caught.value)).partition("ValueError: ")[2]
    assert "hunter2" not in text.replace("'hunter2' is no option", "")
    assert "ter2" not in text.replace("'hunter2' is no option", "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost?pasword=x", "'pasword' is no option of a \"redis\" URL"),
        ("redis://localhost?ssl_ca_certs=ca.pem", '\'ssl_ca_certs\' is no option of a "redis" URL: it needs "rediss"'),
        ("unix:///run/redis.sock?host=x", "'host' is no option of a \"unix\" URL"),
        ("redis://localhost?sentinel_password=x", "'sentinel_password' is no option"),
        ("redis+sentinel://localhost/mine?sentinel_pasword=x", "'pasword' is no option"),
        ("redis://localhost/first", "the database is a number"),
        ("redis+cluster://localhost/3", "a cluster has no database but 0"),
        ("redis://one,two", "names several servers"),
        ("rediss://localhost?ssl_cert_reqs=sometimes", "sometimes"),
    ],
)
def test_a_bad_option_of_a_url_is_named(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        RedisStore(url)
