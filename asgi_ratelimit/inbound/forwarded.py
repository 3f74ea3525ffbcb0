"""The headers in which proxies report a client: X-Forwarded-For, RFC 7239's Forwarded, and those with one address.

The left of a chain is the client's own text, the right that of the nearest proxy. So all of it is read from the right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from starlette.types import Scope

from asgi_ratelimit.inbound.addresses import address_bytes, strip_port
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.server_trust import running_server_trusts_everyone

__all__ = [
    "MOST_HOPS",
    "SINGLE_HEADERS",
    "chain_reader",
    "forwarded_for",
    "header_name",
    "only_address",
    "was_rewritten",
]

MOST_HOPS: Final = 64
SINGLE_HEADERS: Final = (
    *("cf-connecting-ip", "true-client-ip", "fly-client-ip", "x-real-ip", "x-envoy-external-address", "x-client-ip"),
)
# A parameter of Forwarded. Blanks around "=" are no part of the standard. Nothing is tried twice.
_PAIR = re.compile(
    r"""[ \t]*+ ([^=;"\ \t]*+) [ \t]*+ (?: = [ \t]*+ ( "(?:[^"\\]|\\.)*+" | [^;"]*+ ) [ \t]*+ )?+ (?:;|\Z)""",
    re.VERBOSE,
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 §5.6.2


def header_name(name: object, example: str) -> str:
    """The name in lower case. Raises ValueError if it is no name of a header."""
    text = name.strip().lower() if isinstance(name, str) else ""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f'the name of a header is a string such as "{example}", not {name!r}')
    return text


def chain_reader(header: str) -> Callable[[Scope], list[str]] | None:
    """The function that reads the hops of this header; None if it has one address only."""
    return {"x-forwarded-for": forwarded_for, "forwarded": _forwarded}.get(header)


def forwarded_for(scope: Scope) -> list[str]:
    """The hops of all X-Forwarded-For lines, the nearest last: the first of all, and those that may matter."""
    return _hops(_lines(scope, b"x-forwarded-for"))


def _forwarded(scope: Scope) -> list[str]:
    """The `for=` of the hops of all Forwarded lines, the nearest last; "" for a hop without one."""
    return [_node(element) for element in _elements(",".join(_lines(scope, b"forwarded")))]


def only_address(scope: Scope, header: str) -> str | None:
    """The address in a header that has one; None if it has another value, or several."""
    values = {strip_port(line) for line in _lines(scope, header.encode("ascii"))}
    address = values.pop() if len(values) == 1 else ""
    return address if address_bytes(address) is not None else None


def was_rewritten(scope: Scope, peer: str | None) -> bool:
    """Whether the server has put the leftmost of several hops in place of its peer.

    The port is then 0, unless the hop has one. A client may send its own address and port as well: such a hop counts
    only behind a server that is seen to believe everyone.
    """
    client = scope.get("client")
    if peer is None or not isinstance(client, (list, tuple)) or len(client) < 2:
        return False
    hops = forwarded_for(scope)
    if len(hops) < 2:
        return False
    if client[1] == 0 and peer in (hops[0], strip_port(hops[0])):
        return True
    return running_server_trusts_everyone() is True


def _lines(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers_of(scope) if name.lower() == header]


def _hops(lines: list[str]) -> list[str]:
    """The hops of a list that may stand in several lines: the first, and the last of them."""
    if not lines:
        return []
    text = ",".join(lines)
    hops = text.rsplit(",", MOST_HOPS)
    if len(hops) > MOST_HOPS:
        hops[0] = hops[0].partition(",")[0]
    return [hop.strip(" \t") for hop in hops]


def _elements(text: str) -> list[str]:
    """The last elements of a list with quotes in it; "" for what is no list.

    The quotes are paired from the right. So no quote of a client's swallows what proxies add, and no comma that a proxy
    quotes, as that of a client's Host, is one of the list.
    """
    elements: list[str] = []
    end = at = len(text)
    comma = text.rfind(",")
    while end >= 0 and len(elements) < MOST_HOPS:
        quote = text.rfind('"', max(comma, 0), at)
        if quote >= 0:
            at = _opening(text, quote)
            if at < 0:
                elements.append("")
                break
            comma = text.rfind(",", 0, at) if comma > at else comma
        else:
            elements.append(text[comma + 1 : end])
            end = at = comma
            comma = text.rfind(",", 0, max(end, 0))
    return elements[::-1]


def _opening(text: str, closing: int) -> int:
    """Where the quotes open that close here; -1 if they do not. A quote within them has a backslash before it."""
    at = text.rfind('"', 0, closing)
    while at > 0 and text[at - 1] == "\\":
        at = text.rfind('"', 0, at)
    return at


def _node(element: str) -> str:
    """The node in `for=`. A parameter may occur once only (RFC 7239 §4)."""
    nodes, at = [], 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            nodes.append(pair[2] or "")
        at = pair.end()
    return nodes[0] if len(nodes) == 1 else ""
