"""Whether an address is in one of many networks: as Python's ipaddress says, one network after the other."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.inbound.addresses import network
from asgi_ratelimit.inbound.network_set import NetworkSet, parse_network

Address = IPv4Address | IPv6Address
MAPPED = int(IPv6Address("::ffff:0:0"))


def networks_of(kind: Any, bits: int, near: int) -> st.SearchStrategy[Any]:
    """Networks, of which some are close to an address."""

    def around(length: int, flips: int) -> Any:
        free = bits - length
        return kind(((near ^ flips) >> free << free, length))

    return st.builds(around, st.integers(1, bits), st.one_of(st.integers(0, 3), st.integers(0, 2**bits - 1)))


V4, V6 = IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")
NETWORKS = st.lists(
    st.one_of(networks_of(IPv4Network, 32, int(V4)), networks_of(IPv6Network, 128, int(V6))), max_size=20
)
ADDRESSES = st.one_of(
    st.sampled_from([V4, V6]), st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
)


@given(NETWORKS, ADDRESSES)
def test_a_look_up_is_as_python_has_it(networks: list[Any], address: Address) -> None:
    found = NetworkSet(parse_network(str(each), "it") for each in networks)
    expected = any(address in each for each in networks if each.version == address.version)
    assert (str(address) in found) == expected
    if isinstance(address, IPv4Address):
        assert (str(IPv6Address(MAPPED + int(address))) in found) == expected
        assert (f"::ffff:{address}" in found) == expected
    assert len(found) == len(set(networks))


@given(NETWORKS.filter(bool))
def test_the_edges_of_each_network_are_in_it(networks: list[Any]) -> None:
    found = NetworkSet(parse_network(str(each), "it") for each in networks)
    for each in networks:
        assert str(each[0]) in found
        assert str(each[-1]) in found


TEXTS = st.one_of(
    NETWORKS.filter(bool).map(lambda networks: str(networks[0])),
    st.from_regex(r"\A[0-9a-f.:/%]{1,20}\Z"),
    st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,3})?\Z"),
    st.from_regex(r"\A::(ffff:)?[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,3}\Z"),
    st.sampled_from(["10.0.0.0/255.0.0.0", "::ffff:10.0.0.0/104", "0:0:0:0:0:ffff:a00:0/104", "::/0"]),
    st.sampled_from(["2001:DB8::/32", "10.0.0.0/٨", f"10.0.0.0/{'9' * 5000}", "10.0.0.0/", "0.0.0.0/0", ""]),
)


@given(TEXTS)
def test_the_quick_way_reads_what_the_other_one_reads(text: str) -> None:
    assert _result(_quick, text) == _result(_slow, text)


def _quick(text: str) -> tuple[int, int]:
    size, free, first = parse_network(text, "it")
    return size * 8 - free, first << free


def _slow(text: str) -> tuple[int, int]:
    found = network(text, "it")
    return found.prefixlen, int(found.network_address)


def _result(read: Callable[[str], tuple[int, int]], text: str) -> object:
    try:
        return read(text)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("host", ["", "testclient", "10.0.0", "1" * 100, "10.0.0.1:80", "x" * 65, "[::1]"])
def test_what_is_no_address_is_in_no_network(host: str) -> None:
    assert host not in NetworkSet([parse_network("0.0.0.0/1", "it"), parse_network("8000::/1", "it")])


@pytest.mark.parametrize("text", [None, 10, b"10.0.0.0/8", ["10.0.0.0/8"]])
def test_a_network_is_a_text(text: Any) -> None:
    with pytest.raises(ValueError, match=r'it is a network such as "10.0.0.0/8"'):
        parse_network(text, "it")


def test_a_zone_is_no_part_of_an_address() -> None:
    assert "fe80::1%eth0" in NetworkSet([parse_network("fe80::/10", "it")])
    assert ip_address("fe80::1").is_link_local
