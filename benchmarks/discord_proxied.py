"""The proxy's part of the page: clients with limiters of their own through it, and what it adds to a call."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import httpx

from asgi_ratelimit.testing.fake_discord.scenarios import SCENARIOS, Scenario
from benchmarks.discord_harness import Candidate, Result, play
from benchmarks.discord_libraries import installed_clients
from benchmarks.discord_report import CLIENTS, HEAD, cell, title
from benchmarks.discord_server import ROOT, RemoteStage, plain_server, stage
from benchmarks.redis_server import PrivateServer, private_server
from benchmarks.report import table

__all__ = ["sections"]

ROWS = ("global-processes", "bucket-processes")
COLUMNS = ("discord.py", "hikari", "@discordjs/rest")
PATIENCE = 20.0  # seconds for a proxy to start
CALLS = 400


def sections(quick: bool) -> Iterator[tuple[str, str, str]]:
    rounds = 1 if quick else 2
    with ExitStack() as stack:
        server, scene = stack.enter_context(private_server()), stack.enter_context(stage())
        known = [*CLIENTS, *stack.enter_context(installed_clients())]
        candidates = [candidate for candidate in known if candidate.name in COLUMNS]
        rows = [
            (scenario, proxies, {c: _runs(scenario, c, proxies, rounds, scene, server) for c in candidates})
            for scenario in map(SCENARIOS.__getitem__, ROWS)
            for proxies in (1, 2)
        ]
    lines = [
        [_head(scenario, proxies), *(cell(scenario, results[c] or None, c) for c in candidates)]
        for scenario, proxies, results in rows
    ]
    versions = {scenario: results for scenario, _, results in rows}
    yield "Through the proxy", _text(*added()), table([HEAD, *(title(c, versions) for c in candidates)], lines)


def _runs(
    scenario: Scenario, candidate: Candidate, proxies: int, rounds: int, scene: RemoteStage, server: PrivateServer
) -> list[Result]:
    return [_run(scenario, candidate, proxies, scene, server) for _ in range(0 if candidate.missing else rounds)]


def _run(scenario: Scenario, candidate: Candidate, proxies: int, scene: RemoteStage, server: PrivateServer) -> Result:
    server.forget()
    shared = ["--redis", server.url] if proxies > 1 else []
    options = ["--global-limit", str(scenario.global_limit), *shared]
    with ExitStack() as stack:
        ways = [stack.enter_context(proxy(scene.address, *options)) for _ in range(proxies)]
        return play(scenario, candidate, scene, ways=ways)


def added() -> tuple[float, float]:
    """Milliseconds of a call by one client after another: straight to the server, and through a proxy."""
    with plain_server() as server, proxy(server, "--global-limit", "100000") as way:
        times: dict[str, list[float]] = {server: [], way: []}
        with httpx.Client(headers={"Authorization": "Bot x"}, trust_env=False) as client:
            for _ in range(CALLS):
                for address, taken in times.items():
                    started = time.perf_counter()
                    client.get(f"{address}/api/v10/users/@me").raise_for_status()
                    taken.append(time.perf_counter() - started)
    return 1e3 * median(times[server]), 1e3 * median(times[way])


@contextmanager
def proxy(upstream: str, *options: str) -> Iterator[str]:
    """A proxy in a process of its own, for as long as the block runs: its address."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "asgi_ratelimit.cli", "discord-proxy", "--port", str(port)]
    process = subprocess.Popen([*command, "--upstream", upstream, *options], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _await_health(address, process)
        yield address
    finally:
        process.kill()
        process.wait()


def _await_health(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            httpx.get(f"{address}/health", trust_env=False).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the proxy did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _head(scenario: Scenario, proxies: int) -> str:
    way = "one proxy" if proxies == 1 else "two that share a Redis"
    return f"{scenario.name}, through {way} ({scenario.ideal:.2f})"


def _text(straight: float, through: float) -> str:
    return (
        "The same server, and before it `asgi-ratelimit discord-proxy` in a process of its own, new for each run. The "
        "clients have their own limiters as by default and only another base URL. A call of one client "
        f"after another to a server without delays took {straight:.2f} ms, and {through:.2f} ms through the proxy: it "
        f"adds {through - straight:.2f} ms (medians of {CALLS} calls each, by turns)."
    )
