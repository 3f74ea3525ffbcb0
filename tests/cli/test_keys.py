"""`asgi-ratelimit show`, `reset` and `block` on the buckets of an app, on a real Redis."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from asgi_ratelimit import Decision, Escalate, Limiter, RateLimitMiddleware, SlidingWindow, TokenBucket
from asgi_ratelimit.escalation import Escalation, Strikes
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.redis import RedisStore
from tests.support.command import asgi_ratelimit
from tests.support.servers import Proxy, Server

LIMITS: list[Any] = [SlidingWindow("3/hour"), TokenBucket("1000/day", scope="global")]
SAID = ("--limit", "SlidingWindow(3/hour)", "--limit", "TokenBucket(1000/day, scope=global)")


def use(server: Server, work: Callable[[Limiter], Awaitable[Any]], name: str = "app", **options: Any) -> Any:
    """What an app does with its limiter."""

    async def run() -> Any:
        async with RedisStore(server.url, timeout=5.0, outage="closed", deny_cache=0, **options) as store:
            return await work(Limiter(LIMITS, store=store, name=name))

    return asyncio.run(run())


async def spend(limiter: Limiter, calls: int = 3) -> None:
    for _ in range(calls):
        await limiter.try_acquire("user:42")


def test_show_is_what_a_call_would_find(any_redis: Server) -> None:
    use(any_redis, spend)
    shown = asgi_ratelimit("show", "user:42", *SAID, "--redis", any_redis.url)
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert shown.code == 1
    assert lines[:4] == ["key user:42", "limiter app", "allowed no, in 1 h", ""]
    assert lines[4:6] == ["limit kind scope left full in", "3/hour SlidingWindow user 0 of 3 1 h"]
    assert lines[6].startswith("1000/day TokenBucket global 997 of 1000 4 min ")
    assert len(lines) == 7
    assert shown.err == ""


def test_show_charges_nothing_and_its_json_has_the_numbers(any_redis: Server) -> None:
    use(any_redis, lambda limiter: spend(limiter, 2))
    for _ in range(2):
        shown = asgi_ratelimit("show", "user:42", *SAID, "--json", RATELIMIT_REDIS_URL=any_redis.url)
    assert shown.code == 0
    assert {name: shown.json[name] for name in ("key", "limiter", "allowed", "reason", "retry_after")} == {
        "key": "user:42", "limiter": "app", "allowed": True, "reason": "ok", "retry_after": 0.0
    }  # fmt: skip
    first, second = shown.json["limits"]
    assert (first["limit"], first["kind"], first["remaining"], first["capacity"]) == ("3/hour", "SlidingWindow", 1, 3)
    assert 3500 < first["reset_after"] <= 3600
    assert (second["scope"], second["remaining"]) == ("global", 998)
    assert asgi_ratelimit("show", "user:42", *SAID, "--cost", "2", "--redis", any_redis.url).code == 1


def test_a_bucket_that_is_untouched_may_be_another_one(any_redis: Server) -> None:
    use(any_redis, spend)
    for others in (["user:43", *SAID], ["user:42", "--limit", "4/hour"], ["user:42", *SAID, "--limiter", "other"]):
        shown = asgi_ratelimit("show", *others, "--redis", any_redis.url)
        assert shown.code == 0, others
        assert "its bucket is another one" in shown.text, others
    assert "another one" not in asgi_ratelimit("show", "user:42", *SAID, "--redis", any_redis.url).text


def test_reset_fills_the_buckets_and_lifts_the_block(any_redis: Server) -> None:
    use(any_redis, spend)
    use(any_redis, lambda limiter: limiter.block("user:42", 3600))
    done = asgi_ratelimit("reset", "user:42", *SAID, "--redis", any_redis.url)
    assert done.code == 0
    assert done.text.startswith("user:42 is reset in app. Before: blocked for another ")
    assert done.text.endswith("Now: 3 of 3 left of 3/hour, 1000 of 1000 left of 1000/day.")
    decision: Decision = use(any_redis, lambda limiter: limiter.peek("user:42"))
    assert decision.allowed
    assert decision.remaining == 3
    again = asgi_ratelimit("reset", "user:42", *SAID, "--json", "--redis", any_redis.url).json
    assert again["before"] == again["after"]


def test_reset_forgets_how_often_the_key_was_blocked_for_hammering(any_redis: Server) -> None:
    async def hammer(limiter: Limiter) -> float:
        escalate = Escalate(after=2, within=60, block=(60, 600))
        escalation = Escalation(escalate, store=limiter.store, name=limiter.name)
        return await escalation.refused("user:42", limiter.block, 2)

    assert use(any_redis, hammer) == 60
    assert use(any_redis, hammer) == 0  # it is blocked
    asgi_ratelimit("reset", "user:42", *SAID, "--redis", any_redis.url)
    strikes = use(any_redis, lambda limiter: Strikes((60,), 3600, store=limiter.store, name="app").round_of("user:42"))
    assert strikes.level == 0


def test_block_refuses_the_key_and_zero_lifts_it(any_redis: Server) -> None:
    done = asgi_ratelimit("block", "user:42", "3600", "--redis", any_redis.url)
    assert (done.code, done.text) == (0, "user:42 is blocked in app for 1 h. Before: not blocked.")
    assert use(any_redis, lambda limiter: limiter.peek("user:42")).reason == "blocked"
    shown = asgi_ratelimit("show", "user:42", *SAID, "--redis", any_redis.url)
    assert shown.code == 1
    assert "allowed no: the key is blocked for another" in shown.text
    lifted = asgi_ratelimit("block", "user:42", "0", "--json", "--redis", any_redis.url).json
    assert 3500 < lifted.pop("blocked_before") <= 3600
    assert lifted == {"key": "user:42", "limiter": "app", "blocked_for": 0.0}
    assert use(any_redis, lambda limiter: limiter.peek("user:42")).allowed


def test_the_limits_of_a_route_are_found_with_their_resource(any_redis: Server) -> None:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=RedisStore(any_redis.url, timeout=5.0))
    own: list[Any] = ["5/hour", TokenBucket("9/hour", scope="global")]

    @app.get("/a/{one}/b/{two}", dependencies=[Depends(RateLimit(own, per=("one", "two"), key=lambda conn: "ada"))])
    async def endpoint(one: str, two: str) -> None: ...

    with TestClient(app) as client:
        for _ in range(2):
            assert client.get("/a/1/b/2").status_code == 200
    said = ["--limiter", "/a/{one}/b/{two}", "--limit", "5/hour", "--limit", "TokenBucket(9/hour, scope=global)"]
    shown = asgi_ratelimit("show", "ada", *said, "--per", "1", "--per", "2", "--json", "--redis", any_redis.url)
    assert [limit["remaining"] for limit in shown.json["limits"]] == [3, 7]


def test_the_secret_of_the_store_comes_from_a_file_or_the_environment(any_redis: Server, tmp_path: Path) -> None:
    use(any_redis, spend, secret="hush", prefix="mine")
    (tmp_path / "secret").write_bytes(b"hush\n")
    options = ["user:42", *SAID, "--prefix", "mine", "--redis", any_redis.url]
    assert asgi_ratelimit("show", *options).code == 0
    assert asgi_ratelimit("show", *options, RATELIMIT_SECRET="hush").code == 1
    assert asgi_ratelimit("show", *options, "--secret-file", str(tmp_path / "secret")).code == 1


@pytest.mark.parametrize("content", [None, b"", b"\n"])
def test_a_file_without_a_secret_is_a_wrong_call(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    ended = asgi_ratelimit(
        "block", "a", "1", "--secret-file", str(file), "--redis", "redis://127.0.0.1:1", COLUMNS="500"
    )
    assert ended.code == 2
    assert f"secret {'cannot be read' if content is None else 'is empty'}" in ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "a", "--limit", "1/s"], "which Redis?"),
        (["show", "a", "--redis", "redis://127.0.0.1:1"], "which limit?"),
        (["reset", "a", "--redis", "redis://127.0.0.1:1"], "which limit?"),
        (["show", "a", "--limit", "x", "--redis", "redis://127.0.0.1:1"], "cannot read the limit 'x'"),
        (["block", "a", "-1"], "SECONDS"),
        (["block", "a", "inf", "--redis", "redis://127.0.0.1:1"], "not inf"),
        (["block", "a", "1e300", "--redis", "redis://127.0.0.1:1"], "100 years"),
        (["block", "a", "1", "--limiter", "", "--redis", "redis://127.0.0.1:1"], "name of a limiter"),
        (["block", "a", "1", "--timeout", "0", "--redis", "redis://127.0.0.1:1"], "timeout"),
        (["block", "a", "1", "--prefix", "{", "--redis", "redis://127.0.0.1:1"], "prefix"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_the_exit_code_2(arguments: list[str], says: str) -> None:
    ended = asgi_ratelimit(*arguments)
    assert ended.code == 2
    assert says in ended.err
    assert ended.out == ""


def test_a_cost_above_the_capacity_is_a_wrong_call(any_redis: Server) -> None:
    ended = asgi_ratelimit("show", "a", "--limit", "3/s", "--cost", "4", "--redis", any_redis.url)
    assert ended.code == 2
    assert "1 to 3, the capacity, not 4" in ended.text


@pytest.mark.parametrize(
    "command", [["show", "a", "--limit", "1/s"], ["reset", "a", "--limit", "1/s"], ["block", "a", "1"]]
)
def test_a_server_that_is_not_there_is_one_sentence(command: list[str]) -> None:
    ended = asgi_ratelimit(*command, "--redis", "redis://ada:hush@127.0.0.1:1")
    assert ended.code == 1
    assert ended.err == "127.0.0.1:1 does not answer: Connection refused\n"


def test_a_server_that_is_silent_is_one_sentence(proxy: Proxy) -> None:
    proxy.silence()
    ended = asgi_ratelimit("block", "a", "1", "--timeout", "0.05", "--redis", proxy.url)
    assert ended.code == 1
    assert ended.err.startswith(f"127.0.0.1:{proxy.port} does not answer: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    ["redis://ada:hu@sh@h", "redis://ada:hu/sh@h", "redis://ada:hu#sh@h", "redis://ada:hush@h:x", "http://ada:hush@h",
     "redis://:hush@h?db=hush", "redis://ada:hush@[", "redis+sentinel://ada:hush@h", "hush", "rediss://:hush@127.0.0.1:1?ssl_ca_certs=no"],
)  # fmt: skip
def test_no_password_is_repeated(url: str) -> None:
    for command in (["block", "a", "1"], ["doctor"], ["top", "--once"]):
        ended = asgi_ratelimit(
            *command, "--timeout" if command[0] != "doctor" else "--store-timeout", "1", "--redis", url
        )
        assert ended.code in (1, 2)
        assert not re.search("hu|sh@", ended.text), ended.text


def test_a_wrong_password_is_not_repeated() -> None:
    with Server(requirepass="right") as server:
        ended = asgi_ratelimit("block", "a", "1", "--redis", server.url.replace("right", "hush"))
    assert ended.code == 1
    assert "does not let us in" in ended.err
    assert "hush" not in ended.text


def test_a_key_cannot_command_the_terminal(any_redis: Server) -> None:
    shown = asgi_ratelimit("show", "a\x1b[2J[red]b", "--limit", "1/s", "--redis", any_redis.url)
    assert "\x1b" not in shown.out
    assert "a\ufffd[2J[red]b" in shown.out


def test_colours_are_left_out_where_they_are_not_wanted(any_redis: Server) -> None:
    arguments = ("show", "user:42", "--limit", "3/hour", "--redis", any_redis.url)
    coloured = asgi_ratelimit(*arguments, FORCE_COLOR="1").out
    without = asgi_ratelimit(*arguments).out
    assert "\x1b[" in coloured
    assert "\x1b[" not in without
    assert max(map(len, without.splitlines()[:6])) <= 80


def test_without_redis_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['redis'] = None; from asgi_ratelimit.cli import main; main()"
    for command in (["block", "a", "1"], ["doctor"], ["top", "--once"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *command, "--redis", "redis://127.0.0.1:1"],
            capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"},
        )  # fmt: skip
        assert ended.returncode == 2
        assert ended.stderr == "asgi_ratelimit.redis needs redis-py: pip install 'asgi-ratelimit-discord[redis]'\n"
