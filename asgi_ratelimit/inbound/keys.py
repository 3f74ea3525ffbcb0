"""The key of a request: functions from a connection to a key. None is a request without any identity.

Keys of different kinds never meet. An address has no prefix, a user has `user:`, a header `header:` and its name.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from starlette.requests import HTTPConnection

from asgi_ratelimit.inbound.addresses import digest
from asgi_ratelimit.inbound.client_ip import ClientIP, by_ip
from asgi_ratelimit.inbound.forwarded import header_name
from asgi_ratelimit.inbound.options import Key, KeyFunction, check_call
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.users import LONGEST_TEXT, user_key

__all__ = [
    "address_reader",
    "by_header",
    "by_user",
    "by_user_or",
    "by_user_or_ip",
    "check_key",
    "is_shipped",
]

_CREDENTIALS = (b"authorization", b"proxy-authorization")
_BLANKS = b" \t"  # RFC 9110 §5.6.3
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_TOKEN_START = b"eyJ"  # of a JSON Web Token: `{"` in Base64


def by_user(conn: HTTPConnection) -> Key:
    """`scope["user"]`: its `identity`, `id` or `sub`, unless its `is_authenticated` is false."""
    return user_key(conn.scope)


class by_user_or:  # noqa: N801 - one of the key functions, called like one
    """The user, or the result of `fallback` (sync or async) if there is none."""

    def __init__(self, fallback: KeyFunction) -> None:
        self.fallback: Callable[[Any], Key | Awaitable[Key]] = check_key(fallback, "by_user_or takes")

    def __call__(self, conn: HTTPConnection) -> Key | Awaitable[Key]:
        key = user_key(conn.scope)
        if key is not None:
            return key
        other = self.fallback(conn)
        return _later(other) if isawaitable(other) else _apart(other)


def _apart(key: Key) -> Key:
    """The key of a visitor, which may be a text of the visitor's own: never that of a user."""
    return f"key:{key}" if isinstance(key, str) and key.startswith("user:") else key


async def _later(key: Awaitable[Key]) -> Key:
    return _apart(await key)


def address_reader(key: object) -> ClientIP | None:
    """The part of one of our key functions that reads addresses."""
    if isinstance(key, by_user_or):
        key = key.fallback
    return key if isinstance(key, ClientIP) else None


def is_shipped(key: object) -> bool:
    """Whether a key function is the package's own."""
    if isinstance(key, by_user_or):
        key = key.fallback
    return str(getattr(key, "__module__", "")).startswith("asgi_ratelimit.")


def check_key(key: Any, place: str = "key must be") -> Any:
    """The key function. Raises ValueError if it is none, or if it has yet to be made."""
    if key is by_header:
        raise ValueError(f'{place} a key function such as by_header("x-api-key"), not by_header without its header')
    if isinstance(key, type) and issubclass(key, ClientIP | by_user_or):
        made = "by_user_or(by_ip)" if issubclass(key, by_user_or) else 'ClientIP(trusted_proxies=["10.0.0.0/8"])'
        raise ValueError(f"{place} a key function such as {made}, not the class {key.__name__}")
    if not callable(key):
        raise ValueError(f"{place} a function of the connection such as by_ip or by_user_or_ip, not {key!r}")
    check_call("key", key, "conn")
    return key


def by_header(name: str) -> Callable[[HTTPConnection], Key]:
    """The value of a header that *you* have checked, such as a verified API key.

    A header that a client may invent gives it a fresh bucket for each value: then nothing is limited. Of
    `authorization` the scheme is no part of the key, and Base64 has one spelling. The first line of a repeated header
    counts.
    """
    prefix = header_name(name, "x-api-key")
    wanted = prefix.encode("ascii")
    has_scheme = wanted in _CREDENTIALS

    def key(conn: HTTPConnection) -> Key:
        for header, value in headers_of(conn.scope):
            if header == wanted:
                value = value.strip(_BLANKS)
                return _header_key(prefix, _credentials(value) if has_scheme else value)
        return None

    key.__name__ = prefix
    return key


def _header_key(name: str, value: bytes) -> Key:
    text = value.decode("latin-1")
    return f"header:{name}:{text if len(text) <= LONGEST_TEXT else digest(text)}" if text else None


def _credentials(value: bytes) -> bytes:
    """What follows the scheme, which has any case (RFC 9110 §11.1). A single word is the credentials themselves."""
    scheme, blank, rest = value.replace(b"\t", b" ").partition(b" ")
    credentials = rest.strip(_BLANKS)
    if not blank:
        return scheme
    if scheme.lower() == b"basic":
        return _base64(credentials)
    if credentials.startswith(_TOKEN_START) and credentials.count(b".") == 2:
        signed, _, signature = credentials.rpartition(b".")
        return signed + b"." + _base64(signature.translate(_URL_SAFE))
    return credentials


def _base64(credentials: bytes) -> bytes:
    """The one spelling of Base64: decoders skip what is no letter of it, and what is too much at its end."""
    try:
        return b64encode(b64decode(credentials + b"=="))
    except ValueError:
        return credentials


by_user_or_ip = by_user_or(by_ip)
