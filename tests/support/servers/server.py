"""One real server: a process on a free port of 127.0.0.1 that can be stopped, killed, paused and queried."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.support.servers.binaries import KINDS, binary

Word = str | bytes | int | float
Option = str | int | tuple[str | int, ...]

HOST = "127.0.0.1"
# These, and the bus ports of cluster nodes 10 000 above, lie below the ports of outgoing connections.
PORTS = range(12_000, 22_000)
BUS = 10_000
DEFAULTS: dict[str, Option] = {"bind": HOST, "save": "", "appendonly": "no", "unixsocket": "redis.sock"}
OPEN: dict[str, Option] = {"enable-protected-configs": "yes"}  # a test may have it write elsewhere; unknown to 6.2
SECONDS = 15.0
# A client that is to name itself to the server reads its version from the disk, which takes longer than a command.
UNNAMED: dict[str, Any] = {"driver_info": None} if "driver_info" in signature(Redis).parameters else {"lib_name": None}

# setpriv ends a server together with the thread that started it, so this thread lives as long as the tests do.
_starter = ThreadPoolExecutor(max_workers=1)


class PortTakenError(Exception):
    """Another process has the port that was free a moment ago."""


def wait_until(condition: Callable[[], object], description: str, *, seconds: float = SECONDS) -> None:
    """Return as soon as the condition holds. Raises TimeoutError with the description if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s until {description}")
        time.sleep(0.003)


def free_port() -> int:
    """A free port with a free bus port. `random` is not used, since Hypothesis seeds it."""
    while True:
        port = secrets.choice(PORTS)
        try:
            for each in (port, port + BUS):
                socket.create_server((HOST, each)).close()
        except OSError:
            continue
        return port


def is_in_step(replica: Server) -> bool:
    """Whether a replica has all that its master had when they connected."""
    return bool(replica.command("INFO", "replication").get("master_link_status") == "up")


def _encoded(word: Word) -> Word:
    # Keys may be any bytes; those that are not UTF-8 are surrogates in answers, and may be in questions.
    return word.encode(errors="surrogateescape") if isinstance(word, str) else word


class Server:
    """A server of one of the KINDS, in a folder of its own that goes when it is closed.

    Options are written as in its configuration: Server("redis-6.2", requirepass="secret", maxmemory="2mb").
    """

    host = HOST
    port = 0

    def __init__(self, kind: str = KINDS[0], *flags: str, **options: Option) -> None:
        self.kind = kind
        self.password = str(options.get("requirepass", ""))
        self._flags = flags
        self._options = DEFAULTS | (OPEN if kind != "redis-6.2" else {}) | options
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path()

    @property
    def url(self) -> str:
        return f"redis://{self._credentials}{HOST}:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._credentials}{self.folder / 'redis.sock'}"

    @property
    def tls_url(self) -> str:
        """For a server with `tls_options`."""
        return (
            f"rediss://{self._credentials}{HOST}:{self._options['tls_port']}"
            f"?ssl_ca_certs={self._options['tls_ca_cert_file']}"
        )

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ProcessLookupError(f"{self!r} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Also while it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def role(self) -> str:
        """As it sees itself: "master", "slave" or "sentinel"; "" if it does not answer."""
        try:
            return str(self.command("ROLE")[0])
        except RedisError:
            return ""

    def start(self) -> Self:
        """Start on a free port, and return when it answers."""
        program = binary(self.kind)
        self.folder = Path(tempfile.mkdtemp(prefix="server-"))
        atexit.register(self.close)
        try:
            self._launch_somewhere(program)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End it at once, with all that it has written."""
        self.kill()
        shutil.rmtree(self.folder) if self.folder.name else None
        self.folder = Path()
        atexit.unregister(self.close)

    def stop(self) -> None:
        """Shut down as an operator would; nothing happens if it has ended before."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
        self._reap()

    def kill(self) -> None:
        """End it without a warning. Nothing happens if it has ended before."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def restart(self) -> None:
        """Start again on the same port, with nothing but the files in its folder, and return when it answers."""
        self.stop()
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return self._launch(binary(self.kind))
            except PortTakenError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def pause(self) -> None:
        """Stand still: connections are accepted (by the system), nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Go on, with whatever has arrived in the meantime, and return when it answers."""
        os.kill(self.pid, signal.SIGCONT)
        wait_until(self._answers, f"{self!r} answers again")

    def command(self, verb: str, *words: Word) -> Any:
        """Send a command over a connection of its own, with no second try."""
        with self.client() as client:
            return client.execute_command(verb, *map(_encoded, words))

    def client(self, *, timeout: float = 5.0) -> Redis:
        """A synchronous client. The caller closes it."""
        return Redis(
            host=HOST,
            port=self.port,
            password=self.password or None,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=True,
            encoding_errors="surrogateescape",
            **UNNAMED,
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.kind} on port {self.port}>"

    @property
    def _credentials(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _configure(self) -> None:
        lines = [f"port {self.port}"]
        for name, value in self._options.items():
            words = value if isinstance(value, tuple) else (value,)
            lines.append(
                " ".join([name.replace("_", "-"), *(json.dumps(str(word), ensure_ascii=False) for word in words)])
            )
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")

    def _launch_somewhere(self, program: str) -> None:
        while True:
            self.port = free_port()
            self._configure()
            try:
                return self._launch(program)
            except PortTakenError:
                continue

    def _launch(self, program: str) -> None:
        setpriv = shutil.which("setpriv")
        bound_to_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self._log.open("wb") as log:
            self._process = _starter.submit(
                subprocess.Popen,
                [*bound_to_us, program, "server.conf", *self._flags],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()
        wait_until(lambda: self._answers() or not self.running, f"{self!r} answers")
        if not self.running:
            self._explain()

    def _explain(self) -> None:
        self._reap()
        log = self._log.read_text(errors="replace")
        if "Address already in use" in log:
            raise PortTakenError(f"port {self.port}")
        raise RuntimeError(f"{self!r} did not start:\n{log}")

    def _answers(self) -> bool:
        """Whether it is this process that answers, and not another one on the same port, and has loaded its records."""
        try:
            with self.client(timeout=0.5) as client:
                info = client.execute_command("INFO")
                return bool(info["process_id"] == self.pid and not info.get("loading"))
        except RedisError:
            return False

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(SECONDS)
            self._process = None
