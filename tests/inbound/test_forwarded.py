"""The headers of proxies besides X-Forwarded-For: RFC 7239's Forwarded, and those with one address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from asgi_ratelimit import ClientIP
from tests.support.asgi import http

PROXY = "10.0.0.1"
by_networks = ClientIP(trusted_proxies=["10.0.0.0/8"], header="forwarded")
by_hops = ClientIP(hops=1, header="Forwarded")
v4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))


def forwarded(*lines: str, by: str = PROXY) -> HTTPConnection:
    return HTTPConnection(http(client=(by, 4711), headers=[("forwarded", line) for line in lines]))


@pytest.mark.parametrize(
    ("element", "key"),
    [
        ("for=192.0.2.60", "192.0.2.60"),
        ("For=192.0.2.60;Proto=https;By=203.0.113.43", "192.0.2.60"),
        ("proto=https ; FOR = 192.0.2.60", "192.0.2.60"),
        ('for="192.0.2.60:47011"', "192.0.2.60"),
        ('for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::/64"),
        ('for="[2001:DB8:cafe::17]"', "2001:db8:cafe::/64"),
        ("for=unknown", PROXY),
        ("for=_hidden", PROXY),
        ("by=192.0.2.60", PROXY),
        ("for=192.0.2.60;for=192.0.2.61", PROXY),
        ("192.0.2.60", PROXY),
        ("for", PROXY),
        ("for=", PROXY),
        ("", PROXY),
    ],
)
def test_the_node_of_an_element_is_the_client(element: str, key: str) -> None:
    assert by_networks(forwarded(element)) == by_hops(forwarded(element)) == key


def test_elements_are_read_from_the_right() -> None:
    chain = "for=1.1.1.1, for=203.0.113.7;proto=https", 'for="10.0.0.9:80", for=10.0.0.8'
    assert by_networks(forwarded(*chain)) == "203.0.113.7"
    assert by_hops(forwarded(*chain)) == "10.0.0.8"


def test_a_peer_that_is_not_trusted_is_not_believed() -> None:
    assert by_networks(forwarded("for=1.1.1.1", by="203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize(
    "host",
    [
        "x, for=6.6.6.6",
        "x,for=6.6.6.6;a=",
        r"x\", for=6.6.6.6",
        r"\", for=\"6.6.6.6",
        r"x\\",
        "x;for=6.6.6.6",
        "," * 200,
    ],
)
@pytest.mark.parametrize("before", ["", "for=1.1.1.1, ", 'for="'])
def test_nothing_that_a_proxy_quotes_is_a_node(host: str, before: str) -> None:
    for element in (f'for=203.0.113.7;host="{host}"', f'host="{host}";for="203.0.113.7:80"'):
        assert by_networks(forwarded(f"{before.removesuffix(',')}{', ' * bool(before)}{element}")) == "203.0.113.7"
        assert by_networks(forwarded(f"{element}, for=10.0.0.2")) == "203.0.113.7"
    assert by_networks(forwarded(f'host="{host}"')) == PROXY


@pytest.mark.parametrize(
    "text", ['"' * 60_000, '\\"' * 30_000, 'a="\\"' * 15_000, "a= " * 20_000, f'a={" " * 60_000}"', ";" * 60_000]
)
def test_a_header_that_is_no_list_is_read_in_one_go(text: str) -> None:
    assert by_networks(forwarded(text)) == PROXY
    assert by_networks(forwarded(f"{text},for=203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize("spoofed", ['for="', 'for="1.1.1.1', "for=1.1.1.1;", 'host="a, b', ";" * 50_000, "," * 50_000])
def test_nothing_that_a_client_writes_swallows_what_a_proxy_adds(spoofed: str) -> None:
    assert by_networks(forwarded(f"{spoofed}, for=203.0.113.7")) == "203.0.113.7"
    assert by_networks(forwarded(spoofed, "for=203.0.113.7")) == "203.0.113.7"


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=5), v4)
def test_a_client_cannot_choose_its_address(spoofed: list[str], address: IPv4Address) -> None:
    assume(address not in IPv4Network("10.0.0.0/8"))
    assert by_networks(forwarded(*spoofed, f'by=10.0.0.1;for="{address}"')) == str(address)


# Headers with one address


by_cdn = ClientIP(trusted_proxies=["10.0.0.0/8"], header="CF-Connecting-IP")


def reported(*values: str, by: str = PROXY) -> HTTPConnection:
    return HTTPConnection(http(client=(by, 4711), headers=[("cf-connecting-ip", value) for value in values]))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7:443 ", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:DB8::1", "2001:db8::/64"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
    ],
)
def test_a_header_with_one_address_names_the_client(value: str, key: str) -> None:
    assert by_cdn(reported(value)) == key
    assert ClientIP(hops=1, header="cf-connecting-ip")(reported(value, by="203.0.113.9")) == key


def test_a_header_with_one_address_is_believed_from_a_trusted_peer_only() -> None:
    assert by_cdn(reported("1.1.1.1", by="203.0.113.7")) == "203.0.113.7"
    assert by_cdn(forwarded("for=1.1.1.1")) == PROXY


@pytest.mark.parametrize(
    "values", [("1.1.1.1, 2.2.2.2",), ("1.1.1.1", "2.2.2.2"), ("unknown",), ("",), ("user:ada",), ("9" * 100_000,)]
)
def test_a_header_without_one_address_names_nobody(values: tuple[str, ...]) -> None:
    assert by_cdn(reported(*values)) == PROXY


def test_a_header_that_would_never_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trusted_proxies=\[\.\.\.\] or hops=1"):
        ClientIP(header="x-real-ip")
    with pytest.raises(ValueError, match="hops must be 1"):
        ClientIP(hops=2, header="x-real-ip")


@pytest.mark.parametrize("header", ["", "x real ip", "x-real-ip:", "clé", None, 7], ids=repr)
def test_a_header_that_has_no_name_is_refused_with_a_right_one(header: Any) -> None:
    with pytest.raises(ValueError, match="cf-connecting-ip"):
        ClientIP(hops=1, header=header)
