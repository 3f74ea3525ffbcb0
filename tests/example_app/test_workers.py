"""The example app as `make demo-redis` starts it: four workers, one Redis, one limit for all of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from redis import Redis

from example_app.with_redis import private_redis
from tests.example_app.conftest import credentials
from tests.support.servers import wait_until

AT_ONCE = 24
PATIENCE = 30.0  # s, for a machine that is busy with something else
INHERITED_BY_NONE = ("RATELIMIT_REDIS_URL", "SESSION_SECRET", "WEB_CONCURRENCY")


@dataclass(frozen=True, slots=True)
class Demo:
    """A starter that runs, where its pages are, and the Redis that its workers share."""

    starter: subprocess.Popen[str]
    address: str
    redis: str

    def client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=AT_ONCE)
        return httpx.Client(base_url=self.address, limits=limits, timeout=PATIENCE, trust_env=False)

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return client.get("/login").status_code == 200
            except httpx.TransportError:
                return False

    def end(self, number: signal.Signals) -> int:
        """Signal it as a terminal does, with everything that it has started there."""
        os.killpg(self.starter.pid, number)
        return self.starter.wait(PATIENCE)


@contextmanager
def started(**environment: str) -> Iterator[Demo]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if name not in INHERITED_BY_NONE}
    command = [sys.executable, "-m", "example_app.with_redis", "--port", str(port)]
    with subprocess.Popen(
        command, env=own | environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as starter:
        try:
            assert starter.stdout is not None
            match = re.search(r"(http:\S+\d),.* Redis at (\S+)", starter.stdout.readline())
            assert match is not None
            demo = Demo(starter, match[1], f"redis://{match[2]}")
            wait_until(demo.answers, "the demo answers", seconds=PATIENCE)
            yield demo
        finally:
            starter.terminate()
            starter.wait(PATIENCE)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """On a Redis that was there before: the starter uses it, and leaves it running."""
    with private_redis() as url:
        # On a busy machine 0.1 s may pass without an answer. Then a worker counts alone.
        with started(RATELIMIT_REDIS_URL=url, RATELIMIT_REDIS_TIMEOUT="5") as demo:
            assert demo.redis == url
            yield demo
        assert is_served(url)


@pytest.fixture
def address(demo: Demo) -> str:
    """The app that the page of this module's tests shows."""
    return demo.address


def log_in(client: httpx.Client, member: str) -> None:
    assert client.post("/login", data=credentials(member)).status_code == 303


def burst(client: httpx.Client, path: str) -> list[httpx.Response]:
    """One response per connection, all requested at once."""
    with ThreadPoolExecutor(AT_ONCE) as callers:
        return list(callers.map(client.get, [path] * AT_ONCE))


def worker(answer: httpx.Response) -> int:
    return int(answer.headers["x-worker"])


def server_of(url: str) -> int:
    """The process id of the Redis."""
    with Redis.from_url(url) as redis:
        return int(redis.info("server")["process_id"])


def is_served(url: str) -> bool:
    _, host, port = url.removesuffix("/0").replace("//", "").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# Over plain HTTP


def test_several_workers_let_in_exactly_the_limit_together(demo: Demo) -> None:
    with demo.client() as client:
        log_in(client, "grace")
        started = time.monotonic()
        answers = [answer for _ in range(5) for answer in burst(client, "/api/reports")]
        refilled = int((time.monotonic() - started) / 5)  # 12 a minute; on a busy machine this takes its time
    assert len({worker(answer) for answer in answers}) > 1
    assert {answer.headers["connection"] for answer in answers} == {"close"}  # the next may be another worker's
    assert {answer.status_code for answer in answers} == {200, 429}
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers if answer.status_code == 200]
    assert 12 <= len(left) <= 12 + refilled
    assert set(left) == set(range(12))  # each call was charged to the bucket that all share


def test_a_log_in_holds_in_every_worker(demo: Demo) -> None:
    limits: dict[int, int] = {}
    with demo.client() as client:
        log_in(client, "ada")

        def all_have_answered() -> bool:
            limits.update({worker(answer): answer.json()["app"]["limit"] for answer in burst(client, "/api/gauges")})
            return len(limits) == 4

        wait_until(all_have_answered, "four workers have answered", seconds=PATIENCE)
    assert set(limits.values()) == {120}


def test_every_worker_reads_the_same_gauges(demo: Demo) -> None:
    with demo.client() as client:
        log_in(client, "ada")
        assert client.post("/api/channels/random/messages").status_code == 200
        readings = {answer.json()["messages-random"]["remaining"] for answer in burst(client, "/api/gauges")}
    assert readings == {3}


def test_all_workers_count_guesses_together(demo: Demo) -> None:
    with demo.client() as client, ThreadPoolExecutor(AT_ONCE) as callers:
        answers = list(callers.map(lambda _: client.post("/protection/log-ins", json={"account": "grace"}), range(12)))
        assert {worker(answer) for answer in answers} != {worker(answers[0])}
        assert Counter(answer.json()["status"] for answer in answers) == {401: 5, 429: 7}
        phone = {"account": "grace", "place": "phone", "right": True}
        assert client.post("/protection/log-ins", json=phone).json()["status"] == 200


# The starter


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_the_private_redis_ends_with_the_demo(number: signal.Signals) -> None:
    with started(WEB_CONCURRENCY="2") as demo:
        with demo.client() as client:
            workers = {worker(answer) for answer in burst(client, "/login")}
        server = server_of(demo.redis)
        assert is_alive(server)
        assert demo.end(number) == 0
        assert not is_served(demo.redis)
        assert [process for process in (server, *workers) if is_alive(process)] == []


# In a browser


def bursts(page: Page) -> Locator:
    return page.get_by_test_id("answers").get_by_test_id("burst")


def let_in_together(page: Page, button: str) -> Locator:
    """Fire until several workers have had a share in one burst, mostly the first; return its sum.

    On a busy machine a worker may hear nothing from Redis in time. It counts alone then, so that one more is let in.
    """
    for fired in range(1, 10):
        page.get_by_test_id(button).click()
        expect(bursts(page)).to_have_count(fired)
        if re.search(r" [0-4] of 6 let in, .* together", bursts(page).first.inner_text()):
            break
    return bursts(page).first


@pytest.mark.parametrize("width", [390, 1280])
def test_a_burst_names_its_workers_and_sums_up(page: Page, width: int, shoot: Callable[[str], None]) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/")
    expect(page.get_by_test_id("kept")).to_have_text("Redis, shared by 4 workers")
    total = let_in_together(page, "burst-messages-general")
    match = re.search(r"#general (\d) of 6 let in, by ([234]) workers together", total.inner_text())
    assert match is not None

    shares = [re.findall(r"\d+", tag.inner_text()) for tag in total.get_by_test_id("worker").all()]
    assert len(shares) == int(match[2])
    assert sum(int(allowed) for _, allowed, _ in shares) == int(match[1]) <= 4
    assert sum(int(calls) for _, _, calls in shares) == 6
    hues = [tag.get_attribute("data-hue") for tag in total.get_by_test_id("worker").all()]
    assert len(set(hues)) == len(hues)

    tags = page.locator(".answer").get_by_test_id("worker")
    assert {tag.inner_text().split()[-1] for tag in tags.all()} >= {name for name, _, _ in shares}
    expect(page.get_by_role("status")).to_contain_text(f"refused, by {match[2]} workers together.")
    shoot(f"workers-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.get_by_test_id("answers").evaluate("list => list.scrollWidth - list.clientWidth") == 0


def test_the_page_says_when_redis_is_away_and_when_it_is_back(page: Page, demo: Demo) -> None:
    page.goto("/")
    badge = page.get_by_test_id("kept")
    server = server_of(demo.redis)
    os.kill(server, signal.SIGSTOP)
    try:
        expect(badge).to_have_text("Redis is away, each worker counts alone", timeout=10_000)
        page.get_by_test_id("call-search").click()
        expect(page.get_by_test_id("tally")).to_contain_text("1 allowed")
    finally:
        os.kill(server, signal.SIGCONT)
    expect(badge).to_have_text("Redis, shared by 4 workers", timeout=20_000)
