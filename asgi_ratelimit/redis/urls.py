"""The URLs of servers: a server, a cluster, or sentinels and their service. No error repeats a part of a password."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from asgi_ratelimit.redis.dial import Settings, usable

__all__ = ["EXAMPLES", "Address", "Place", "place_of"]

Address = tuple[str, int]
Kind = Literal["single", "sentinel", "cluster"]
Query = list[tuple[str, str]]

EXAMPLES = (
    '"redis://localhost:6379/0", "rediss://…", "unix:///run/redis.sock", "redis+cluster://host:port,host:port", '
    '"redis+sentinel://host:port,host:port/service" or a redis.asyncio client'
)
_QUOTED = f'a password is quoted, "@" as "%40", "/" as "%2F", "#" as "%23", in a URL, as in {EXAMPLES}'
_KINDS: dict[str, Kind] = {"": "single", "cluster": "cluster", "sentinel": "sentinel"}
_OF_SENTINELS = "sentinel_"  # the beginning of an option's name that is for the connections to the sentinels
_OF_POOLS = {"max_connections", "timeout"}  # options that redis-py knows, and that mean nothing here


class Place(NamedTuple):
    """The contents of a URL."""

    kind: Kind
    connection: type[AbstractConnection]
    addresses: Sequence[Address]
    settings: Settings
    service: str = ""
    sentinel_settings: Settings = {}  # noqa: RUF012


def place_of(url: str) -> Place:
    """Raises ValueError if it is no URL of a server."""
    split = _split(url)
    scheme, _, suffix = split.scheme.partition("+")
    if (scheme not in ("redis", "rediss") or suffix not in _KINDS) and split.scheme != "unix":
        raise ValueError(f"a RedisStore takes {EXAMPLES}, not {_shown(split)}")
    kind = _KINDS[suffix]
    if kind == "single":
        return _server(url, split)
    query = _query(split)
    own = [(name, value) for name, value in query if kind == "cluster" or not name.startswith(_OF_SENTINELS)]
    connection: type[AbstractConnection] = SSLConnection if scheme == "rediss" else Connection
    addresses = _addresses(split, 26379 if kind == "sentinel" else 6379)
    credentials, at, _ = split.netloc.rpartition("@")
    if kind == "cluster":
        if split.path.strip("/") not in ("", "0"):
            raise ValueError(f"a cluster has no database but 0; a RedisStore takes {EXAMPLES}")
        return Place(kind, connection, addresses, _settings(f"{scheme}://{credentials}{at}", "", own))
    service, _, db = split.path.strip("/").partition("/")
    if not service:
        raise ValueError(f"{_shown(split)} names no service; it looks like {EXAMPLES}")
    settings = _settings(f"{scheme}://{credentials}{at}", db, own)
    theirs = [(name.removeprefix(_OF_SENTINELS), value) for name, value in query if name.startswith(_OF_SENTINELS)]
    common = {name: value for name, value in settings.items() if name.startswith(("ssl_", "socket_keepalive"))}
    sentinel_settings = usable({**common, **_settings(f"{scheme}://", "", theirs)})
    return Place(kind, connection, addresses, settings, unquote(service), sentinel_settings)


# A URL of one server is read by redis-py, and the others are put in its form.


def _server(url: str, split: SplitResult) -> Place:
    credentials, at, _ = split.netloc.rpartition("@")
    if split.scheme == "unix":
        settings = _read(url)
        _check(UnixDomainSocketConnection, settings, "unix")
        return Place("single", UnixDomainSocketConnection, (), usable(settings))
    addresses = _addresses(split, 6379, default="localhost")
    if len(addresses) > 1:
        raise ValueError(f"{_shown(split)} names several servers; it looks like {EXAMPLES}")
    settings = _settings(f"{split.scheme}://{credentials}{at}", split.path.strip("/"), _query(split))
    connection = SSLConnection if split.scheme == "rediss" else Connection
    return Place("single", connection, addresses, settings)


def _settings(start: str, db: str, query: Query) -> Settings:
    """The settings of connections to any server."""
    if db and not (db.isascii() and db.isdigit()):
        raise ValueError(f"the database is a number, as in {EXAMPLES}")
    options = f"?{urlencode(query)}" if query else ""
    settings = _read(f"{start}host/{db}{options}")
    kind = SSLConnection if start.startswith("rediss:") else Connection
    _check(kind, settings, "rediss" if kind is SSLConnection else "redis")
    return usable({name: value for name, value in settings.items() if name not in ("host", "port")})


def _read(url: str) -> Settings:
    try:
        return dict(ConnectionPool.from_url(url).connection_kwargs)
    except (RedisError, ValueError, TypeError) as error:
        raise ValueError(f"{error}; it looks like {EXAMPLES}") from None


def _check(kind: type[AbstractConnection], settings: Settings, scheme: str) -> None:
    """Options that redis-py would not take, or not understand, when it connects."""
    known = {name for each in kind.__mro__ for name in inspect.signature(each).parameters} | _OF_POOLS
    for name in settings.keys() - known:
        shown = f"{name!r} is" if name.isidentifier() else "it has what is"
        hint = 'needs "rediss", ' if name.startswith("ssl_") else ""
        raise ValueError(f'{shown} no option of a "{scheme}" URL: it {hint}looks like {EXAMPLES}')
    try:
        kind(**usable(settings))
    except (RedisError, ValueError, TypeError) as error:
        raise ValueError(f"{error}; it looks like {EXAMPLES}") from None


# Its parts


def _split(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
    except ValueError:  # its message may have the password in it
        raise ValueError(f"this is no URL, or a character in it is not quoted; a RedisStore takes {EXAMPLES}") from None
    if "@" in f"{split.path}{split.query}{split.fragment}":
        raise ValueError(_QUOTED)
    return split


def _query(split: SplitResult) -> Query:
    return parse_qsl(split.query)


def _addresses(split: SplitResult, port: int, default: str = "") -> list[Address]:
    try:
        parts = [urlsplit(f"//{part}") for part in split.netloc.rpartition("@")[2].split(",")]
        addresses = [(one.hostname or default, one.port or port) for one in parts]
    except ValueError:
        raise ValueError(f"the port of a server is a number up to 65535, as in {EXAMPLES}") from None
    if not all(host for host, _ in addresses):
        raise ValueError(f"{_shown(split)} names a server without a host; it looks like {EXAMPLES}")
    return [(unquote(host), port) for host, port in addresses]


def _shown(split: SplitResult) -> str:
    """The parts of a URL that cannot be a password, or a part of one."""
    if not split.scheme:
        return "a URL without a scheme"
    _, at, hosts = split.netloc.rpartition("@")
    return f'"{split.scheme}://{"***@" if at else ""}{hosts if at else "…"}"'
