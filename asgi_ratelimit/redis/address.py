"""Where the servers are: a URL, or the settings of a client that the app has already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from redis import Redis as SyncRedis
from redis import RedisCluster as SyncRedisCluster
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from asgi_ratelimit.redis.connection import RedisPyConnection
from asgi_ratelimit.redis.dial import Settings, open_connection, usable
from asgi_ratelimit.redis.resolver import Resolver
from asgi_ratelimit.redis.sentinel import Service
from asgi_ratelimit.redis.urls import EXAMPLES, Address, Place, place_of

__all__ = ["Address", "Dial", "Location", "Where", "locate"]

Where = str | Redis | RedisCluster | ConnectionPool
"""A URL, or a client whose settings are used."""
Dial = Callable[[Address | None], Awaitable[RedisPyConnection]]  # opens one; the address matters in a cluster


class Location(NamedTuple):
    """One server, a master that Sentinel names, or a cluster."""

    kind: Literal["single", "sentinel", "cluster"]
    name: str  # for the log: without a password
    seeds: Sequence[Address]
    dial: Dial


def locate(where: Where) -> Location:
    """The location that a URL or a client names. Raises ValueError for anything else."""
    if isinstance(where, str):
        return _of_place(place_of(where))
    if isinstance(where, RedisCluster):
        return _of_cluster(where)
    pool = getattr(where, "connection_pool", where) if isinstance(where, Redis) else where
    if isinstance(pool, ConnectionPool):
        return _of_pool(pool)
    if isinstance(where, (SyncRedis, SyncRedisCluster)):
        kind = "Redis" if isinstance(where, SyncRedis) else "RedisCluster"
        raise ValueError(f"a RedisStore takes {EXAMPLES}, not the synchronous redis.{kind}: use redis.asyncio.{kind}")
    raise ValueError(f"a RedisStore takes {EXAMPLES}, not {_shown(where)}")


def _shown(where: object) -> str:
    """Not the whole of it, since a client, or a URL as bytes, may show a password."""
    return repr(where) if where is None or isinstance(where, (bool, int, float)) else f"a {type(where).__name__}"


def _of_place(place: Place) -> Location:
    if place.kind == "cluster":
        return _cluster(place.connection, place.settings, place.addresses)
    if place.kind == "sentinel":
        return _sentinel(place, place.connection)
    if place.addresses:
        host, port = place.addresses[0]
        return _single(place.connection, {**place.settings, "host": host, "port": port})
    return _single(place.connection, place.settings)


# A client


def _of_pool(pool: ConnectionPool) -> Location:
    settings, kind = pool.connection_kwargs, _own(pool.connection_class)
    if not isinstance(pool, SentinelConnectionPool):
        return _single(kind, usable(settings))
    pools = [client.connection_pool for client in pool.sentinel_manager.sentinels]
    addresses = [_address_of(each.connection_kwargs) for each in pools]
    place = Place("sentinel", kind, addresses, usable(settings), pool.service_name, usable(pools[0].connection_kwargs))
    return _sentinel(place, _own(pools[0].connection_class))


def _of_cluster(client: RedisCluster) -> Location:
    settings: Settings = dict(client.get_connection_kwargs())
    seeds = [(str(node.host), int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    return _cluster(_own(settings["connection_class"]), usable(settings), seeds)


def _own(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """A kind of connection that is redis-py's own, and not that of a fake, which leads nowhere."""
    if kind.__module__.partition(".")[0] != "redis":
        raise ValueError(
            f"{kind.__module__}.{kind.__qualname__} is no connection of redis-py to a real server, as a RedisStore "
            f"needs: it takes {EXAMPLES}, and a test without one takes MemoryStore()"
        )
    # Those of Sentinel look up their master by themselves.
    return next(each for each in kind.__mro__ if each.__module__ == AbstractConnection.__module__)


# The ways to connect


def _single(kind: type[AbstractConnection], settings: Settings) -> Location:
    resolver = Resolver()
    name = str(settings["path"]) if "path" in settings else _joined([_address_of(settings)])
    return Location("single", name, (), lambda _: open_connection(kind, settings, resolver))


def _cluster(kind: type[AbstractConnection], settings: Settings, seeds: Sequence[Address]) -> Location:
    resolver = Resolver()

    def dial(address: Address | None) -> Awaitable[RedisPyConnection]:
        host, port = address or seeds[0]
        return open_connection(kind, {**settings, "host": host, "port": port}, resolver)

    return Location("cluster", f"cluster {_joined(seeds)}", seeds, dial)


def _sentinel(place: Place, sentinel_kind: type[AbstractConnection]) -> Location:
    resolver = Resolver()

    def open_sentinel(address: Address) -> Awaitable[RedisPyConnection]:
        settings = {**place.sentinel_settings, "host": address[0], "port": address[1]}
        return open_connection(sentinel_kind, settings, resolver)

    def open_server(address: Address) -> Awaitable[RedisPyConnection]:
        settings = {**place.settings, "host": address[0], "port": address[1]}
        return open_connection(place.connection, settings, resolver)

    service = Service(place.service, place.addresses, open_sentinel, open_server)
    name = f"{place.service} of sentinel {_joined(place.addresses)}"
    return Location("sentinel", name, (), lambda _: service.dial())


def _address_of(settings: dict[str, Any]) -> Address:
    return str(settings.get("host", "localhost")), int(settings.get("port", 6379))


def _joined(addresses: Sequence[Address]) -> str:
    return ",".join(f"{host}:{port}" for host, port in addresses)
