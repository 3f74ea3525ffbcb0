"""One connection, opened by redis-py: at an address that was looked up apart, with replies read within bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asgi_ratelimit.redis.connection import TLS_GOODBYE, RedisPyConnection, hang_up
from asgi_ratelimit.redis.resolver import Resolver

__all__ = ["Settings", "UnusableSettings", "open_connection", "usable"]

Settings = dict[str, Any]

_SECONDS_EACH = 0.3  # for each of several addresses of a name, except the last
# redis-py repeats a command by itself after an error, which would charge twice.
_FIXED: Settings = {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "decode_responses": False, "protocol": 2}
_FIXED |= {"socket_timeout": None, "socket_connect_timeout": None, "health_check_interval": 0}  # we have our deadlines
# It reads no further than replies go. The other one makes room at once for as many as a reply announces.
_FIXED |= {"parser_class": _AsyncRESP2Parser}
with suppress(ImportError):  # before 7.2 there is none
    from redis import DriverInfo

    _FIXED["driver_info"] = DriverInfo()  # for all: each connection would read redis-py's version from the disk
_USED = ("host", "port", "path", "db", "username", "password", "credential_provider", "client_name")
_USED_PREFIXES = ("ssl_", "socket_keepalive", "socket_type")


class UnusableSettings(Exception):
    """The settings of a connection cannot be used, whatever the server does."""


def usable(settings: Settings) -> Settings:
    """The settings of a client that are used, and those that are the same for every connection."""
    return {k: v for k, v in settings.items() if k in _USED or k.startswith(_USED_PREFIXES)} | _FIXED


async def open_connection(kind: type[AbstractConnection], settings: Settings, resolver: Resolver) -> RedisPyConnection:
    """Raises UnusableSettings, and the errors of redis-py."""
    if "path" in settings:
        return await _open(kind(**settings))
    if settings.get("ssl_cert_reqs") in ("none", ssl.CERT_NONE):  # which redis-py 6.0 refuses while names are checked
        settings = {**settings, "ssl_check_hostname": False}
    addresses = await resolver.addresses(str(settings.get("host", "localhost")))
    for address in addresses[:-1]:
        try:
            async with asyncio.timeout(_SECONDS_EACH):
                return await _open(_at(kind, address, settings))
        except AuthenticationError:
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError):
            continue
    return await _open(_at(kind, addresses[-1], settings))


def _at(kind: Any, address: str, settings: Settings) -> Any:
    connection = _resolved(kind)(**settings)
    connection.address = address
    return connection


async def _open(connection: Any) -> RedisPyConnection:
    if isinstance(connection, SSLConnection):
        _check_tls(connection)
    try:
        await connection.connect()
    except BaseException:
        hang_up(connection)
        raise
    opened: RedisPyConnection = connection
    return opened


def _check_tls(connection: SSLConnection) -> None:
    """A file that cannot be read is no outage."""
    try:
        connection.ssl_context.get()
    except (OSError, ValueError, TypeError) as error:
        raise UnusableSettings(f"the TLS options cannot be used: {error}") from error


class _Resolved:
    """A connection to an address. The certificate is still checked against the host's name."""

    host: str
    address: str

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self.address}  # type: ignore[misc]
        if "ssl" not in arguments:
            return arguments
        return {**arguments, "server_hostname": self.host, "ssl_shutdown_timeout": TLS_GOODBYE}


@lru_cache(maxsize=8)
def _resolved(kind: Any) -> Any:
    return type(kind.__name__, (_Resolved, kind), {})
