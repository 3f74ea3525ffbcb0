"""The server of the Discord benchmark: a stage in a process of its own, new for each run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS, Scenario
from asgi_ratelimit.testing.fake_discord.serving import serve
from asgi_ratelimit.testing.fake_discord.stage import Score, Stage

__all__ = ["ROOT", "RemoteStage", "stage"]

ROOT = Path(__file__).parents[1]


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
    """Run the server for as long as the block runs."""
    command = [sys.executable, "-m", "benchmarks.discord_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            yield RemoteStage(process.stdout.readline().strip(), client)  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    serve(Stage(SCENARIOS["bucket"]), lambda address: print(address, flush=True))
