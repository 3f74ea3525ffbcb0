"""WorkerProcesses: four programs that share a Redis, and answer each line with a line."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from typing import Any

__all__ = ["WORKERS", "WorkerProcesses"]

WORKERS = 4


class WorkerProcesses:
    """Programs that are started with the URL of a Redis and a prefix, and say "ready".

    module: the program, as of `python -m`
    """

    def __init__(self, module: str, url: str) -> None:
        self.url, self.prefix = url, f"w{secrets.token_hex(4)}"
        command = [sys.executable, "-W", "error", "-m", module]
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
        ]
        for process in self.processes:
            self.say(process, [self.url, self.prefix])
        assert [self._hear(process) for process in self.processes] == ["ready\n"] * WORKERS

    def say(self, process: subprocess.Popen[str], line: object) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps(line)}\n")
        process.stdin.flush()

    def answer(self, process: subprocess.Popen[str]) -> Any:
        """The next one of a process."""
        return json.loads(self._hear(process))

    def end(self) -> None:
        for process in self.processes:
            process.communicate(timeout=10)

    def _hear(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()
