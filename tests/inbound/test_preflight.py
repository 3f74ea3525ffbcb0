"""The questions that browsers ask before a cross-origin request are free. What only looks like one is not."""

from __future__ import annotations

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from asgi_ratelimit import MemoryStore, TokenBucket
from tests.inbound.test_middleware import door
from tests.support.asgi import ask, hello, statuses

pytestmark = pytest.mark.anyio

PREFLIGHT = [("origin", "https://example.org"), ("access-control-request-method", "PUT")]


def cross_origin() -> CORSMiddleware:
    return CORSMiddleware(hello, allow_origins=["https://example.org"], allow_methods=["PUT"])


async def test_an_answered_preflight_is_not_counted(store: MemoryStore) -> None:
    app = door(store, "1/60s", app=cross_origin())
    answers = [await ask(app, method="OPTIONS", headers=PREFLIGHT) for _ in range(5)]
    assert {answer.status for answer in answers} == {200}
    assert not answers[0].about_limits
    assert await statuses(app, 2) == [200, 429]
    assert (await ask(app, method="OPTIONS", headers=PREFLIGHT)).status == 200  # the user's bucket is used up


async def test_a_request_that_only_looks_like_one_is_counted(store: MemoryStore) -> None:
    app = door(store, "3/60s")  # the app works on OPTIONS as on any other method
    assert await statuses(app, 9, method="OPTIONS", headers=PREFLIGHT) == [200] * 3 + [429] * 6
    assert await statuses(app, 4) == [200] * 3 + [429]


async def test_its_refusal_is_a_429_like_any_other(store: MemoryStore) -> None:
    app = door(store, "1/60s")
    await ask(app, method="OPTIONS", headers=PREFLIGHT)
    refused = await ask(app, method="OPTIONS", headers=PREFLIGHT)
    assert (refused.status, refused["retry-after"], refused.json["retry_after"]) == (429, "60", 60.0)


async def test_a_refused_origin_gets_no_free_requests(store: MemoryStore) -> None:
    app = door(store, "2/60s", app=cross_origin())
    headers = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")]
    assert await statuses(app, 4, method="OPTIONS", headers=headers) == [400, 400, 429, 429]


async def test_shadow_mode_lets_it_pass(store: MemoryStore) -> None:
    app = door(store, "1/60s", enforce=False)
    assert await statuses(app, 4, method="OPTIONS", headers=PREFLIGHT) == [200] * 4


async def test_the_functions_of_a_user_are_not_asked_about_a_preflight(store: MemoryStore) -> None:
    def needs_a_header(conn: HTTPConnection) -> str:
        return conn.headers["x-api-key"]

    app = door(store, needs_a_header, key=needs_a_header, app=cross_origin())
    assert await statuses(app, 9, method="OPTIONS", headers=PREFLIGHT) == [200] * 9


async def test_a_global_limit_has_its_charge_back(store: MemoryStore) -> None:
    app = door(store, TokenBucket("2/60s", scope="global"), app=cross_origin())
    assert await statuses(app, 9, method="OPTIONS", headers=PREFLIGHT) == [200] * 9
    assert await statuses(app, 3) == [200, 200, 429]


async def test_an_exempt_path_stays_exempt(store: MemoryStore) -> None:
    app = door(store, "1/60s", exempt=["/"])
    assert await statuses(app, 4, method="OPTIONS", headers=PREFLIGHT) == [200] * 4


async def test_each_address_has_a_bucket_for_them(store: MemoryStore) -> None:
    app = door(store, "1/60s")
    for client in (("192.0.2.1", 1), ("192.0.2.2", 1)):
        assert await statuses(app, 2, method="OPTIONS", headers=PREFLIGHT, client=client) == [200, 429]


async def test_an_app_that_raises_keeps_its_charge(store: MemoryStore) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    limited = door(store, "1/60s", app=app)
    with pytest.raises(LookupError):
        await ask(limited, method="OPTIONS", headers=PREFLIGHT)
    assert (await ask(limited, method="OPTIONS", headers=PREFLIGHT)).status == 429
