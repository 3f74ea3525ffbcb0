"""Many networks, and whether an address is in one of them."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from asgi_ratelimit.inbound.addresses import LONGEST, address_bytes, network

__all__ = ["NetworkSet", "parse_network"]

_BITS: Final = {4: 32, 16: 128}  # by the bytes of an address

_MAY_BE_IPV4: Final = bytes(10)  # the start of an IPv6 address that stands for one of IPv4

Parsed = tuple[int, int, int]  # the bytes of an address, the bits of its end that do not count, and the others


class NetworkSet:
    """A look-up takes one step for each length of prefix that there is, whatever the number of networks."""

    __slots__ = ("_levels", "_size")

    def __init__(self, networks: Iterable[Parsed] = ()) -> None:
        levels: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for size, free, first in networks:
            levels[size, free].add(first)
        self._levels = {
            size: tuple([(free, firsts) for (each, free), firsts in sorted(levels.items()) if each == size])
            for size in _BITS
        }
        self._size = sum(map(len, levels.values()))

    def __len__(self) -> int:
        """The number of different networks."""
        return self._size

    def __contains__(self, host: str) -> bool:
        """Whether a host is an address in one of them. IPv4 within IPv6 counts as IPv4."""
        packed = address_bytes(host) if len(host) <= LONGEST else None
        if packed is None:
            return False
        address = int.from_bytes(packed, "big")
        return any(address >> free in firsts for free, firsts in self._levels[len(packed)])


def parse_network(text: str, kind: str) -> Parsed:
    """As `addresses.network`, but a tenth of its time for the usual spellings."""
    start, slash, length = text.partition("/") if isinstance(text, str) else ("", "", "")
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in start else socket.AF_INET, start)
    except (OSError, ValueError):
        packed = b""
    bits = 0 if packed[:10] == _MAY_BE_IPV4 else _BITS.get(len(packed), 0)
    fixed = bits if not slash else int(length) if length.isdecimal() and length.isascii() and len(length) < 4 else 0
    if 0 < fixed <= bits:
        address, free = int.from_bytes(packed, "big"), bits - fixed
        if not address & ((1 << free) - 1):
            return len(packed), free, address >> free
    parsed = network(text, kind)  # another spelling, or none
    free = parsed.max_prefixlen - parsed.prefixlen
    return parsed.max_prefixlen // 8, free, int(parsed.network_address) >> free
