"""Log-ins: the page's apps refuse guesses, and know a device again."""

from __future__ import annotations

import asyncio

from starlette.testclient import TestClient

from asgi_ratelimit import RateLimitMiddleware
from tests.docs.markdown import DOCS, blocks
from tests.docs.running import run

GUARDED, PLAIN, BY_HAND = blocks(DOCS / "how-to" / "log-in.md")
RIGHT = {"username": "ada@example.com", "password": "a sentence that nobody guesses"}
WRONG = {**RIGHT, "password": "guess"}


def test_the_sixth_wrong_password_is_refused_and_a_known_device_is_not() -> None:
    app = run(GUARDED)["app"]
    owner = TestClient(app, base_url="https://testserver")
    assert owner.post("/login", data=RIGHT).json() == "welcome"
    device = owner.cookies["device"]
    attacker = TestClient(app, base_url="https://testserver", client=("192.0.2.1", 1))
    answers = [attacker.post("/login", data=WRONG) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert answers[-1].headers["retry-after"] == "60"
    elsewhere = TestClient(app, base_url="https://testserver", client=("192.0.2.1", 1), cookies={"device": device})
    welcome = elsewhere.post("/login", data=RIGHT)
    assert welcome.json() == "welcome"
    assert f"device={device};" in welcome.headers["set-cookie"]


def test_an_app_without_fastapi() -> None:
    app = run(PLAIN)["app"]
    app.add_middleware(RateLimitMiddleware, limit=None)
    client = TestClient(app)
    wrong = {"name": "ada", "password": "guess"}
    assert [client.post("/login", json=wrong).status_code for _ in range(6)] == [401] * 5 + [429]


def test_a_support_desk() -> None:
    names = run(BY_HAND)

    async def lock_out() -> None:
        for _ in range(5):
            async with names["guard"].attempt("ada", "192.0.2.1") as attempt:
                attempt.failed()

    assert asyncio.run(names["support_desk"]("ada")) == "5 failures are left"
    asyncio.run(lock_out())
    assert asyncio.run(names["support_desk"]("ada")) == "it was closed for 60 s more, and is open again"
    assert asyncio.run(names["support_desk"]("ada")) == "5 failures are left"
