"""The address of a client: none can choose its own, and none can have two."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from asgi_ratelimit import ClientIP, by_ip
from asgi_ratelimit.inbound import client_ip
from tests.support.asgi import http

PROXY = "10.0.0.1"
behind_a_proxy = ClientIP(trusted_proxies=("10.0.0.0/8",))
v4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
v6 = st.builds(IPv6Address, st.integers(2**64, 2**128 - 1))


def peer(host: object, **more: Any) -> HTTPConnection:
    return HTTPConnection(http(client=(host, 4711), **more))


def forwarded(*lines: str, by: object = PROXY) -> HTTPConnection:
    return peer(by, headers=[("x-forwarded-for", line) for line in lines])


# The socket's peer


@given(v4)
def test_an_ipv4_peer_is_its_own_key(address: IPv4Address) -> None:
    assert by_ip(peer(str(address))) == str(address)


@given(v4)
def test_an_ipv4_mapped_address_counts_as_ipv4(address: IPv4Address) -> None:
    assert by_ip(peer(f"::ffff:{address}")) == by_ip(peer(str(address)))
    assert by_ip(peer(f"::FFFF:{int(address) >> 16:x}:{int(address) & 0xFFFF:x}")) == str(address)


@given(v4, v4)
def test_two_ipv4_mapped_addresses_do_not_share_a_key(one: IPv4Address, other: IPv4Address) -> None:
    assume(one != other)
    assert by_ip(peer(f"::ffff:{one}")) != by_ip(peer(f"::ffff:{other}"))


@given(v6, st.integers(0, 2**64 - 1))
def test_all_addresses_of_an_ipv6_64_share_a_key(address: IPv6Address, interface: int) -> None:
    neighbour = IPv6Address((int(address) >> 64 << 64) | interface)
    assume(neighbour.ipv4_mapped is None)
    assert by_ip(peer(str(address))) == by_ip(peer(str(neighbour)))


@given(v6, v6)
def test_two_ipv6_64s_have_two_keys(one: IPv6Address, other: IPv6Address) -> None:
    assume(int(one) >> 64 != int(other) >> 64)
    assert by_ip(peer(str(one))) != by_ip(peer(str(other)))


@given(v6)
def test_two_spellings_of_an_ipv6_address_are_one_key(address: IPv6Address) -> None:
    exact = ClientIP(ipv6_prefix=128)
    assert exact(peer(address.compressed)) == exact(peer(address.exploded)) == exact(peer(address.exploded.upper()))


@given(v6, st.integers(1, 127))
def test_the_ipv6_prefix_may_be_chosen(address: IPv6Address, prefix: int) -> None:
    flipped_inside = IPv6Address(int(address) ^ (1 << (127 - prefix)))
    flipped_outside = IPv6Address(int(address) ^ (1 << (128 - prefix)))
    assume(flipped_inside.ipv4_mapped is None and flipped_outside.ipv4_mapped is None)
    key = ClientIP(ipv6_prefix=prefix)
    assert key(peer(str(address))) == key(peer(str(flipped_inside)))
    assert key(peer(str(address))) != key(peer(str(flipped_outside)))


def test_a_zone_is_no_part_of_the_key() -> None:
    assert by_ip(peer("fe80::1%eth0")) == by_ip(peer("fe80::1%wlan1")) == by_ip(peer("fe80::1"))


@given(v4)
def test_an_ipv4_address_behind_a_translator_counts_as_ipv4(address: IPv4Address) -> None:
    assert by_ip(peer(f"64:ff9b::{address}")) == by_ip(peer(str(address)))
    assert by_ip(peer(f"0064:FF9B:0:0::{int(address) >> 16:x}:{int(address) & 0xFFFF:x}")) == str(address)


def test_neighbours_on_a_link_are_several_customers() -> None:
    assert by_ip(peer("fe80::1%eth0")) == "fe80::1"
    assert by_ip(peer("fe80::2")) == by_ip(peer("FE80:0::2%wlan1")) == "fe80::2"
    assert by_ip(peer("febf:ffff::1")) == "febf:ffff::1"
    assert by_ip(peer("fec0::1")) == by_ip(peer("fec0::2"))


def test_the_port_is_no_part_of_the_key() -> None:
    assert by_ip(HTTPConnection(http(client=("203.0.113.7", 1)))) == by_ip(
        HTTPConnection(http(client=("203.0.113.7", 2)))
    )


@pytest.mark.parametrize("host", ["203.0.113.7:443", "[::ffff:203.0.113.7]:443", '"203.0.113.7"'])
def test_an_address_with_its_port_in_the_text_of_a_server_is_that_address(host: str) -> None:
    assert by_ip(peer(host)) == "203.0.113.7"


def test_a_name_that_the_server_made_up_is_a_key() -> None:
    assert by_ip(peer("testclient")) == "testclient"


@pytest.mark.parametrize("host", ["user:ada", "header:x-api-key:secret", "visitor:1.2.3.4", "key:a", "a:b", ":"])
def test_a_text_of_the_server_is_never_the_key_of_something_else(host: str) -> None:
    key = by_ip(peer(host))
    assert key is not None
    assert key != host
    assert key.startswith("host:")
    assert by_ip(peer(host)) == key


def test_texts_of_a_megabyte_are_not_kept() -> None:
    read = ClientIP(trusted_proxies=["10.0.0.0/8"])
    texts = [f"{number}{'x' * 1_000_000}" for number in range(3)]
    for _ in range(3):
        keys = {read(peer(text)) for text in texts}
        assert len(keys) == 3
        assert all(key is not None and len(key) < 64 for key in keys)
    assert all(sys.getrefcount(text) <= 3 for text in texts)


@pytest.mark.parametrize(
    "client",
    [None, (), [], "203.0.113.7", b"203.0.113.7", ("", 0), (None, None), (b"203.0.113.7", 1), (7, 1), {"host": 1}, 7],
    ids=repr,
)
def test_a_client_that_is_no_address_has_no_key(client: object) -> None:
    assert by_ip(HTTPConnection(http(client=client))) is None


def test_a_scope_without_client_and_headers_has_no_key() -> None:
    assert by_ip(HTTPConnection({"type": "http"})) is None
    assert ClientIP(trusted_proxies=("unix",))(HTTPConnection({"type": "http"})) is None


def test_a_client_in_a_list_is_read_like_one_in_a_tuple() -> None:
    assert by_ip(HTTPConnection(http(client=["203.0.113.7", 1]))) == "203.0.113.7"


# Behind proxies


def test_nobody_is_believed_unless_trusted() -> None:
    assert by_ip(forwarded("1.2.3.4", by="203.0.113.7")) == "203.0.113.7"
    assert behind_a_proxy(forwarded("1.2.3.4", by="203.0.113.7")) == "203.0.113.7"


def test_a_trusted_proxy_names_the_client() -> None:
    assert behind_a_proxy(forwarded("203.0.113.7")) == "203.0.113.7"


def test_a_trusted_proxy_that_names_nobody_is_the_client() -> None:
    assert behind_a_proxy(forwarded()) == PROXY


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=5), st.booleans(), v4)
def test_a_client_cannot_choose_its_address(spoofed: list[str], as_lines: bool, address: IPv4Address) -> None:
    assume(address not in IPv4Network("10.0.0.0/8"))
    lines = [*spoofed, str(address)] if as_lines else [", ".join([*spoofed, str(address)])]
    assert behind_a_proxy(forwarded(*lines)) == str(address)


def test_the_leftmost_entry_is_not_believed() -> None:
    assert behind_a_proxy(forwarded("1.1.1.1, 203.0.113.7")) == "203.0.113.7"


def test_only_the_last_of_several_lines_is_the_proxys_own() -> None:
    assert behind_a_proxy(forwarded("1.1.1.1", "2.2.2.2", "203.0.113.7")) == "203.0.113.7"


def test_all_lines_are_joined_before_they_are_read() -> None:
    assert behind_a_proxy(forwarded("1.1.1.1, 203.0.113.7", "10.9.9.9, 10.8.8.8", "10.7.7.7")) == "203.0.113.7"


def test_fifty_lines_are_read_to_the_end() -> None:
    assert behind_a_proxy(forwarded("203.0.113.7", *(f"10.0.0.{i}" for i in range(50)))) == "203.0.113.7"


def test_a_flood_of_made_up_hops_does_not_hide_the_client() -> None:
    assert behind_a_proxy(forwarded(*["1.1.1.1"] * 1_000, "203.0.113.7")) == "203.0.113.7"


def test_ten_thousand_hops_do_not_cost_ten_thousand_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(client_ip, "strip_port", lambda hop: steps.append(hop) or hop)  # type: ignore[func-returns-value]
    hops = ", ".join(f"10.1.{i // 250}.{i % 250}" for i in range(10_000))
    behind_a_proxy(forwarded(hops))
    assert 0 < len(steps) < 100


def test_a_chain_of_nothing_but_proxies_ends_at_the_farthest() -> None:
    assert behind_a_proxy(forwarded("10.0.0.3, 10.0.0.2")) == "10.0.0.3"


@pytest.mark.parametrize(
    "hop",
    [
        "203.0.113.7",
        "203.0.113.7:8080",
        " 203.0.113.7 ",
        '"203.0.113.7"',
        "::ffff:203.0.113.7",
        "[::ffff:203.0.113.7]:1",
    ],
)
def test_a_hop_is_read_without_port_and_quotes(hop: str) -> None:
    assert behind_a_proxy(forwarded(hop)) == "203.0.113.7"


@pytest.mark.parametrize(
    "hop",
    [
        "2001:db8::1",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        '"[2001:DB8::1]:443"',
        "2001:db8::1%eth0",
        "[2001:db8::1%25en0]",
    ],
)
def test_an_ipv6_hop_is_read_without_brackets_port_and_zone(hop: str) -> None:
    assert behind_a_proxy(forwarded(hop)) == "2001:db8::/64"


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown", "", ",", ",,,", "_hidden", "1.2.3", "999.1.1.1", "010.0.0.1", "0x7f.0.0.1", "2130706433", "::gg",
        "[", "1.2.3.4 5.6.7.8", "1.2.3.4\0", "\0", "é", "localhost", "1.2.3.4/8", "[]:80", '"', "%", "-1", "1:2:3",
    ],
)  # fmt: skip
def test_garbage_is_nobodys_word_and_the_hop_before_counts(garbage: str) -> None:
    assert behind_a_proxy(forwarded(f"1.1.1.1, {garbage}")) == PROXY
    assert behind_a_proxy(forwarded(f"1.1.1.1, {garbage}, 10.0.0.9")) == "10.0.0.9"


def test_a_megabyte_of_garbage_is_garbage() -> None:
    assert behind_a_proxy(forwarded("9" * 1_000_000)) == PROXY


def test_a_proxy_is_recognised_in_ipv6_clothes() -> None:
    assert behind_a_proxy(forwarded("203.0.113.7", by=f"::ffff:{PROXY}")) == "203.0.113.7"
    mapped = ClientIP(trusted_proxies=("::ffff:10.0.0.0/104",))
    assert mapped(forwarded("203.0.113.7")) == "203.0.113.7"
    assert mapped(forwarded("203.0.113.7", by="11.0.0.1")) == "11.0.0.1"


def test_an_ipv6_proxy_is_trusted_by_its_network_not_by_its_64() -> None:
    key = ClientIP(trusted_proxies=("2001:db8::1",))
    assert key(forwarded("203.0.113.7", by="2001:db8::1")) == "203.0.113.7"
    assert key(forwarded("203.0.113.7", by="2001:db8::2")) == "2001:db8::/64"


def test_a_unix_socket_is_believed_only_if_it_is_named() -> None:
    over_unix = HTTPConnection(http(client=None, headers=[("x-forwarded-for", "203.0.113.7")]))
    assert by_ip(over_unix) is None
    assert behind_a_proxy(over_unix) is None
    assert ClientIP(trusted_proxies=("unix",))(over_unix) == "203.0.113.7"
    assert ClientIP(trusted_proxies=("unix",))(forwarded("1.1.1.1", by="203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", ["10.0.0.1/8"], ["proxy.example"], [""], ["*"], [None]], ids=repr)
def test_a_bad_proxy_is_refused_with_a_right_one(proxies: Any) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
        ClientIP(trusted_proxies=proxies)


@pytest.mark.parametrize("prefix", [0, 129, -1, 64.0, "64", True, None], ids=repr)
def test_a_bad_prefix_is_refused_with_a_right_one(prefix: Any) -> None:
    with pytest.raises(ValueError, match=r"e\.g\. 64"):
        ClientIP(ipv6_prefix=prefix)


@pytest.mark.parametrize("everything", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_a_network_that_contains_everybody_is_refused(everything: str) -> None:
    with pytest.raises(ValueError, match="every address"):
        ClientIP(trusted_proxies=["10.0.0.0/8", everything])
    with pytest.raises(ValueError, match="every address"):
        by_ip.within(everything)


# Where the networks of the proxies are not known


one_proxy = ClientIP(hops=1)


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=5), v4, st.sampled_from(["203.0.113.9", None, "x"]))
def test_behind_one_proxy_only_the_last_hop_counts(spoofed: list[str], address: IPv4Address, by: object) -> None:
    assert one_proxy(forwarded(", ".join([*spoofed, str(address)]), by=by)) == str(address)


def test_behind_two_proxies_the_last_but_one_counts() -> None:
    two = ClientIP(hops=2)
    assert two(forwarded("1.1.1.1, 203.0.113.7, 198.51.100.1")) == "203.0.113.7"
    assert two(forwarded("203.0.113.7")) == "203.0.113.7", "one proxy was passed by"
    assert two(forwarded("203.0.113.7, unknown")) == PROXY
    assert two(forwarded()) == PROXY


def test_hops_are_counted_behind_a_trusted_proxy_only() -> None:
    key = ClientIP(trusted_proxies=["10.0.0.0/8"], hops=1)
    assert key(forwarded("1.1.1.1, 10.0.0.9")) == "10.0.0.9"
    assert key(forwarded("1.1.1.1", by="203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize("hops", [0, -1, 65, 1.0, "1", True], ids=repr)
def test_a_bad_number_of_hops_is_refused_with_a_right_one(hops: Any) -> None:
    with pytest.raises(ValueError, match="hops=1"):
        ClientIP(hops=hops)


# Where the server has put a text of the client in place of its peer


@pytest.mark.parametrize("invented", ["1.1.1.1", "user:ada", "10.0.0.1", "[2001:db8::1]"])
def test_a_client_cannot_choose_its_address_through_a_server_that_believes_it(invented: str) -> None:
    chain = [("x-forwarded-for", f"{invented}, 203.0.113.7")]
    conn = HTTPConnection(http(client=(invented.strip("[]"), 0), headers=chain))
    assert behind_a_proxy(conn) == one_proxy(conn) == "203.0.113.7"


def test_the_server_of_a_correct_chain_is_believed() -> None:
    conn = HTTPConnection(http(client=("203.0.113.7", 0), headers=[("x-forwarded-for", "1.1.1.1, 203.0.113.7")]))
    assert by_ip(conn) == behind_a_proxy(conn) == "203.0.113.7"


def test_a_peer_with_a_port_is_no_text_of_the_client() -> None:
    conn = HTTPConnection(http(client=("203.0.113.7", 4711), headers=[("x-forwarded-for", "203.0.113.7, 1.1.1.1")]))
    assert behind_a_proxy(conn) == "203.0.113.7"


# Networks of clients


def test_clients_of_a_network_are_known_by_their_whole_address() -> None:
    is_ours = behind_a_proxy.within("192.0.2.0/24", "2001:db8::7")
    assert is_ours(forwarded("192.0.2.9"))
    assert is_ours(forwarded("2001:db8::7"))
    assert not is_ours(forwarded("2001:db8::8"))
    assert not is_ours(forwarded("192.0.2.9, 203.0.113.7"))
    assert not is_ours(forwarded("192.0.2.9", by="203.0.113.7"))
    assert not by_ip.within("192.0.2.0/24")(HTTPConnection(http(client=None)))


@pytest.mark.parametrize("networks", [(), ("*",), ("10.0.0.1/8",), (None,)], ids=repr)
def test_a_bad_network_of_clients_is_refused_with_a_right_one(networks: Any) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
        by_ip.within(*networks)
