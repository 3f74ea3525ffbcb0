"""The servers of the Discord benchmark, in processes of their own: a stage, and a FakeDiscord without limits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from asgi_ratelimit.testing import FakeDiscord
from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS, Scenario
from asgi_ratelimit.testing.fake_discord.serving import serve
from asgi_ratelimit.testing.fake_discord.stage import Score, Stage

__all__ = ["ROOT", "RemoteStage", "plain_server", "stage"]

ROOT = Path(__file__).parents[1]
PLAIN = "plain"


class RemoteStage:
    """The server, as the benchmark holds it in its hands."""

    def __init__(self, address: str, client: httpx.Client) -> None:
        self.address, self._client = address, client

    def open(self, scenario: Scenario) -> None:
        """Open a new FakeDiscord."""
        self._post("_reset", {"scenario": scenario.key})

    def start(self) -> None:
        """Count from here, from the beginning of one of the server's seconds; both of us see the same clock."""
        second = int(time.monotonic()) + 2  # the second of the last login is over
        time.sleep(second - time.monotonic())
        self._post("_start", {})

    def score(self) -> Score:
        return Score(**self._client.get(f"{self.address}/_result").raise_for_status().json())

    def _post(self, verb: str, content: dict[str, Any]) -> None:
        self._client.post(f"{self.address}/{verb}", json=content).raise_for_status()


@contextmanager
def stage() -> Iterator[RemoteStage]:
    """Run a stage for as long as the block runs."""
    with _process() as address, httpx.Client(trust_env=False, timeout=30) as client:
        yield RemoteStage(address, client)


@contextmanager
def plain_server() -> Iterator[str]:
    """A server that neither limits nor delays anything, for as long as the block runs: its address."""
    with _process(PLAIN) as address:
        yield address


@contextmanager
def _process(*arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.discord_server", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()


def _main() -> None:
    app = FakeDiscord(global_limit=None, record=False) if PLAIN in sys.argv else Stage(SCENARIOS["bucket"])
    serve(app, lambda address: print(address, flush=True))


if __name__ == "__main__":
    _main()
