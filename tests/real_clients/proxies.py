"""Proxies as a user starts them, and processes of real clients behind them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx

from benchmarks.discord_libraries import CLIENTS
from tests.real_clients.libraries import installed_node_library
from tests.support.fake_discord_servers import UNUSED_TLS
from tests.support.servers import wait_until

PATIENCE = 60.0  # seconds for whatever a process has to do


def command_of(client: str) -> tuple[list[str], dict[str, str]]:
    """The command of a client's process, and its options."""
    if client == "@discordjs/rest":
        node, folder = installed_node_library(client)
        return [node, str(CLIENTS / "discordjs.mjs")], {"modules": str(folder)}
    module = client.replace(".", "")
    options = {"package": client, "library": "discord"}
    return [sys.executable, "-m", f"benchmarks.discord_clients.{module}"], options


@contextmanager
def proxies(upstream: str, number: int, redis: str | None = None) -> Iterator[list[str]]:
    """The addresses of so many proxies, which share a Redis if there is one."""
    with ExitStack() as stack:
        yield [stack.enter_context(_proxy(upstream, redis)) for _ in range(number)]


@contextmanager
def _proxy(upstream: str, redis: str | None) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--upstream", upstream, *(["--redis", redis] if redis else [])]
    command = [sys.executable, "-m", "asgi_ratelimit.cli", "discord-proxy", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _await_health(address)
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _await_health(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False, verify=UNUSED_TLS) as client:

        def is_well() -> bool:
            with suppress(httpx.TransportError):
                return bool(client.get("/health").json()["status"] == "ok")
            return False

        wait_until(is_well, "the proxy serves")


Calls = Sequence[Mapping[str, Any]]


def play(
    client: str, addresses: Sequence[str], jobs: Sequence[Calls], before: Sequence[Calls], rest: float
) -> list[list[Any]]:
    """The outcomes of each process's calls. All processes begin at the same moment, after those `before` and a rest."""
    command, options = command_of(client)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ})
            )
            for _ in jobs
        ]
        try:
            for number, (process, calls) in enumerate(zip(processes, jobs, strict=True)):
                address = addresses[number % len(addresses)]
                _write(
                    process,
                    {"address": address, "global_limit": 50, "before": before[number], "calls": calls, **options},
                )
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline().strip() == "ready"
            time.sleep(rest)
            for process in processes:
                _write(process, "go")
            outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    return [json.loads(output)["outcomes"] for output in outputs]


def _write(process: subprocess.Popen[str], line: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
