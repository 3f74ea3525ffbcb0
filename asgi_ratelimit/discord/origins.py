"""Whose addresses are Discord's: only calls to them are paced, and only their refusals are believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import httpx

__all__ = ["Origin", "Origins", "origin_of"]

Origin = tuple[str, str, int | None]  # scheme, host, port

_PORTS: Final = {"http": 80, "https": 443}
# All of them answer for one API, with one count: https://discord.com/developers/docs/reference#api-reference
_HOSTS: Final = (
    "discord.com", "www.discord.com", "canary.discord.com", "ptb.discord.com",
    "discordapp.com", "www.discordapp.com", "canary.discordapp.com", "ptb.discordapp.com",
)  # fmt: skip
_DISCORD: Final[frozenset[Origin]] = frozenset(("https", host, 443) for host in _HOSTS)


class Origins:
    """Discord's own addresses, and those that a user names besides, e.g. of a proxy or of a FakeDiscord."""

    def __init__(self, more: Iterable[str | httpx.URL] = ()) -> None:
        """Raises ValueError for one that is no absolute address."""
        if isinstance(more, (str, httpx.URL)):
            raise ValueError(f'origins must be several addresses, e.g. ["http://127.0.0.1:8080"], not {more!r:.80}')
        self._all = _DISCORD.union(_checked(address) for address in more)

    def hold(self, origin: Origin) -> bool:
        return origin in self._all

    def include(self, url: httpx.URL) -> frozenset[Origin]:
        """Add the address of this URL. Returns the addresses that are the same server: Discord's own, or this one."""
        origin = origin_of(url)
        self._all |= {origin}
        return _DISCORD if origin in _DISCORD else frozenset({origin})


def origin_of(url: httpx.URL) -> Origin:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _checked(address: object) -> Origin:
    rule = 'origins must be absolute addresses, e.g. ["http://127.0.0.1:8080"]'
    try:
        url = httpx.URL(address) if isinstance(address, (str, httpx.URL)) else httpx.URL("")
    except httpx.InvalidURL as error:
        raise ValueError(f"{rule}: {error}") from None
    if url.scheme not in _PORTS or not url.host:
        raise ValueError(f"{rule}, not {address!r:.80}")
    return origin_of(url)
