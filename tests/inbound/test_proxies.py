"""Wrong addresses are noticed: of a proxy that is not trusted, or invented by a client that the server believes."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest
from hypercorn.middleware import ProxyFixMiddleware
from starlette.authentication import SimpleUser
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection

from asgi_ratelimit import (
    ClientIP,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitWarning,
    by_header,
    by_ip,
    by_user,
    by_user_or,
    by_user_or_ip,
)
from asgi_ratelimit.inbound.forwarded import SINGLE_HEADERS
from asgi_ratelimit.inbound.proxies import ProxyWatch
from tests.inbound.conftest import Said
from tests.support.asgi import ask, hello, http, statuses
from tests.support.local_server import get_all, served

pytestmark = pytest.mark.anyio

PROXIED = [("x-forwarded-for", "198.51.100.1")]
INVENTED = [("x-forwarded-for", "1.1.1.1, 198.51.100.1")]


def door(store: MemoryStore, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(options.pop("app", hello), **{"limit": "1/60s", "store": store, **options})


# ARL104: a proxy that is not trusted


async def test_a_proxy_whose_word_is_taken_is_not_forgotten(store: MemoryStore, said: Said) -> None:
    await ask(door(store, key=ClientIP(trusted_proxies=["203.0.113.0/24"])), headers=PROXIED)
    await ask(door(store, key=by_header("x-key")), headers=[*PROXIED, ("x-key", "a")])
    assert said() == []


async def test_a_server_that_has_read_the_header_itself_is_no_forgotten_proxy(store: MemoryStore, said: Said) -> None:
    await ask(door(store), headers=PROXIED, client=("198.51.100.1", 0))
    assert said() == []


@pytest.mark.parametrize("key", [by_ip, by_user_or_ip, ClientIP(ipv6_prefix=56)], ids=["ip", "user", "56"])
async def test_a_forgotten_proxy_is_noticed_by_whatever_reads_the_address(
    store: MemoryStore, said: Said, key: Any
) -> None:
    await ask(door(store, key=key))
    await ask(door(store, key=key), headers=PROXIED)
    assert said() == ["ARL104"]


@pytest.mark.parametrize("header", [*SINGLE_HEADERS, "forwarded"])
async def test_a_forgotten_proxy_is_noticed_by_the_usual_headers(store: MemoryStore, said: Said, header: str) -> None:
    value = "for=198.51.100.1" if header == "forwarded" else "198.51.100.1"
    await ask(door(store), headers=[(header, value)])
    assert said() == ["ARL104"]


async def test_the_advice_for_a_forgotten_proxy_can_be_copied(store: MemoryStore) -> None:
    with pytest.warns(RateLimitWarning, match=r'CF-Connecting-IP is not read.*, header="cf-connecting-ip"\)'):
        await ask(door(store), headers=[("cf-connecting-ip", "198.51.100.1")])


async def test_a_trusted_proxy_with_another_header_is_noticed(store: MemoryStore, said: Said) -> None:
    key = ClientIP(trusted_proxies=["203.0.113.0/24"])
    await ask(door(store, key=key), headers=[("x-real-ip", "198.51.100.1")])
    assert said() == ["ARL104"]


async def test_a_server_that_stops_at_the_proxy_of_a_network_is_noticed(store: MemoryStore, said: Said) -> None:
    """nginx has added the address of a content network, and uvicorn believes nginx only."""
    chain = [("x-forwarded-for", "198.51.100.1, 192.0.2.5"), ("cf-connecting-ip", "198.51.100.1")]
    await ask(door(store), headers=chain, client=("192.0.2.5", 0))
    assert said() == ["ARL104"]


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"trusted_proxies": ["203.0.113.0/24"], "header": "x-real-ip"}, [("x-real-ip", "198.51.100.1")]),
        ({"trusted_proxies": ["203.0.113.0/24"]}, [*PROXIED, ("x-real-ip", "192.0.2.1")]),
        ({"trusted_proxies": ["10.0.0.0/8"]}, [*PROXIED, ("x-real-ip", "198.51.100.1")]),
        ({"hops": 1}, PROXIED),
        ({"hops": 1, "header": "forwarded"}, [("forwarded", "for=198.51.100.1")]),
        ({}, [("x-real-ip", "203.0.113.7")]),
        ({}, [("x-real-ip", "garbage")]),
    ],
    ids=str,
)
async def test_a_header_that_is_read_or_means_nothing_is_no_misconfiguration(
    store: MemoryStore, said: Said, options: Any, headers: Any
) -> None:
    await ask(door(store, key=ClientIP(**options)), headers=headers)
    assert said() == []


# ARL112: a server that believes everyone


def host_of(conn: HTTPConnection) -> str:
    """What the apps of other limiters have."""
    return conn.client.host if conn.client else ""


READERS = [by_ip, by_user_or_ip, ClientIP(trusted_proxies=["10.0.0.0/8"]), host_of, by_user_or(host_of)]


@pytest.mark.parametrize("key", READERS, ids=["ip", "user or ip", "networks", "own", "user or own"])
@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("1.1.1.1, 198.51.100.1", ("1.1.1.1", 0)),
        ("1.1.1.1:99, 198.51.100.1", ("1.1.1.1", 99)),
        ("[2001:db8::1]:99, 198.51.100.1", ("2001:db8::1", 99)),
        ("user:ada, 198.51.100.1", ["user:ada", 0]),
    ],
)
async def test_an_address_of_the_clients_choice_is_noticed(
    store: MemoryStore, said: Said, key: Any, chain: str, client: Any
) -> None:
    await ask(door(store, key=key), headers=[("x-forwarded-for", chain)], client=client)
    assert said() == ["ARL112"]


@pytest.mark.parametrize(
    ("key", "chain", "client"),
    [
        (by_ip, "1.1.1.1, 198.51.100.1", ("198.51.100.1", 0)),
        (by_ip, "198.51.100.1", ("198.51.100.1", 0)),
        (by_ip, "198.51.100.1, 1.1.1.1", ("198.51.100.1", 4711)),
        (ClientIP(hops=1), "1.1.1.1, 198.51.100.1", ("1.1.1.1", 0)),
        (ClientIP(trusted_proxies=["10.0.0.0/8"]), "198.51.100.1, 10.0.0.5", ("198.51.100.1", 0)),
        (by_header("x-key"), "1.1.1.1, 198.51.100.1", ("1.1.1.1", 0)),
    ],
)
@pytest.mark.filterwarnings("ignore:ARL103")
async def test_an_address_that_a_proxy_has_written_is_no_misconfiguration(
    store: MemoryStore, said: Said, key: Any, chain: str, client: Any
) -> None:
    await ask(door(store, key=key), headers=[("x-forwarded-for", chain), ("x-key", "a")], client=client)
    assert said() == []


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ("uvicorn app --forwarded-allow-ips 10.0.0.0/8", {}, []),
        ("uvicorn app --forwarded-allow-ips=*", {}, ["ARL112"]),
        ("uvicorn app", {"FORWARDED_ALLOW_IPS": "10.0.0.1"}, []),
        ("uvicorn app", {"FORWARDED_ALLOW_IPS": "*"}, ["ARL112"]),
        ("gunicorn app", {"GUNICORN_CMD_ARGS": "--forwarded-allow-ips='*' -w 2"}, ["ARL112"]),
        ("gunicorn app --forwarded-allow-ips", {}, ["ARL112"]),
    ],
)
async def test_the_options_of_the_server_decide_where_the_address_could_be_right(
    store: MemoryStore,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    variables: dict[str, str],
    expected: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", arguments.split())
    for name in ("FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await ask(door(store), headers=INVENTED, client=("1.1.1.1", 0))
    assert said() == expected


async def test_an_invented_address_is_noticed_late_too(store: MemoryStore, said: Said) -> None:
    app = door(store, limit="1000/s")
    await statuses(app, 300, headers=PROXIED, client=("198.51.100.1", 0))
    assert said() == []
    await ask(app, headers=INVENTED, client=("1.1.1.1", 0))
    assert said() == ["ARL112"]


@pytest.mark.parametrize(("client", "looks"), [(("203.0.113.7", 4711), 100), (("203.0.113.7", 0), 10_000)])
def test_the_look_at_addresses_ends(client: Any, looks: int) -> None:
    watch = ProxyWatch(lambda code, text: None, by_ip)
    for _ in range(looks):
        assert watch.trials > 0
        watch.look_at(http(client=client))
    assert watch.trials == 0


@pytest.mark.parametrize("key", [by_header("x-key"), by_user, by_user_or(by_header("x-key"))])
def test_nothing_is_looked_for_where_no_address_is_the_key(key: Any) -> None:
    assert ProxyWatch(lambda code, text: None, key).trials == 0


async def host_of_later(conn: HTTPConnection) -> str:
    return host_of(conn)


def real_ip(conn: HTTPConnection) -> str:
    return conn.headers["x-real-ip"]


async def test_a_function_of_ones_own_may_read_any_header(store: MemoryStore, said: Said) -> None:
    await ask(door(store, key=real_ip), headers=[*PROXIED, ("x-real-ip", "198.51.100.1")])
    assert said() == []


@pytest.mark.parametrize("key", [host_of, host_of_later, by_user_or(host_of)])
async def test_a_function_of_ones_own_that_returns_the_address_of_a_proxy_is_noticed(
    store: MemoryStore, said: Said, key: Any
) -> None:
    await ask(door(store, key=key))
    assert said() == []
    await ask(door(store, key=key), headers=PROXIED)
    assert said() == ["ARL104"]


# With uvicorn itself


def answers(
    app: Any, chains: list[str], monkeypatch: pytest.MonkeyPatch, allowed: str | None, variable: str | None = None
) -> list[int]:
    """The statuses of requests with these chains, with that option of uvicorn or with its environment variable."""
    if variable is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", variable)
    with served(app, forwarded_allow_ips=allowed) as port:
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)  # uvicorn has read it
        return get_all(port, [("/", {"X-Forwarded-For": chain}) for chain in chains])


EVERYONE = pytest.mark.parametrize(("allowed", "variable"), [("*", None), (None, "*")], ids=["option", "variable"])
FORTY = [f"198.51.100.{number}, 203.0.113.7" for number in range(40)]
FORTY_WITH_PORTS = [f"198.51.100.{number}:99, 203.0.113.7" for number in range(40)]


@EVERYONE
def test_uvicorn_that_believes_everyone_is_noticed(
    store: MemoryStore, said: Said, monkeypatch: pytest.MonkeyPatch, allowed: str | None, variable: str | None
) -> None:
    assert answers(door(store, limit="10/hour"), FORTY, monkeypatch, allowed, variable) == [200] * 40
    assert said() == ["ARL112"]


@EVERYONE
@pytest.mark.parametrize("options", [{"hops": 1}, {"trusted_proxies": ["127.0.0.0/8"]}], ids=str)
@pytest.mark.parametrize("chains", [FORTY, FORTY_WITH_PORTS], ids=["addresses", "ports"])
@pytest.mark.filterwarnings("ignore:ARL112")
def test_invented_hops_do_not_pass_a_limit_behind_uvicorn_that_believes_everyone(
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
    variable: str | None,
    options: Any,
    chains: list[str],
) -> None:
    app = door(store, limit="10/hour", key=ClientIP(**options))
    assert answers(app, chains, monkeypatch, allowed, variable) == [200] * 10 + [429] * 30


async def test_a_client_that_sends_its_own_address_and_port_stays_the_client(store: MemoryStore, said: Said) -> None:
    app = door(store, limit="2/hour", key=ClientIP(trusted_proxies=["10.0.0.0/8"]))
    answered = [
        await statuses(app, 1, headers=[("x-forwarded-for", f"203.0.113.7:4711, 198.51.100.{n}")]) for n in range(4)
    ]
    assert answered == [[200], [200], [429], [429]]


def test_hypercorn_that_counts_its_proxies_is_no_misconfiguration(store: MemoryStore, said: Said) -> None:
    app = ProxyFixMiddleware(cast(Any, door(store)), trusted_hops=2)
    with served(app, proxy_headers=False) as port:
        chain = {"X-Forwarded-For": "203.0.113.7, 192.0.2.5"}
        assert get_all(port, [("/", chain), ("/", chain)]) == [200, 429]
    assert said() == []


async def _pass_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize("is_hidden", [False, True], ids=["seen", "hidden"])
def test_uvicorn_that_believes_two_proxies_is_no_misconfiguration(
    store: MemoryStore, said: Said, monkeypatch: pytest.MonkeyPatch, is_hidden: bool
) -> None:
    app: Any = door(store, key=ClientIP(trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]))
    if is_hidden:  # another task runs the app, so that the server's middleware cannot be seen from it
        app = BaseHTTPMiddleware(app, dispatch=_pass_on)
    assert answers(app, ["203.0.113.7, 10.0.0.5"], monkeypatch, "127.0.0.1,10.0.0.5") == [200]
    assert said() == []


def test_uvicorn_that_believes_its_own_proxies_is_no_misconfiguration(
    store: MemoryStore, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = ["203.0.113.7, 10.0.0.5", *FORTY]
    assert answers(door(store, limit="10/hour"), chains, monkeypatch, "127.0.0.1,10.0.0.5") == [200] * 10 + [429] * 31
    assert said() == []


@EVERYONE
@pytest.mark.filterwarnings("ignore:ARL")
def test_no_visitor_uses_up_the_bucket_of_a_user_through_uvicorn_that_believes_everyone(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, allowed: str | None, variable: str | None
) -> None:
    limited = door(store, limit="1/hour")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and any(name == b"x-user" for name, _ in scope["headers"]):
            scope["user"] = SimpleUser("ada")
        await limited(scope, receive, send)

    assert answers(app, ["user:ada"] * 2, monkeypatch, allowed, variable) == [200, 429]
    with served(app) as port:
        assert get_all(port, [("/", {"x-user": "ada"})] * 2) == [200, 429]
