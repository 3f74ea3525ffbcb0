"""What clients and odd servers may send: it never ends in a 500, and never in another one's bucket or in none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import ClientIP, MemoryStore, RateLimitMiddleware, by_header
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import DENIAL, Answer, Exchange, ask, handshake, hello, respond, statuses

pytestmark = pytest.mark.anyio

ODD_KEYS = [
    "{", "}", "{}", "}{", "{a}", "*", "?", "[a]", "a:b", "a:b:c", ":", " ", "a ", "\0", "a\0", "\n", "\r\n",
    "a\r\nx: y",
    "\ud800", "\udfff", "\ufeff", "é", "e\u0301", "%", "%s", "{0}", "1:a", "0:", "block:a", "None", "../a", "\\", "'",
    '"', "a" * 256, "a" * 257, "a" * 258, "a" * 1_000_000, "a" * 1_000_001,
]  # fmt: skip


def door(store: MemoryStore, limit: Any = "1/60s", **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(options.pop("app", hello), limit=limit, store=store, **options)


# Keys


async def test_odd_keys_have_buckets_of_their_own(store: MemoryStore) -> None:
    keys = iter([*ODD_KEYS, *ODD_KEYS])
    app = door(store, key=lambda conn: next(keys))
    assert await statuses(app, len(ODD_KEYS)) == [200] * len(ODD_KEYS)
    assert await statuses(app, len(ODD_KEYS)) == [429] * len(ODD_KEYS)


@given(st.lists(st.text(), unique=True, min_size=2, max_size=5))
async def test_no_two_keys_share_a_bucket(keys: list[str]) -> None:
    asked = iter([key or "empty" for key in keys])
    app = door(MemoryStore(clock=ManualClock()), ["1/60s", "2/30s"], key=lambda conn: next(asked))
    assert await statuses(app, len(keys)) == [200] * len(keys)


async def test_huge_keys_do_not_fill_the_memory(store: MemoryStore) -> None:
    app = door(store, key=by_header("x-key"))
    huge = "k" * 1_000_000
    await ask(app, headers=[("x-key", huge)])
    kept = [key for shard in store.records.shards for key in shard.records]
    assert kept
    assert all(len(key) < 1_000 for key in kept)


@pytest.mark.parametrize("value", ["\xff\xfe", "\0", "a\nb", "é", " " * 10_000, "{*}"], ids=repr)
async def test_any_header_value_is_a_key(store: MemoryStore, value: str) -> None:
    app = door(store, key=by_header("x-key"))
    assert await statuses(app, 2, headers=[("x-key", value)]) == [200, 429]


# X-Forwarded-For


@given(st.lists(st.binary(max_size=30), max_size=60))
async def test_no_forwarding_makes_a_500_or_a_fresh_bucket_of_an_untrusted_client(lines: list[bytes]) -> None:
    app = door(MemoryStore(clock=ManualClock()), key=ClientIP(trusted_proxies=["10.0.0.0/8"]))
    await ask(app)
    answer = await Exchange(app, {**_scope(), "headers": [(b"x-forwarded-for", line) for line in lines]}).answer()
    assert answer.status == 429


@given(st.lists(st.binary(max_size=30), max_size=60))
async def test_no_forwarding_makes_a_fresh_bucket_of_a_client_behind_a_proxy(lines: list[bytes]) -> None:
    app = door(MemoryStore(clock=ManualClock()), key=ClientIP(trusted_proxies=["10.0.0.0/8"]))
    lines = [*lines, b"203.0.113.7"]
    await ask(app)
    scope = {**_scope(), "client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", line) for line in lines]}
    assert (await Exchange(app, scope).answer()).status == 429


def _scope() -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("203.0.113.7", 1)}


# Scopes


CLIENTS = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.integers(),
    st.lists(st.none() | st.text(max_size=50) | st.binary(max_size=5) | st.integers(), max_size=3),
    st.tuples(st.text(st.characters(categories=["Cs", "Nd", "Po"]), max_size=300), st.integers()),
)


@given(CLIENTS)
@pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")
async def test_no_client_is_a_500_or_unlimited(client: Any) -> None:
    app = door(MemoryStore(clock=ManualClock()))
    assert await statuses(app, 2, client=client) == [200, 429]


@pytest.mark.parametrize("missing", ["client", "headers", "path", "method", "server", "root_path", "asgi"])
@pytest.mark.parametrize("options", [{}, {"exempt": ["/health"]}, {"max_wait": 1}, {"messages": "1/s"}], ids=str)
@pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")
async def test_a_scope_may_lack_what_servers_forget(store: MemoryStore, missing: str, options: Any) -> None:
    app = door(store, **options)
    answers: list[Answer] = []
    for _ in range(2):
        scope = _scope()
        scope.pop(missing, None)
        answers.append(await Exchange(app, scope, {"type": "http.request"}).answer())
    assert [answer.status for answer in answers] == [200, 429]


@pytest.mark.parametrize(
    "odd",
    [
        {"client": "/run/app.sock"},
        {"client": ["/run/app.sock", None]},
        {"client": [b"203.0.113.7", 1]},
        {"client": (2130706433, 1)},
        {"client": ("203.0.113.7",)},
        {"root_path": None},
        {"root_path": "/"},
        {"path": ""},
        {"path": "\0\n\ud800"},
        {"path": "/" + "a" * 1_000_000},
        {"extensions": None},
        {"state": None},
        {"method": "get"},
        {"headers": ()},
        {"headers": [[b"x-forwarded-for", b"1.1.1.1"], [b"X-Forwarded-For", b"2.2.2.2"]]},
        {"headers": [(b"", b""), (b"\xff", b"\xff")] * 5_000},
        {"user": None},
    ],
    ids=lambda odd: repr(odd)[:40],
)
async def test_an_odd_scope_is_limited_like_any_other(store: MemoryStore, odd: dict[str, Any]) -> None:
    app = door(store, exempt=["/health"])
    answers = [await Exchange(app, {**_scope(), **odd}).answer() for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]


async def test_headers_that_can_be_read_only_once_still_reach_the_app(store: MemoryStore) -> None:
    """The ASGI specification promises an iterable, not a list."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await respond(send)

    pairs = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-key", b"a")]
    await Exchange(door(store, app=app), {**_scope(), "headers": iter(pairs)}).answer()
    assert seen == pairs


async def test_a_socket_of_a_careless_server_is_refused_too(store: MemoryStore) -> None:
    app = door(store)
    await ask(app)
    bare = {"type": "websocket", "client": ("203.0.113.7", 1)}
    assert (await Exchange(app, bare).answer()).sent[0]["type"] == "websocket.close"
    assert (await handshake(app, **DENIAL)).status == 429


# Names


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x=1", 'a"b', "\ud800", "é" * 300, "a,b;c=1", "\0"], ids=ascii)
async def test_no_name_breaks_out_of_a_header(store: MemoryStore, name: str) -> None:
    answer = await ask(door(store, name=name, headers="both"))
    assert answer.status == 200
    for _, value in answer.headers:
        assert all(" " <= char <= "~" for char in value)
