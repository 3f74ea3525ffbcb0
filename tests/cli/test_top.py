"""`asgi-ratelimit top`: the counts that processes share on a Redis, or that an operator's page shows."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_ratelimit import Limiter
from asgi_ratelimit.cli.running import NoAnswer
from asgi_ratelimit.cli.snapshot_sources import page_source
from asgi_ratelimit.cli.snapshot_view import snapshot_view
from asgi_ratelimit.observe import KeyCounts, LimiterCounts, Outage, Period, Snapshot, Stats
from asgi_ratelimit.redis import RedisStore
from tests.support.command import asgi_ratelimit
from tests.support.local_server import served
from tests.support.servers import Server

NOW = 1_700_000_000.0
COUNTS = LimiterCounts(
    "app", allowed=1200, limited=40, blocked=2, shadow=10, unavailable=1, exempt=7, degraded=3, near=80, shadow_keys=4,
    busiest=Period(NOW - 300, 900, 30), minutes=(Period(NOW - 60, 500, 1), Period(NOW, 90, 10)),
    hours=(Period(NOW - 3600, 1, 1),), keys=(KeyCounts("5f2b", 300, 20, 0), KeyCounts("a\x1b[2Jb", 3, 2, 1)),
)  # fmt: skip
SNAPSHOT = Snapshot(
    NOW, {"app": COUNTS, "/items/{item_id}": LimiterCounts("/items/{item_id}", allowed=5)},
    (Outage("127.0.0.1:6379", NOW - 90, 12.5, "Connection refused", 17), Outage("b:1", NOW - 9, None, "timeout")),
    {"response": 120, "refused": 1}, 2,
)  # fmt: skip


async def count(url: str, calls: int = 5, **options: Any) -> None:
    """A process of an app that shares its counts."""
    stats = Stats()
    async with RedisStore(url, timeout=5.0, outage="closed", observers=[stats], **options) as store:
        limiter = Limiter("3/hour", store=store, name="search")
        for _ in range(calls):
            await limiter.try_acquire("user:42")
        await stats.share(store)


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_it_shows_what_processes_share_on_a_redis(any_redis: Server) -> None:
    for _ in range(2):
        asyncio.run(count(any_redis.url))
    shown = asgi_ratelimit("top", "--once", "--redis", any_redis.url)
    as_json = asgi_ratelimit("top", "--once", "--json", RATELIMIT_REDIS_URL=any_redis.url).json
    assert shown.code == 0
    assert any(line.startswith("search ") and " 10 7 70.0% " in line for line in lines_of(shown.out)), shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "user:42" not in shown.out
    limiter = as_json["limiters"][0]
    assert (limiter["name"], limiter["allowed"], limiter["limited"]) == ("search", 3, 7)


def test_a_pipe_gets_it_once(any_redis: Server) -> None:
    asyncio.run(count(any_redis.url, prefix="mine"))
    assert asgi_ratelimit("top", "--prefix", "mine", "--redis", any_redis.url).code == 0


def test_where_nothing_is_shared_is_a_sentence(any_redis: Server) -> None:
    ended = asgi_ratelimit("top", "--once", "--redis", any_redis.url)
    assert ended.code == 1
    assert "await stats.share(store)" in ended.err
    assert ended.out == ""


def test_a_server_that_is_not_there_is_a_sentence() -> None:
    ended = asgi_ratelimit("top", "--redis", "redis://:hush@127.0.0.1:1")
    assert ended.code == 1
    assert ended.err == "127.0.0.1:1 does not answer: Connection refused\n"


def test_on_a_terminal_it_goes_on_until_ctrl_c_which_is_quiet(any_redis: Server) -> None:
    asyncio.run(count(any_redis.url))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "asgi_ratelimit.cli", "top", "--every", "0.1", "--redis", any_redis.url]
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"search") < 3:
            seen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        seen += b"".join(_rest(ours))
        assert process.wait(20) == 0
    os.close(ours)
    assert b"Traceback" not in seen
    assert b"Aborted" not in seen
    assert b"\x1b[?25h" in seen  # the cursor is back


def _rest(file: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(file, 65_536)
        except OSError:  # the other end is closed
            return


# The operator's page


def as_page(snapshot: Snapshot) -> dict[str, Any]:
    """The state of the page: its periods are columns, for charts."""
    state = snapshot.to_dict()
    for limiter in state["limiters"]:
        for name in ("minutes", "hours"):
            limiter[name] = {key: [row[key] for row in limiter[name]] for key in ("start", "allowed", "refused")}
        if limiter["busiest"]:
            limiter["busiest"] = {"start": limiter["busiest"]["start"], "total": 930}
    return state


def page(answer: Response) -> Starlette:
    async def state(request: Request) -> Response:
        is_operator = request.headers.get("authorization") == "Bearer x"
        return answer if is_operator else PlainTextResponse("no", 403)

    return Starlette(routes=[Route("/operator/state", state)])


@pytest.mark.parametrize("path", ["/operator", "/operator/", "/operator/state"])
def test_it_shows_an_operators_page(path: str) -> None:
    with served(page(JSONResponse(as_page(SNAPSHOT)))) as port:
        url = f"http://127.0.0.1:{port}{path}"
        shown = asgi_ratelimit("top", "--once", "--url", url, "--header", "Authorization: Bearer x")
        refused = asgi_ratelimit("top", "--once", "--url", url)
    assert shown.code == 0, shown
    assert any(line.startswith("app 100 10 1,253 43 3.4% 930 at ") for line in lines_of(shown.out)), shown.out
    assert refused.code == 1
    assert "does not let us in (status 403): give --header" in refused.err


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (PlainTextResponse("hello"), "does not answer as an operator's page does"),
        (PlainTextResponse("[" * 100_000), "does not answer as an operator's page does"),
        (JSONResponse([1]), "does not answer as an operator's page does"),
        (JSONResponse({"limiters": [1]}), "does not answer as an operator's page does"),
        (JSONResponse({"limiters": [{"name": 1}]}), "does not answer as an operator's page does"),
        (PlainTextResponse("", 404), "has no counts (status 404)"),
        (RedirectResponse("/log-in"), "does not let us in (status 307)"),
    ],
)
def test_what_is_no_page_is_a_sentence(answer: Response, says: str) -> None:
    with served(page(answer)) as port:
        url = f"http://ada:hush@127.0.0.1:{port}/operator?token=hush"
        ended = asgi_ratelimit("top", "--url", url, "--header", "Authorization: Bearer x")
    assert ended.code == 1
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert "hush" not in ended.err


async def _drops() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_an_answer_that_never_ends_is_a_sentence() -> None:
    with served(page(StreamingResponse(_drops()))) as port:
        url = f"http://127.0.0.1:{port}/operator"
        async with page_source(url, [("Authorization", "Bearer x")], seconds=0.5) as read:
            with pytest.raises(NoAnswer, match="took too long"):
                await read()


@pytest.mark.parametrize("url", ["operator", "ftp://a/b", "http://", "http://["])
def test_an_address_that_is_none_is_a_wrong_call(url: str) -> None:
    assert asgi_ratelimit("top", "--url", url).code in (1, 2)
    assert asgi_ratelimit("top", "--url", "operator").code == 2


# The tables


def drawn(snapshot: Snapshot, former: Snapshot | None = None, most: int = 20, width: int = 80) -> list[str]:
    from rich.console import Console

    console = Console(width=width, markup=False, force_terminal=False)
    with console.capture() as capture:
        console.print(snapshot_view(snapshot, former, most, width=width))
    return lines_of(capture.get())


def test_the_tables_have_all_that_was_counted() -> None:
    lines = drawn(SNAPSHOT)
    assert lines[0].startswith("2 processes, ")
    assert lines[2] == "limiter /s minute refused all refused share busiest"
    assert lines[4].startswith("/items/{item_id} 0 0 5 0 0.0%")
    text = " ".join(lines)
    assert "5f2b app 300 20" in text
    assert "app: 2 blocked, 1 answered with 503, 3 decided without the store, 80 near the limit, 7 exempt" in text
    assert "shadow mode would have refused 10 calls of 4 keys" in text
    assert "for 13 s: Connection refused, 17 checks were decided without it" in text
    assert "b:1 is down since " in text
    assert "Discord: 120 response, 1 refused" in text
    assert "\x1b" not in text


def test_calls_per_second_are_those_since_the_last_look() -> None:
    former = Snapshot(NOW - 10, {"app": LimiterCounts("app", allowed=1000)})
    assert drawn(SNAPSHOT, former)[3].startswith("app 25.3 100 10 1,253 43 ")
    restarted = Snapshot(NOW - 10, {"app": LimiterCounts("app", allowed=9000)})
    assert drawn(SNAPSHOT, restarted)[3].startswith("app 0.0 100 ")


def test_a_narrow_terminal_has_the_names_and_the_sums() -> None:
    lines = drawn(SNAPSHOT, width=40)
    assert lines[2] == "limiter /s all refused"
    assert lines[3].startswith("app 1,253 43")


def test_no_name_or_key_takes_the_whole_terminal() -> None:
    long = "x" * 3_000
    counts = LimiterCounts(long, allowed=3, near=1, keys=(KeyCounts(long, 3, 0, 0),))
    lines = drawn(Snapshot(NOW, {long: counts}))
    assert len(lines) < 20
    assert any("…" in line for line in lines)


def test_no_counts_and_many_limiters() -> None:
    assert drawn(Snapshot(NOW, processes=1))[0].startswith("1 process, ")
    assert "and 1 more (--limiters)" in drawn(SNAPSHOT, most=1)
    assert drawn(Snapshot(1e300, {}))[0] == "2 processes, ?".replace("2 processes", "1 process")
