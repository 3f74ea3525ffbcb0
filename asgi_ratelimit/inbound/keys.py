"""Who is asking: functions from a connection to a key. None means that nobody can be told apart."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from starlette.requests import HTTPConnection

__all__ = ["ClientIP", "Key", "KeyFunction", "by_header", "by_ip", "by_user", "by_user_or", "by_user_or_ip"]

Key = str | None
KeyFunction = Callable[[HTTPConnection], Any]  # a Key, or an awaitable of one

_MAPPED = b"\0" * 10 + b"\xff\xff"  # an IPv4 address in IPv6 clothes, RFC 4291 §2.5.5.2
_MOST_HOPS = 64


class ClientIP:
    """The address of the client: the socket's peer or, behind trusted proxies, whom they name.

    `trusted_proxies` are networks such as "10.0.0.0/8", or "unix" for a peer on a unix socket; ValueError for
    anything else. All X-Forwarded-For lines are joined and read from the right for as long as the hop is
    trusted, so that a client cannot choose its own address. IPv4-mapped IPv6 counts as IPv4; an IPv6 address
    as its /`ipv6_prefix`, since that much is one customer's (RFC 6177).
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
        self._trusts_somebody = bool(proxies)
        self._mask = ((1 << ipv6_prefix) - 1) << (128 - ipv6_prefix)
        self._read = lru_cache(maxsize=8192)(self._canonical)
        self._is_trusted = lru_cache(maxsize=8192)(self._in_a_trusted_network)

    def __call__(self, conn: HTTPConnection) -> Key:
        return self.of(conn.scope)

    def of(self, scope: Any) -> Key:
        """The same of a scope."""
        if self._trusts_somebody:
            peer = peer_host(scope)
            return self._read(self._behind_proxies(scope, peer) if self._trusts(peer) else peer)
        client = scope.get("client")
        # As every server has it; peer_host knows the odd ones, too.
        plain = type(client) is tuple and len(client) == 2 and type(client[0]) is str
        return self._read(client[0] if plain else peer_host(scope))

    def _behind_proxies(self, scope: Any, peer: str | None) -> str | None:
        hops = forwarded_for(scope)[-_MOST_HOPS:]
        while hops and self._trusts(peer):
            hop = strip_port(hops.pop())
            if address_bytes(hop) is None:
                break  # nobody's word: the hop before is the last one known
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
            return host  # a name that the server made up, such as a test client's
        if len(packed) == 4:
            return socket.inet_ntop(socket.AF_INET, packed)
        network = (int.from_bytes(packed, "big") & self._mask).to_bytes(16, "big")
        text = socket.inet_ntop(socket.AF_INET6, network)
        return text if self.ipv6_prefix == 128 else f"{text}/{self.ipv6_prefix}"


def peer_host(scope: Any) -> str | None:
    """The host in the scope's `client`; None for a unix socket or anything odd."""
    client = scope.get("client")
    if not client or not isinstance(client, (list, tuple)):
        return None
    host = client[0]
    return host or None if isinstance(host, str) else None


def forwarded_for(scope: Any) -> list[str]:
    """Every hop of every X-Forwarded-For line, the nearest last."""
    lines = [value for name, value in scope.get("headers", ()) if name.lower() == b"x-forwarded-for"]
    return [hop.strip() for line in lines for hop in line.decode("latin-1").split(",")] if lines else []


def strip_port(hop: str) -> str:
    """`1.2.3.4:80`, `[2001:db8::1]:80`, `"[2001:db8::1]"` and `fe80::1%eth0` without what is no address."""
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


def _user_of(scope: Any) -> Key:
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
    """The user, or whatever `fallback` (sync or async) says when there is none."""

    def __init__(self, fallback: KeyFunction) -> None:
        if not callable(fallback):
            raise ValueError(f"by_user_or takes a key function such as by_ip, not {fallback!r}")
        self.fallback = fallback

    def __call__(self, conn: HTTPConnection) -> Key | Awaitable[Key]:
        key = _user_of(conn.scope)
        return self.fallback(conn) if key is None else key


def key_of_scope(key: KeyFunction) -> Callable[[Any], Key] | None:
    """The same as a function of the scope, where that is one of ours and needs no connection."""
    if isinstance(key, ClientIP):
        return key.of
    if isinstance(key, by_user_or) and isinstance(key.fallback, ClientIP):
        address_of = key.fallback.of
        return lambda scope: (_user_of(scope) if "user" in scope else None) or address_of(scope)
    return None


by_user_or_ip = by_user_or(by_ip)


def by_header(name: str) -> KeyFunction:
    """The value of a header that *you* have checked, such as a verified API key.

    A header that anybody may invent gives everybody a fresh bucket for each value: then it limits nobody.
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
