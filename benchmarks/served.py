"""The price of a limit in a served request: the processor time of the server's process, by the system's accounts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.harness import Score, Turn, compete, enter
from benchmarks.http_overhead import BARE, FLOOR, OURS
from benchmarks.served_app import GROUPS

__all__ = ["served"]

CONNECTIONS, SECONDS = 32, 1
MANY = 1_000_000  # a minute: all are allowed
LEAST = 1  # a minute: all but the first are refused
HEADERS = ("User-Agent: DiscordBot (https://example.org, 1.0)", "Authorization: Bearer 0123456789abcdef")


async def served(group: str, rounds: int, *, refused: bool = False) -> dict[str, Score]:
    """The µs per request of each candidate of a group. All servers run; one at a time has work."""
    names = [BARE, FLOOR, OURS] if refused else list(GROUPS[group])
    with ExitStack() as servers:

        async def build(name: str) -> Turn:
            count = MANY if name == BARE or not refused else LEAST
            process, port = servers.enter_context(_server(group, name, count))
            return partial(_turn, process, port, refused and name != BARE)

        builders: Mapping[str, Callable[[], Awaitable[Turn]]] = {name: partial(build, name) for name in names}
        return await compete(await enter(builders), rounds)


@contextmanager
def _server(group: str, name: str, count: int) -> Iterator[tuple[int, int]]:
    """The process and the port of a candidate."""
    command = [sys.executable, "-m", "benchmarks.served_app", group, name, str(count)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.strip():
                raise RuntimeError(process.stderr.read().strip().splitlines()[-1] if process.stderr else "it ended")
            yield process.pid, int(line)
        finally:
            process.terminate()


async def _turn(process: int, port: int, refused: bool) -> float:
    before = _processor_ns(process)
    requests, errors = _load(port)
    if requests == 0 or (errors < requests - 1 if refused else errors > 0):
        raise RuntimeError(f"{errors} of {requests} requests were refused")
    return (_processor_ns(process) - before) / requests


def _processor_ns(process: int) -> int:
    """The time that the threads of a process have been on a processor, except those that have ended."""
    return sum(map(_thread_ns, Path(f"/proc/{process}/task").iterdir()))


def _thread_ns(thread: Path) -> int:
    try:
        return int(thread.joinpath("schedstat").read_text().split()[0])
    except FileNotFoundError:  # it has ended just now
        return 0


def _load(port: int) -> tuple[int, int]:
    """Requests of wrk, and how many of them were answered with an error."""
    headers = [part for header in HEADERS for part in ("-H", header)]
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed (Debian has it)")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *headers, f"http://127.0.0.1:{port}/"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    total = re.search(r"(\d+) requests in", report)
    return int(total[1]) if total else 0, int(refused[1]) if refused else 0
