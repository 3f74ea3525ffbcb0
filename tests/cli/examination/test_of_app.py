"""`asgi-ratelimit doctor` on apps behind a real server: what they say, and whether their limit can be walked around."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_ratelimit import RateLimitMiddleware
from tests.support.command import Ended, asgi_ratelimit
from tests.support.local_server import served

pytestmark = pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")


def limited(limit: str | None = "100/hour", **options: Any) -> Starlette:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("come in")

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(RateLimitMiddleware, limit=limit, **options)
    return app


def answering(*answers: Response) -> Starlette:
    """An app that gives these answers in turn, and notes the requests."""

    async def endpoint(request: Request) -> Response:
        requests: list[Request] = request.app.state.requests
        requests.append(request)
        return answers[(len(requests) - 1) % len(answers)]

    app = Starlette(routes=[Route("/", endpoint)])
    app.state.requests = []
    return app


def doctor(port: int, *options: str) -> Ended:
    return asgi_ratelimit("doctor", f"http://ada:hush@127.0.0.1:{port}/?token=hush", *options)


def found(ended: Ended) -> dict[str, Any]:
    return {finding["about"]: finding for finding in ended.json["findings"]}


@pytest.mark.parametrize("style", ["discord", "ietf", "both"])
def test_an_app_that_is_well(style: Any) -> None:
    with served(limited(headers=style)) as port:  # uvicorn trusts 127.0.0.1, from which the command does not ask
        ended = doctor(port)
    assert ended.code == 0
    assert ended.out.splitlines()[0] == f"App: http://127.0.0.1:{port}/, 6 requests (GET)"
    assert "ok counting Each request counts: 99 left, 98 left, 97 left." in ended.text
    assert "ok forwarded A made-up X-Forwarded-For changes nothing." in ended.text
    assert ("Discord's X-RateLimit-*" in ended.text) == (style != "ietf")
    assert ("the IETF's RateLimit" in ended.text) == (style != "discord")
    assert ended.out.splitlines()[-1] == "Well."
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("limit", ["100/hour", "2/hour"])
def test_a_limit_that_can_be_walked_around_is_not_well(limit: str) -> None:
    with served(limited(limit), forwarded_allow_ips="*") as port:
        ended = doctor(port, "--json")
    assert ended.code == 1
    assert found(ended)["forwarded"]["level"] == "bad"
    assert "can be walked around" in found(ended)["forwarded"]["says"]
    assert "--forwarded-allow-ips" in found(ended)["forwarded"]["advice"]
    assert "hush" not in ended.out


def test_an_app_that_refuses_at_once_is_well() -> None:
    with served(limited("1/hour")) as port:
        doctor(port)
        ended = doctor(port, "--json")
    assert ended.code == 0
    assert found(ended)["retry-after"]["says"] == "On each refusal, in whole seconds."
    assert found(ended)["counting"]["says"] == "Each request counts: refused, refused, refused."


def test_an_app_without_a_limit_is_a_warning() -> None:
    with served(answering(PlainTextResponse("come in"))) as port:
        ended = doctor(port, "--json")
    assert ended.code == 0
    assert {about: finding["level"] for about, finding in found(ended).items()} == {
        "answers": "ok", "headers": "warning", "retry-after": "ok"
    }  # fmt: skip


def test_what_does_not_fall_cannot_be_judged() -> None:
    with served(answering(PlainTextResponse("", headers={"X-RateLimit-Remaining": "7"}))) as port:
        ended = doctor(port, "--json")
    assert {finding["about"] for finding in ended.json["findings"] if finding["level"] == "warning"} == {
        "headers", "counting", "forwarded"
    }  # fmt: skip


def test_it_asks_six_times_and_sends_the_headers_that_it_was_given(tmp_path: Any) -> None:
    (tmp_path / "headers").write_text("X-Api-Key: hush\n\nCookie: a=b\n")
    app = answering(PlainTextResponse(""))
    with served(app) as port:
        doctor(port, "--header", f"@{tmp_path / 'headers'}", "--header", "X-More: 1")
    requests: list[Request] = app.state.requests
    assert [request.headers["x-api-key"] + request.headers["x-more"] for request in requests] == ["hush1"] * 6
    forged = [request.headers.get("x-forwarded-for") for request in requests]
    assert forged[:3] == [None] * 3
    assert all(str(address).startswith("198.") for address in forged[3:])


@pytest.mark.parametrize(("status", "level", "code"), [(503, "bad", 1), (307, "warning", 0), (404, "ok", 0)])
def test_the_status_is_looked_at(status: int, level: str, code: int) -> None:
    with served(answering(Response(status_code=status, headers={"location": "/log-in"}))) as port:
        ended = doctor(port, "--json")
    assert (found(ended)["answers"]["level"], ended.code) == (level, code)


def test_no_app_is_one_line() -> None:
    ended = asgi_ratelimit("doctor", "http://ada:hush@127.0.0.1:1/", "--json")
    assert ended.code == 1
    assert [one["says"] for one in ended.json["findings"]] == [
        "http://127.0.0.1:1/ does not answer: Connection refused."
    ]
