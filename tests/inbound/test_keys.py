"""Who is asking: no client can choose its own address, and none can have two."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.requests import HTTPConnection

from asgi_ratelimit import ClientIP, by_header, by_ip, by_user, by_user_or, by_user_or_ip
from tests.support.asgi import http

pytestmark = pytest.mark.anyio

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


def test_the_port_is_no_part_of_the_key() -> None:
    assert by_ip(HTTPConnection(http(client=("203.0.113.7", 1)))) == by_ip(
        HTTPConnection(http(client=("203.0.113.7", 2)))
    )


def test_a_name_that_the_server_made_up_is_a_key() -> None:
    assert by_ip(peer("testclient")) == "testclient"


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


def test_ten_thousand_hops_do_not_cost_ten_thousand_steps() -> None:
    read = ClientIP(trusted_proxies=("10.0.0.0/8",))
    hops = ", ".join(f"10.1.{i // 250}.{i % 250}" for i in range(10_000))
    read(forwarded(hops))
    assert read._is_trusted.cache_info().currsize < 100


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


# Users


class Member(BaseUser):
    def __init__(self, identity: Any, *, authenticated: bool = True) -> None:
        self._identity, self._authenticated = identity, authenticated

    @property
    def is_authenticated(self) -> bool:
        return self._authenticated

    @property
    def identity(self) -> str:
        return self._identity  # type: ignore[no-any-return]


class Named(BaseUser):
    """A user with a name only: the identity that Starlette's base class has raises NotImplementedError."""

    is_authenticated = True
    display_name = "ada"


def as_user(user: object) -> HTTPConnection:
    return peer("203.0.113.7", user=user)


def test_a_user_is_known_by_identity() -> None:
    assert by_user(as_user(Member("7"))) == by_user(as_user(Member(7))) == "user:7"


def test_a_user_without_identity_is_known_by_display_name() -> None:
    assert by_user(as_user(Named())) == "user:ada"


@pytest.mark.parametrize("user", [Member("7", authenticated=False), UnauthenticatedUser(), None, object(), Member("")])
def test_nobody_is_a_user_without_being_authenticated(user: object) -> None:
    assert by_user(as_user(user)) is None


def test_without_authentication_nobody_is_a_user() -> None:
    assert by_user(peer("203.0.113.7")) is None


def test_a_user_cannot_be_named_into_an_addresss_bucket() -> None:
    assert by_user_or_ip(as_user(SimpleUser("203.0.113.7"))) != by_user_or_ip(peer("203.0.113.7"))


def test_who_is_no_user_is_known_by_address() -> None:
    assert by_user_or_ip(as_user(SimpleUser("ada"))) == "user:ada"
    assert by_user_or_ip(as_user(UnauthenticatedUser())) == "203.0.113.7"


async def test_the_fallback_may_be_async_and_is_asked_only_when_needed() -> None:
    asked = []

    async def fallback(conn: HTTPConnection) -> str:
        asked.append(conn)
        return "nobody"

    key = by_user_or(fallback)
    assert key(as_user(SimpleUser("ada"))) == "user:ada"
    assert not asked
    answer = key(peer("203.0.113.7"))
    assert answer is not None
    assert not isinstance(answer, str)
    assert await answer == "nobody"


def test_a_fallback_that_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match="by_ip"):
        by_user_or("ip")  # type: ignore[arg-type]


# Headers


def sent(*pairs: tuple[str, str]) -> HTTPConnection:
    return peer("203.0.113.7", headers=pairs)


def test_a_header_is_a_key_whatever_its_case() -> None:
    assert by_header("X-Api-Key")(sent(("x-api-key", "secret"))) == by_header("x-api-key")(
        sent(("x-api-key", "secret"))
    )
    assert by_header("x-api-key")(sent(("x-api-key", "one"))) != by_header("x-api-key")(sent(("x-api-key", "two")))


def test_the_same_value_of_two_headers_is_two_keys() -> None:
    assert by_header("x-a")(sent(("x-a", "7"))) != by_header("x-b")(sent(("x-b", "7")))


def test_a_header_that_is_missing_or_empty_is_no_key() -> None:
    assert by_header("x-api-key")(sent()) is None
    assert by_header("x-api-key")(sent(("x-api-key", ""))) is None


@pytest.mark.parametrize("name", ["", "  ", "clé", None, 7], ids=repr)
def test_a_header_without_a_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="x-api-key"):
        by_header(name)
