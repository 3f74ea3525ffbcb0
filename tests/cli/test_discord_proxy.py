"""`asgi-ratelimit discord-proxy`: what it refuses, what it warns of, and that it serves."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest

from tests.support.servers import wait_until

COMMAND = [sys.executable, "-m", "asgi_ratelimit.cli", "discord-proxy"]
SECONDS = 30.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--upstream", "discord.com"], 'upstream must be an address without a path, e.g. "https://discord.com"'),
        (["--upstream", "http://a/[/red]x"], "http://a/[/red]x"),
        (["--redis", "nonsense"], "a RedisStore takes"),
        (["--global-limit", "0"], "--global-limit"),
        (["--min-remaining", "-1"], "--min-remaining"),
        (["--port", "70000"], "--port"),
        (["--max-memory", "0"], "--max-memory"),
    ],
)
def test_a_bad_option_is_a_sentence_and_the_exit_code_2(options: list[str], said: str) -> None:
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("host", "is_open"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_it_serves_and_says_so_if_it_is_open_to_others(host: str, is_open: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = ["--host", host, "--port", port, "--upstream", "http://127.0.0.1:9"]
    with subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert _health(port)["status"] == "ok"
            answer = httpx.get(
                f"http://127.0.0.1:{port}/api/v10/users/@me",
                headers={"X-Deadline": "0.5"},
                trust_env=False,
                timeout=SECONDS,
            )
            assert answer.status_code in (502, 504)
        finally:
            process.terminate()
        _, told = process.communicate(timeout=SECONDS)
    assert ("is open to others" in told) == is_open
    assert f"http://{host}:{port} forwards to http://127.0.0.1:9" in told


def _health(port: str) -> dict[str, str]:
    def answers() -> bool:
        with suppress(httpx.TransportError):
            told.update(httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).json())
        return bool(told)

    told: dict[str, str] = {}
    wait_until(answers, "it serves")
    return told
