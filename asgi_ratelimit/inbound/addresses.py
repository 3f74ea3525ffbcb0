"""Internet addresses: their spellings, the networks they are in, and the customer that one stands for."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

__all__ = ["LONGEST", "Network", "address_bytes", "customer", "digest", "is_within", "network", "strip_port"]

Network = IPv4Network | IPv6Network

LONGEST: Final = 64  # characters of an address with its zone, brackets and port
_MAPPED = b"\0" * 10 + b"\xff\xff"  # an IPv4 address in IPv6 clothes, RFC 4291 §2.5.5.2
_NAT64 = b"\0\x64\xff\x9b" + b"\0" * 8  # an IPv4 address behind a translator, RFC 6052 §2.1
_IPV4_IN_IPV6 = (_MAPPED, _NAT64)


def address_bytes(host: str) -> bytes | None:
    """4 or 16 bytes; 4 for IPv4 addresses within IPv6; None if it is no address."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_IPV4_IN_IPV6) else packed


def strip_port(hop: str) -> str:
    """`1.2.3.4:80`, `[2001:db8::1]:80`, `"[2001:db8::1]"` and `fe80::1%eth0` without the parts that are no address."""
    hop = hop.strip('" \t')
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return hop.partition("%")[0]


def customer(host: str, ipv6_prefix: int) -> str:
    """One text for all addresses of one customer. A host that is no address can be neither an address nor a user.

    A link-local address stands for itself: all neighbours have the same /64 (RFC 4291 §2.5.6).
    """
    packed = address_bytes(host) or address_bytes(strip_port(host))
    if packed is None:
        # A name, as a test client has it, has no colon. All keys of other kinds have one.
        return host if len(host) <= LONGEST and ":" not in host else f"host:{digest(host)}"
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if ipv6_prefix == 128 or (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80):
        return socket.inet_ntop(socket.AF_INET6, packed)
    mask = ((1 << ipv6_prefix) - 1) << (128 - ipv6_prefix)
    first = (int.from_bytes(packed, "big") & mask).to_bytes(16, "big")
    return f"{socket.inet_ntop(socket.AF_INET6, first)}/{ipv6_prefix}"


def digest(text: str) -> str:
    """32 characters in place of a text of any length."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """Whether a host is an address in one of the networks."""
    packed = address_bytes(host) if len(host) <= LONGEST else None
    if packed is None:
        return False
    address = ip_address(packed)
    return any(address in network for network in networks)


def network(text: object, kind: str) -> Network:
    """A network. Raises ValueError if it cannot be parsed, or if it is everything; `kind` is its name there."""
    try:
        parsed = ip_network(text if isinstance(text, str) else repr([text]))
    except ValueError as error:
        raise ValueError(f'{kind} is a network such as "10.0.0.0/8", not {text!r}: {error}') from None
    if isinstance(parsed, IPv6Network) and parsed.prefixlen >= 96 and parsed.network_address.ipv4_mapped:
        parsed = IPv4Network((parsed.network_address.ipv4_mapped, parsed.prefixlen - 96))
    if not parsed.prefixlen:
        raise ValueError(f'{kind} is a network such as "10.0.0.0/8", not {text!r}: every address is in it')
    return parsed
