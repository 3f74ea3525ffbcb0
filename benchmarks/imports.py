"""How long an import takes: each in a fresh process, ours beside the parts of Starlette that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Score

__all__ = ["FLOOR", "OURS", "OUR_IMPORT", "imports"]

FLOOR, OURS = "the parts of Starlette that it imports (the floor)", "**asgi_ratelimit**"
PEERS = {
    "asgi-ratelimit": "import ratelimit",
    "slowapi": "import slowapi",
    "traffik": "import traffik",
    "limits.aio": "import limits.aio.strategies, limits.aio.storage",
    "throttled-py": "import throttled.asyncio",
    "fastapi-limiter": "import fastapi_limiter.depends",
}
OUR_IMPORT = "from asgi_ratelimit import Limiter, RateLimitMiddleware"
_LIST = f"{OUR_IMPORT}\nimport sys\nprint(*(name for name in sys.modules if name.partition('.')[0] == 'starlette'))"
_TIME = "from time import process_time_ns as now\nstarted = now()\n{}\nprint(now() - started)"


def imports(rounds: int) -> dict[str, Score]:
    """The processor time of every import, in ns, with its modules compiled before."""
    statements = {FLOOR: f"import {', '.join(_output(_LIST).split())}", OURS: OUR_IMPORT} | PEERS
    times: dict[str, list[float]] = {name: [] for name in statements}
    failures: dict[str, str] = {}
    for number in range(-1, rounds):  # the first round only compiles what is not compiled yet
        for name in list(statements)[:: 1 if number % 2 else -1]:
            try:
                needed = float(_output(_TIME.format(statements[name])))
            except RuntimeError as error:
                failures[name] = str(error)
            else:
                times[name] += [needed] if number >= 0 else []
    return {
        name: Score(name, () if name in failures else tuple(times[name]), failures.get(name, "")) for name in statements
    }


def _output(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    folder = Path(__file__).parent.parent
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError((process.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return process.stdout
