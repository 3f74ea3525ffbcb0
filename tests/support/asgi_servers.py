"""ASGI servers as processes of their own, on a free port of the loopback, with everything that they print."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

from tests.support.servers.server import free_port, wait_until

__all__ = ["SECONDS", "ServerProcess", "served", "wait_for"]

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


@dataclass(frozen=True)
class ServerProcess:
    """A server, the port where it is to listen, and the file of its output."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None) -> tuple[HTTPResponse, bytes]:
        return self.request("GET", path, headers=headers)

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()

    @property
    def answers(self) -> bool:
        """Whether it answers a request, whatever the answer is."""
        with suppress(OSError, HTTPException):
            self.get("/missing")
            return True
        return False

    @property
    def listens(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            return True
        return False

    def terminate(self) -> None:
        """End it as an operator does."""
        self.process.terminate()
        self.process.wait(SECONDS)

    def kill(self) -> None:
        """End it with all of its workers, whatever they are doing. Nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)


@contextmanager
def served(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[ServerProcess]:
    """A Python module with its arguments as a server, until the block ends. `{port}` stands for its port."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables = {**own, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=cwd,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = ServerProcess(process, port, log)
    try:
        yield server
    finally:
        server.kill()


def wait_for(server: ServerProcess) -> None:
    """Return when the server listens. Raises AssertionError with its output if it ends instead."""
    wait_until(lambda: server.listens or server.has_ended, f"{server.process.args!r:.200} listens", seconds=SECONDS)
    assert not server.has_ended, server.output
