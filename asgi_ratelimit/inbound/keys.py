"""The key of a request: functions from a connection to a key. None is a request without any identity."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_ratelimit.inbound.options import Key, KeyFunction

__all__ = ["ClientIP", "by_header", "by_ip", "by_user", "by_user_or", "by_user_or_ip"]

_MAPPED = b"\0" * 10 + b"\xff\xff"  # an IPv4 address in IPv6 clothes, RFC 4291 §2.5.5.2
_MOST_HOPS = 64


class ClientIP:
    """The address of the client: the socket's peer or, behind trusted proxies, the address that they report.

    trusted_proxies: networks such as "10.0.0.0/8", or "unix" for a peer on a unix socket
    ipv6_prefix: the bits of an IPv6 address that count; a /64 is one customer's (RFC 6177)

    `X-Forwarded-For` is ignored unless the peer is a trusted proxy. All lines of it are joined and read from the right
    while the hop is trusted, so that a client cannot choose its own address. IPv4-mapped IPv6 counts as IPv4.
    Raises ValueError if a network cannot be parsed.
    """

    def __init__(self, trusted_proxies: Iterable[str] = (), *, ipv6_prefix: int = 64) -> None:
        if isinstance(trusted_proxies, str):
            raise ValueError(f'trusted_proxies is a list such as ("10.0.0.0/8",), not the string {trusted_proxies!r}')
        if isinstance(ipv6_prefix, bool) or not isinstance(ipv6_prefix, int) or not 1 <= ipv6_prefix <= 128:
            raise ValueError(f"ipv6_prefix must be a number of bits from 1 to 128, e.g. 64, not {ipv6_prefix!r}")
        proxies = list(trusted_proxies)
        self.trusts_unix = "unix" in proxies
        self.trusted_proxies = tuple(_network(proxy) for proxy in proxies if proxy != "unix")
        self.ipv6_prefix = ipv6_prefix
        self._trusts_any = bool(proxies)
        self._mask = ((1 << ipv6_prefix) - 1) << (128 - ipv6_prefix)
        self._read = lru_cache(maxsize=8192)(self._canonical)
        self._is_trusted = lru_cache(maxsize=8192)(self._in_a_trusted_network)

    def __call__(self, conn: HTTPConnection) -> Key:
        return self.of(conn.scope)

    def of(self, scope: Scope) -> Key:
        """The key of a scope."""
        if self._trusts_any:
            peer = peer_host(scope)
            return self._read(self._behind_proxies(scope, peer) if self._trusts(peer) else peer)
        client: Any = scope.get("client")
        # The form of every server; peer_host reads the odd ones, too.
        plain = type(client) is tuple and len(client) == 2 and type(client[0]) is str
        return self._read(client[0] if plain else peer_host(scope))

    def _behind_proxies(self, scope: Scope, peer: str | None) -> str | None:
        hops = forwarded_for(scope)[-_MOST_HOPS:]
        while hops and self._trusts(peer):
            hop = strip_port(hops.pop())
            if address_bytes(hop) is None:
                break  # no address: the hop before is the last one
            peer = hop
        return peer

    def _trusts(self, host: str | None) -> bool:
        return self.trusts_unix if host is None else self._is_trusted(host)

    def _in_a_trusted_network(self, host: str) -> bool:
        packed = address_bytes(host)
        if packed is None:
            return False
        address = ip_address(packed)
        return any(address in network for network in self.trusted_proxies)

    def _canonical(self, host: str | None) -> Key:
        if not host:
            return None
        host = host[:256]
        packed = address_bytes(host)
        if packed is None:
            return host  # a name and no address, as a test client has it
        if len(packed) == 4:
            return socket.inet_ntop(socket.AF_INET, packed)
        network = (int.from_bytes(packed, "big") & self._mask).to_bytes(16, "big")
        text = socket.inet_ntop(socket.AF_INET6, network)
        return text if self.ipv6_prefix == 128 else f"{text}/{self.ipv6_prefix}"


def peer_host(scope: Scope) -> str | None:
    """The host in the scope's `client`; None for a unix socket or anything odd."""
    client = scope.get("client")
    if not client or not isinstance(client, (list, tuple)):
        return None
    host = client[0]
    return host or None if isinstance(host, str) else None


def forwarded_for(scope: Scope) -> list[str]:
    """Every hop of every X-Forwarded-For line, the nearest last."""
    lines = [value for name, value in scope.get("headers", ()) if name.lower() == b"x-forwarded-for"]
    return [hop.strip() for line in lines for hop in line.decode("latin-1").split(",")] if lines else []


def strip_port(hop: str) -> str:
    """`1.2.3.4:80`, `[2001:db8::1]:80`, `"[2001:db8::1]"` and `fe80::1%eth0` without the parts that are no address."""
    hop = hop.strip('" ')
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return hop.partition("%")[0]


def address_bytes(host: str) -> bytes | None:
    """4 or 16 bytes, IPv4-mapped addresses as 4; None if it is no address."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text if isinstance(text, str) else repr([text]))
    except ValueError as error:
        raise ValueError(f'a trusted proxy is a network such as "10.0.0.0/8", not {text!r}: {error}') from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


by_ip = ClientIP()


def by_user(conn: HTTPConnection) -> Key:
    """`scope["user"]` if it is authenticated: its `identity`, or its `display_name` where it has none."""
    return _user_of(conn.scope)


def _user_of(scope: Scope) -> Key:
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    identity = identity_of(user)
    return None if identity is None or identity == "" else f"user:{identity}"


def identity_of(user: Any) -> Any:
    """A user's `identity`, or `display_name` where Starlette's BaseUser has none of its own."""
    try:
        return user.identity
    except (AttributeError, NotImplementedError):
        return getattr(user, "display_name", None)


class by_user_or:  # noqa: N801 - one of the key functions, called like one
    """The user, or the result of `fallback` (sync or async) if there is none."""

    def __init__(self, fallback: KeyFunction) -> None:
        if not callable(fallback):
            raise ValueError(f"by_user_or takes a key function such as by_ip, not {fallback!r}")
        self.fallback = fallback

    def __call__(self, conn: HTTPConnection) -> Key | Awaitable[Key]:
        key = _user_of(conn.scope)
        return self.fallback(conn) if key is None else key


def key_of_scope(key: KeyFunction) -> Callable[[Scope], Key] | None:
    """The same as a function of the scope, if it is one of ours and needs no connection."""
    if isinstance(key, ClientIP):
        return key.of
    if isinstance(key, by_user_or) and isinstance(key.fallback, ClientIP):
        address_of = key.fallback.of
        return lambda scope: (_user_of(scope) if "user" in scope else None) or address_of(scope)
    return None


by_user_or_ip = by_user_or(by_ip)


def by_header(name: str) -> KeyFunction:
    """The value of a header that *you* have checked, such as a verified API key.

    A header that a client may invent gives it a fresh bucket for each value: then nothing is limited.
    """
    if not isinstance(name, str) or not name.strip() or not name.isascii():
        raise ValueError(f'by_header takes the name of a header such as "x-api-key", not {name!r}')
    wanted = name.strip().lower().encode("ascii")
    prefix = wanted.decode("ascii")

    def key(conn: HTTPConnection) -> Key:
        for header, value in conn.scope.get("headers", ()):
            if header == wanted and value:
                return f"{prefix}:{value.decode('latin-1')}"
        return None

    return key
