"""Where the servers are: a URL, or the settings of a client that the app has already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import sample
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from asgi_ratelimit.redis.connection import RedisPyConnection

__all__ = ["Address", "Dial", "Location", "Where", "locate"]

Address = tuple[str, int]
Where = str | Redis | RedisCluster | ConnectionPool
"""A URL, or a client whose settings are used."""
Dial = Callable[[Address | None], Awaitable[RedisPyConnection]]  # opens one; the address matters in a cluster

_EXAMPLES = (
    '"redis://localhost:6379/0", "rediss://…", "unix:///run/redis.sock", "redis+cluster://host:port,host:port", '
    '"redis+sentinel://host:port,host:port/service" or a redis.asyncio client'
)
# redis-py repeats a command by itself after an error, which would charge twice.
_NO_RETRY: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "retry_on_error": []}
_FIXED: dict[str, Any] = {**_NO_RETRY, "decode_responses": False, "socket_timeout": None, "health_check_interval": 0}
_FIXED |= {"socket_connect_timeout": None, "protocol": 2}  # we have deadlines of our own
_PATIENCE = 0.3  # seconds for each sentinel; they are queried in random order, one after the other
_USED_SETTINGS = ("host", "port", "path", "db", "username", "password", "credential_provider", "client_name")
_USED_PREFIXES = ("ssl_", "socket_keepalive", "socket_type")


class Location(NamedTuple):
    """One server, a master that Sentinel names, or a cluster."""

    kind: Literal["single", "sentinel", "cluster"]
    name: str  # for the log: without a password
    seeds: Sequence[Address]
    dial: Dial


def locate(where: Where) -> Location:
    """The location that a URL or a client names. Raises ValueError for anything else."""
    if isinstance(where, str):
        return _of_url(where)
    if isinstance(where, RedisCluster):
        return _of_cluster(where)
    if isinstance(where, Redis):
        return _of_pool(where.connection_pool)
    if isinstance(where, ConnectionPool):
        return _of_pool(where)
    raise ValueError(f"a RedisStore takes {_EXAMPLES}, not {where!r:.200}")


# A URL


def _of_url(url: str) -> Location:
    split = _split(url)
    scheme, _, kind = split.scheme.partition("+")
    is_supported = scheme in ("redis", "rediss") and kind in ("", "cluster", "sentinel")
    if not is_supported and split.scheme != "unix":
        raise ValueError(f"a RedisStore takes {_EXAMPLES}, not {_without_password(split)!r}")
    if not kind:
        return _of_pool(_pool(url, split))
    addresses = _addresses(split, 26379 if kind == "sentinel" else 6379)
    if kind == "cluster":
        settings = _settings_of_url(split, scheme, addresses[0], "")
        return _cluster(_class_of(scheme), settings, addresses)
    service, _, db = split.path.strip("/").partition("/")
    if not service:
        raise ValueError(f"{_without_password(split)!r} names no service; it looks like {_EXAMPLES}")
    settings = _settings_of_url(split, scheme, addresses[0], f"/{db}" if db else "")
    return _sentinel(_class_of(scheme), unquote(service), addresses, settings, {})


def _split(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"a RedisStore takes {_EXAMPLES}; this URL is none: {error}") from None
    if "@" in url and "@" not in split.netloc:
        raise ValueError(f'a password is quoted, "/" as "%2F", "#" as "%23", in a URL, as in {_EXAMPLES}')
    return split


def _pool(url: str, split: SplitResult) -> ConnectionPool:
    """The URL as redis-py reads it."""
    try:
        return ConnectionPool.from_url(url)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{_without_password(split)!r}: {error}; it looks like {_EXAMPLES}") from None


def _class_of(scheme: str) -> type[Connection]:
    return SSLConnection if scheme == "rediss" else Connection


def _settings_of_url(split: SplitResult, scheme: str, address: Address, path: str) -> dict[str, Any]:
    """The settings as redis-py reads them from a URL of one server."""
    credentials, at, _ = split.netloc.rpartition("@")
    query = f"?{split.query}" if split.query else ""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return _pool(f"{scheme}://{credentials}{at}{host}:{address[1]}{path}{query}", split).connection_kwargs


def _addresses(split: SplitResult, port: int) -> list[Address]:
    try:
        parts = [urlsplit(f"//{part}") for part in split.netloc.rpartition("@")[2].split(",")]
        addresses = [(one.hostname, one.port or port) for one in parts]
    except ValueError as error:
        raise ValueError(f"{_without_password(split)!r}: {error}; it looks like {_EXAMPLES}") from None
    if not all(host for host, _ in addresses):
        raise ValueError(f"{_without_password(split)!r} names a server without a host; it looks like {_EXAMPLES}")
    return [(host or "", port) for host, port in addresses]


def _without_password(split: SplitResult) -> str:
    credentials, at, host = split.netloc.rpartition("@")
    hidden = credentials.partition(":")[0] + ":***" if ":" in credentials else credentials
    return urlunsplit((split.scheme, f"{hidden}{at}{host}", split.path, "", split.fragment))


# A client


def _of_pool(pool: ConnectionPool) -> Location:
    settings = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        watchers = [client.connection_pool.connection_kwargs for client in pool.sentinel_manager.sentinels]
        scheme = "rediss" if issubclass(pool.connection_class, SSLConnection) else "redis"
        return _sentinel(_class_of(scheme), pool.service_name, [*map(_address_of, watchers)], settings, watchers[0])
    kind, used = pool.connection_class, _connection_settings(settings)
    name = str(settings["path"]) if "path" in settings else _joined([_address_of(settings)])
    return Location("single", name, (), lambda _: _open(kind(**used)))


def _of_cluster(client: RedisCluster) -> Location:
    settings: dict[str, Any] = dict(client.get_connection_kwargs())
    seeds = [(str(node.host), int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    return _cluster(settings["connection_class"], settings, seeds)


def _cluster(kind: type[Connection], settings: dict[str, Any], seeds: Sequence[Address]) -> Location:
    used = _connection_settings(settings)

    def dial(address: Address | None) -> Awaitable[RedisPyConnection]:
        host, port = address or seeds[0]
        return _open(kind(**{**used, "host": host, "port": port}))

    return Location("cluster", f"cluster {_joined(seeds)}", seeds, dial)


def _sentinel(
    kind: type[Connection],
    service: str,
    watchers: Sequence[Address],
    settings: dict[str, Any],
    watcher_settings: dict[str, Any],
) -> Location:
    used = _connection_settings(settings)
    watching = {
        name: value for name, value in _connection_settings(watcher_settings).items() if name not in ("host", "port")
    }
    watching |= {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}

    async def dial(_: Address | None) -> RedisPyConnection:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            sample(watchers, len(watchers)), sentinel_kwargs=watching
        )
        try:
            host, port = await sentinel.discover_master(service)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return await _open(kind(**{**used, "host": host, "port": port}))

    return Location("sentinel", f"{service} of sentinel {_joined(watchers)}", (), dial)


async def _open(connection: RedisPyConnection) -> RedisPyConnection:
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _connection_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a client that are used, and those that are the same for every connection."""
    used = {k: v for k, v in settings.items() if k in _USED_SETTINGS or k.startswith(_USED_PREFIXES)}
    return {**used, **_FIXED}


def _address_of(settings: dict[str, Any]) -> Address:
    return str(settings.get("host", "localhost")), int(settings.get("port", 6379))


def _joined(addresses: Sequence[Address]) -> str:
    return ",".join(f"{host}:{port}" for host, port in addresses)
