"""Checks for proxies: one that is not trusted, and a server that believes everyone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final

from starlette.types import Scope

from asgi_ratelimit.inbound.addresses import address_bytes, strip_port
from asgi_ratelimit.inbound.client_ip import ClientIP, by_ip, peer_host
from asgi_ratelimit.inbound.forwarded import SINGLE_HEADERS, chain_reader, forwarded_for, only_address
from asgi_ratelimit.inbound.keys import address_reader, is_shipped
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.server_trust import running_server_trusts_everyone

__all__ = ["ProxyWatch"]

_TRIALS: Final = 10_000  # requests whose address a server has rewritten; each other one counts as a hundred
_REWRITTEN, _PLAIN = 1, 100
_CHAINS = ("x-forwarded-for", "forwarded")
_HEADERS = frozenset(name.encode("ascii") for name in (*_CHAINS, *SINGLE_HEADERS))
_OPTION, _VARIABLE = "--forwarded-allow-ips", "FORWARDED_ALLOW_IPS"


class ProxyWatch:
    """Looks for a wrong address in the first requests. `trials` is positive as long as it does."""

    def __init__(self, warn: Callable[[str, str], None], key: object) -> None:
        self._warn, reader = warn, address_reader(key)
        self._is_ours = reader is not None
        # A function of the user's own may read the address that the server has put into the scope.
        self._reader = by_ip if reader is None and not is_shipped(key) else reader
        self.trials = 0 if self._reader is None else _TRIALS

    def look_at(self, scope: Scope, key: object = None) -> None:
        """Warn once if the address in this request is not the client's. `key`: what the key function has returned."""
        reader = self._reader
        client: Any = scope.get("client")
        is_rewritten = isinstance(client, (list, tuple)) and len(client) > 1 and client[1] == 0
        self.trials = max(0, self.trials - (_REWRITTEN if is_rewritten else _PLAIN))
        present = {name.lower() for name, _ in headers_of(scope)} & _HEADERS
        if not present or reader is None:
            return
        if reader.hops is None and _is_of_the_clients_choice(client, forwarded_for(scope), reader):
            self._warn(
                "ARL112",
                "each invented address is a fresh bucket. Give the server the addresses of your proxies in place of * "
                "(uvicorn --forwarded-allow-ips, FORWARDED_ALLOW_IPS), or count them: ClientIP(hops=1).",
            )
        elif (self._is_ours or key == peer_host(scope)) and (
            not reader.reads_header or is_rewritten or reader.believes(scope, peer_host(scope))
        ):
            header = _unread_header(scope, reader, present)
            if header is not None:
                self._warn("ARL104", _advice(header))


def _unread_header(scope: Scope, reader: ClientIP, present: Iterable[bytes]) -> str | None:
    """A header with another address than the one that is used, and with no sign that the server has read it."""
    used = reader.host_of(scope)
    if reader.reads_header and used != peer_host(scope):
        return None
    farther: list[str | None] | None = None  # the hops beyond the one that is used
    for header in (name for name in _CHAINS if name.encode("ascii") in present):
        hops = _addresses(chain_reader(header), scope)
        if used not in hops:
            return header
        farther = hops[: hops.index(used)]
    for header in (name for name in SINGLE_HEADERS if name.encode("ascii") in present):
        address = only_address(scope, header)
        if address is not None and (farther is None or address in farther) and not _are_equal(address, used):
            return header
    return None


def _addresses(read: Callable[[Scope], list[str]] | None, scope: Scope) -> list[str | None]:
    return [strip_port(hop) for hop in read(scope)] if read else []


def _are_equal(address: str, used: str | None) -> bool:
    return used is not None and address_bytes(address) == address_bytes(used)


def _advice(header: str) -> str:
    name = "-".join(part.upper() if part in ("cf", "ip") else part.capitalize() for part in header.split("-"))
    remedy = f'ClientIP(trusted_proxies=[...], header="{header}")'
    if header == "x-forwarded-for":
        remedy = (
            "ClientIP(trusted_proxies=[...]), or the server's own option with the proxy's address, never with * "
            "(uvicorn --proxy-headers --forwarded-allow-ips=10.0.0.1)"
        )
    return f"{name} is not read. If that is your own proxy, all of its users share one bucket: use {remedy}."


def _is_of_the_clients_choice(client: Any, hops: list[str], reader: ClientIP) -> bool:
    """Whether the server has put the leftmost of several hops in place of its peer, because it trusts everyone."""
    if len(hops) < 2 or not isinstance(client, (list, tuple)) or len(client) < 2:
        return False
    host, port = client[:2]
    if host not in (hops[0], strip_port(hops[0])) or not (port == 0 or hops[0].endswith(f":{port}")):
        return False
    trust = running_server_trusts_everyone()
    if trust is None:
        trust = _configured_server_trusts_everyone()
    return not all(reader.is_trusted(strip_port(hop)) for hop in hops[1:]) if trust is None else trust


def _configured_server_trusts_everyone() -> bool | None:
    """Whether the command line or the environment makes the server do so; None if neither mentions it."""
    arguments = [*sys.argv, *os.environ.get("GUNICORN_CMD_ARGS", "").split()]
    values = [following for option, following in pairwise(arguments) if option == _OPTION]
    values += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{_OPTION}=")]
    values += [os.environ[_VARIABLE]] if _VARIABLE in os.environ else []
    return "*" in values[0].strip("'\"").split(",") if values else None
