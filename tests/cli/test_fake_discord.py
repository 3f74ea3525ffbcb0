"""`asgi-ratelimit fake-discord` serves a scenario until a signal, and says what became of it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from asgi_ratelimit.cli.app import app
from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS

SECONDS = 20.0
COMMAND = [sys.executable, "-m", "asgi_ratelimit.cli", "fake-discord"]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process, and its address."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()
        yield process, process.stderr.readline().split()[4].removesuffix("/api/v10,")
    finally:
        process.kill()
        process.communicate()


def play(address: str) -> dict[str, Any]:
    """Make the calls of its plan, one after the other, each until it succeeds."""
    with httpx.Client(base_url=address, headers={"Authorization": "Bot x"}, trust_env=False) as client:
        for call in client.get("/_plan").json()["processes"][0]:
            client.request(call["method"], f"/api/v10{call['path']}", json=call["json"]).raise_for_status()
        result: dict[str, Any] = client.get("/_result").json()
    return result


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_plays_a_scenario_and_writes_the_result_at_its_end(ending: signal.Signals) -> None:
    with running("--scenario", "last", "--json") as (process, address):
        result = play(address)
        process.send_signal(ending)
        output, _ = process.communicate(timeout=SECONDS)
    score = json.loads(output)
    assert (process.returncode, score["scenario"], score["requests"], score["refused"]) == (0, "last", 2, {})
    assert (score["lost"], score["doubled"], score["lost_calls"]) == (0, 0, [])
    assert {**score, "idle": 0.0} == {**result, "idle": 0.0}


def test_what_is_lost_is_an_exit_code_of_one() -> None:
    with running("--scenario", "herd") as (process, _):
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert ["calls", "lost", "100"] in [line.split() for line in output.splitlines()]
    assert ["429s", "0"] in [line.split() for line in output.splitlines()]


def test_it_lists_the_scenarios() -> None:
    shown = CliRunner().invoke(app, ["fake-discord", "--list"])
    entries = json.loads(CliRunner().invoke(app, ["fake-discord", "--list", "--json"]).output)
    assert shown.exit_code == 0
    assert [entry["scenario"] for entry in entries] == list(SCENARIOS)
    assert all(key in shown.output for key in SCENARIOS)
    assert {"scenario": "bucket", "about": "9 at once, 2 per 1 s", "calls": 9, "ideal": 4.04} in entries


def test_a_scenario_that_is_none_is_a_wrong_question() -> None:
    answer = CliRunner().invoke(app, ["fake-discord", "--scenario", "flock"])
    assert answer.exit_code == 2
    assert "flock" in answer.output
    assert "herd" in answer.output


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = CliRunner().invoke(app, ["fake-discord", "--port", port])
    assert answer.exit_code == 2
    assert port in answer.output
