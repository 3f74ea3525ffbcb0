"""The operator's page and a LoginGuard: accounts are looked up by their names, and shown as digests."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.admin import router
from asgi_ratelimit.login import LoginGuard
from asgi_ratelimit.observe import Stats
from asgi_ratelimit.testing import ManualClock
from tests.support.log_ins import log_in

pytestmark = pytest.mark.anyio

HOME, ELSEWHERE = "198.51.100.7", "192.0.2.9"


class Page:
    """The page of a store with a guard."""

    def __init__(self, clock: ManualClock) -> None:
        stats = Stats()
        store = MemoryStore(clock=clock, observers=[stats])
        self.guard, app = LoginGuard(store=store), FastAPI()
        app.include_router(router(store, stats, access=lambda: None), prefix="/ops")
        self.client = TestClient(app)

    def limiters(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.client.get("/ops/state").json()["limiters"]}

    def act(self, verb: str, limiter: str, key: str, **more: object) -> dict[str, Any]:
        wanted = {"limiter": f"login:{limiter}", "key": key, **more}
        answer = self.client.post(f"/ops/{verb}", json=wanted, headers={"sec-fetch-site": "same-origin"})
        assert answer.status_code == 200
        (part,) = answer.json()["parts"]
        return {**part, "digest": answer.json()["digest"]}


@pytest.fixture
def page(clock: ManualClock) -> Page:
    return Page(clock)


async def test_a_guard_is_two_rows_that_say_what_they_count(page: Page) -> None:
    for _ in range(7):
        await log_in(page.guard, "ada", HOME)
    await log_in(page.guard, "bob", HOME, right=True)
    shown = page.limiters()
    assert set(shown) == {"login:account", "login:address"}
    account, address = shown["login:account"], shown["login:address"]
    assert (account["failed"], account["refused"], account["allowed"], account["escalated"]) == (5, 2, 6, 1)
    assert (address["failed"], address["refused"]) == (5, 0)
    assert account["about"] == "failed log-ins, by account"
    assert (account["limits"], address["limits"]) == (["5/15m"], ["50/15m"])
    assert account["log_ins"] is address["log_ins"] is True
    assert not any(name in page.client.get("/ops/state").text for name in ("ada", "bob", HOME))


async def test_an_account_is_looked_up_blocked_and_reset_by_its_name(page: Page) -> None:
    for _ in range(2):
        await log_in(page.guard, "ada", HOME)
    shown = page.act("look-up", "account", " ADA")
    assert (shown["remaining"], shown["limit"]) == (3, 5)
    assert shown["digest"] in {key["key"] for key in page.limiters()["login:account"]["keys"]}
    assert page.act("look-up", "account", "bob")["remaining"] == 5
    assert page.act("block", "account", "Ada", seconds=60)["retry_after"] == 60
    assert await log_in(page.guard, "ada", ELSEWHERE, right=True) == "blocked"
    assert page.act("reset", "account", "ada")["remaining"] == 5
    assert await log_in(page.guard, "ada", ELSEWHERE, right=True) == "in"


async def test_a_reset_forgets_earlier_blocks_too(page: Page, clock: ManualClock) -> None:
    for _ in range(5):
        await log_in(page.guard, "ada", HOME)
    assert page.act("look-up", "account", "ada")["retry_after"] == 60
    assert page.act("reset", "account", "ada")["remaining"] == 5
    clock.advance(11)
    for _ in range(5):
        await log_in(page.guard, "ada", ELSEWHERE)
    assert page.act("look-up", "account", "ada")["retry_after"] == 60  # the first one again


async def test_an_address_is_found_however_it_is_written(page: Page) -> None:
    for account in ("ada", "bob", "cid"):
        await log_in(page.guard, account, "2001:db8::7")
    assert page.act("look-up", "address", "2001:DB8:0::/64")["remaining"] == 47
    assert page.act("reset", "address", "2001:db8::9")["remaining"] == 50


async def test_a_page_without_a_guard_has_no_log_ins(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    app = FastAPI()
    app.include_router(router(store, Stats(), access=lambda: None), prefix="/ops")
    assert TestClient(app).get("/ops/state").json()["limiters"] == []
