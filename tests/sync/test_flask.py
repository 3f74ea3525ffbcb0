"""Flask, both ways: behind the middleware, and with a SyncLimiter around a view."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, make_response, request
from flask.typing import ResponseReturnValue

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, TokenBucket
from asgi_ratelimit.inbound.headers import discord_headers, retry_after_header
from asgi_ratelimit.inbound.responses import limited_body
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import ManualClock
from tests.inbound import test_served as real
from tests.support.threads import PATIENCE, started

View = Callable[..., ResponseReturnValue]

FIVE = ("limit", "remaining", "reset", "reset-after", "bucket")


def site(around: Callable[[View], View] = lambda view: view) -> Flask:
    flask = Flask(__name__)
    flask.config["SERVED"] = 0

    @flask.post("/search")
    @around
    def search() -> ResponseReturnValue:
        flask.config["SERVED"] += 1
        return {"sought": request.get_json()["word"], "by": request.remote_addr}, 201

    @flask.get("/")
    def index() -> ResponseReturnValue:
        return "index"

    return flask


# Behind the middleware


def test_a_flask_app_behind_the_middleware_is_limited_for_real_clients() -> None:
    flask = site()
    app = RateLimitMiddleware(WSGIMiddleware(flask), limit="5/5s", store=MemoryStore(clock=ManualClock()))  # type: ignore[arg-type]
    with real.served(app) as port:
        for left in "43210":
            with real.request(port, "/") as answer:
                assert (answer.status, answer.read()) == (200, b"index")
                assert answer.headers["x-ratelimit-remaining"] == left
        with real.request(port, "/search", b'{"word": "a"}') as refused:
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
            assert all(len(refused.headers.get_all(f"x-ratelimit-{name}") or []) == 1 for name in FIVE)
            assert refused.headers["x-ratelimit-limit"] == "5"
            assert refused.headers["x-ratelimit-remaining"] == "0"
            assert refused.headers["x-ratelimit-reset"] == "1700000005.000"
            assert refused.headers["x-ratelimit-reset-after"] == "5.000"
            assert json.load(refused) == {"message": "You are being rate limited.", "retry_after": 1.0, "global": False}
    assert flask.config["SERVED"] == 0


# Around a view: as in the README


def limited(limiter: SyncLimiter) -> Callable[[View], View]:
    def around(view: View) -> View:
        @wraps(view)
        def limited_view(*args: Any, **kwargs: Any) -> Response:
            quota = limiter.try_acquire(request.remote_addr or "")
            answer = make_response(view(*args, **kwargs) if quota.allowed else (json.loads(limited_body(quota)), 429))
            headers = discord_headers(quota, time.time(), refused=not quota.allowed)
            if not quota.allowed:
                headers.append(retry_after_header(quota))
            answer.headers.extend((name.decode(), value.decode()) for name, value in headers)
            return answer

        return limited_view

    return around


def limited_site(limit: str | TokenBucket = "5/5s") -> Flask:
    return site(limited(SyncLimiter(limit, store=MemoryStore(clock=ManualClock()), name="search")))


def test_a_limited_view_answers_429_in_discord_s_words() -> None:
    flask = limited_site()
    client = flask.test_client()
    for left in "43210":
        answer = client.post("/search", json={"word": "a"})
        assert (answer.status_code, answer.json) == (201, {"sought": "a", "by": "127.0.0.1"})
        assert answer.headers["X-RateLimit-Remaining"] == left
        assert "Retry-After" not in answer.headers
    refused = client.post("/search", json={"word": "a"})
    assert refused.status_code == 429
    assert refused.json == {"message": "You are being rate limited.", "retry_after": 1.0, "global": False}
    assert refused.headers["Retry-After"] == "1"
    assert all(len(refused.headers.getlist(f"X-RateLimit-{name}")) == 1 for name in FIVE)
    assert refused.headers["X-RateLimit-Reset-After"] == "5.000"
    assert refused.headers["X-RateLimit-Scope"] == "user"
    assert flask.config["SERVED"] == 5


def test_other_views_and_other_clients_have_their_own() -> None:
    client = limited_site("1/h").test_client()
    assert client.post("/search", json={"word": "a"}).status_code == 201
    assert client.post("/search", json={"word": "a"}).status_code == 429
    assert client.get("/").status_code == 200
    elsewhere = client.post("/search", json={"word": "a"}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert elsewhere.status_code == 201


def test_a_global_limit_of_a_view_is_worded_as_one() -> None:
    client = limited_site(TokenBucket("1/h", scope="global")).test_client()
    assert client.post("/search", json={"word": "a"}).status_code == 201
    refused = client.post("/search", json={"word": "a"}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert refused.status_code == 429
    assert refused.json is not None
    assert refused.json["global"] is True
    assert refused.headers["X-RateLimit-Global"] == "true"
    assert "X-RateLimit-Bucket" not in refused.headers


def test_the_threads_of_a_wsgi_server_are_admitted_exactly_as_often_as_the_limit_allows() -> None:
    flask = limited_site("100/h")

    def visit() -> list[int]:
        with flask.test_client() as client:
            return [client.post("/search", json={"word": "a"}).status_code for _ in range(10)]

    answers = [status for visiting in [started(visit) for _ in range(16)] for status in visiting.result(PATIENCE)]
    assert (answers.count(201), answers.count(429)) == (100, 60)
