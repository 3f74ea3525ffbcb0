"""The address of a client, also behind proxies: no client can choose its own, and none has two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_ratelimit.inbound.addresses import LONGEST, address_bytes, customer, is_within, network, strip_port
from asgi_ratelimit.inbound.forwarded import MOST_HOPS, chain_reader, header_name, only_address, was_rewritten
from asgi_ratelimit.inbound.network_file import NetworkFile
from asgi_ratelimit.inbound.network_set import NetworkSet, parse_network
from asgi_ratelimit.inbound.options import Key

__all__ = ["ClientIP", "by_ip", "peer_host"]

_CACHED = 8192  # addresses


class ClientIP:
    """The address of the client: the socket's peer or, behind proxies, the address that they report.

    trusted_proxies: networks such as "10.0.0.0/8", or "unix" for a peer on a unix socket
    hops: the number of your proxies, if you do not know their networks
    header: "x-forwarded-for", "forwarded" (RFC 7239), or the name of a header with one address ("cf-connecting-ip")
    ipv6_prefix: the bits of an IPv6 address that count; a /64 is one customer's (RFC 6177)

    The header is ignored unless the peer is a trusted proxy. All lines of it are joined and read from the right while
    the hop is trusted, or for `hops` steps, so that a client cannot choose its own address. With `hops` alone every
    peer counts as your proxy: then no client may reach the server past it. IPv4 within IPv6 (mapped, NAT64) counts as
    IPv4. Raises ValueError if an option is out of range.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        hops: int | None = None,
        header: str = "x-forwarded-for",
        ipv6_prefix: int = 64,
    ) -> None:
        if isinstance(trusted_proxies, str):
            raise ValueError(f'trusted_proxies is a list such as ("10.0.0.0/8",), not the string {trusted_proxies!r}')
        if isinstance(ipv6_prefix, bool) or not isinstance(ipv6_prefix, int) or not 1 <= ipv6_prefix <= 128:
            raise ValueError(f"ipv6_prefix must be a number of bits from 1 to 128, e.g. 64, not {ipv6_prefix!r}")
        if hops is not None and (isinstance(hops, bool) or not isinstance(hops, int) or not 1 <= hops <= MOST_HOPS):
            raise ValueError(f"hops is the number of your proxies from 1 to {MOST_HOPS}, e.g. hops=1, not {hops!r}")
        proxies = list(trusted_proxies)
        self.header = header_name(header, "cf-connecting-ip")
        self.trusts_unix = "unix" in proxies
        self.trusted_proxies = tuple(network(proxy, "a trusted proxy") for proxy in proxies if proxy != "unix")
        self.hops, self.ipv6_prefix = hops, ipv6_prefix
        self.reads_header = bool(proxies) or hops is not None
        if not self.reads_header and self.header != "x-forwarded-for":
            raise ValueError(f"header={header!r} is believed from proxies only: add trusted_proxies=[...] or hops=1")
        self._chain = chain_reader(self.header)
        if self._chain is None and (hops or 1) > 1:
            raise ValueError(f"{header!r} has one address, so hops must be 1 with it, not {hops!r}")
        self._keys: dict[str, str] = {}  # by host
        self._is_proxy = lru_cache(_CACHED)(lambda host: is_within(host, self.trusted_proxies))

    def __call__(self, conn: HTTPConnection) -> Key:
        return self.of(conn.scope)

    def of(self, scope: Scope) -> Key:
        """The key of a scope."""
        if not self.reads_header:
            try:
                return self._keys[scope["client"][0]]
            except (KeyError, IndexError, TypeError):  # it is new, or something odd
                pass
        host = self.host_of(scope)
        return None if host is None else self._key_of(host)

    def host_of(self, scope: Scope) -> str | None:
        """The client's whole address, or what the server has in its place; None for a unix socket or anything odd."""
        peer = peer_host(scope)
        if not self.believes(scope, peer):
            return peer
        if self._chain is None:
            return only_address(scope, self.header) or peer
        for hop in reversed(self._chain(scope)[-(self.hops or MOST_HOPS) :]):
            hop = strip_port(hop)
            if address_bytes(hop) is None:
                return peer  # no address: the hop before is the last one
            peer = hop
            if self.hops is None and not self.is_trusted(peer):
                return peer
        return peer

    def believes(self, scope: Scope, peer: str | None) -> bool:
        """Whether the header is read: the peer is trusted, or hidden by a server that trusts it."""
        if not self.trusted_proxies and not self.trusts_unix:
            return self.hops is not None
        return self.is_trusted(peer) or was_rewritten(scope, peer)

    def within(self, *networks: str | NetworkFile) -> Callable[[HTTPConnection], bool]:
        """A function for `exempt=` or `only=` that is true for clients in these networks, or in those of a file.

        `ClientIP(...).within("10.0.0.0/8")`, `ClientIP(...).within(NetworkFile("partners.txt"))`.
        """
        if not networks:
            raise ValueError('within() takes the networks to look for, such as within("10.0.0.0/8")')
        files = [each for each in networks if isinstance(each, NetworkFile)]
        texts = [each for each in networks if not isinstance(each, NetworkFile)]
        fixed = NetworkSet(parse_network(text, "a network of clients") for text in texts)

        def is_client_within(conn: HTTPConnection) -> bool:
            host = self.host_of(conn.scope)
            return host is not None and (host in fixed or any(host in file for file in files))

        return is_client_within

    def is_trusted(self, host: str | None) -> bool:
        """Whether a host is one of the trusted proxies; None is a peer on a unix socket."""
        if host is None:
            return self.trusts_unix
        return len(host) <= LONGEST and self._is_proxy(host)

    def _key_of(self, host: str) -> str:
        key = self._keys.get(host)
        if key is None:
            key = customer(host, self.ipv6_prefix)
            if len(host) <= LONGEST:  # nobody can fill the memory with long texts
                if len(self._keys) >= _CACHED:
                    self._keys.clear()
                self._keys[host] = key
        return key


def peer_host(scope: Scope) -> str | None:
    """The host in the scope's `client`; None for a unix socket or anything odd."""
    client = scope.get("client")
    if not client or not isinstance(client, (list, tuple)):
        return None
    host = client[0]
    return host or None if isinstance(host, str) else None


by_ip = ClientIP()
