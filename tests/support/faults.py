"""Faults of a server, each for as long as a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Thread

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from tests.support.servers import Proxy, Server, wait_until

LATE = 1.2  # seconds by which the slow one is late: more than a busy machine is by itself
HOST = "127.0.0.1"
SILENT = "did not answer within"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"

Fault = Callable[[Server, Proxy], AbstractContextManager[None]]


@contextmanager
def refused(server: Server, proxy: Proxy) -> Iterator[None]:
    proxy.refuse()
    proxy.cut()
    yield
    proxy.pass_through()


@contextmanager
def silent(server: Server, proxy: Proxy) -> Iterator[None]:
    proxy.silence()
    yield
    proxy.pass_through()


@contextmanager
def slow(server: Server, proxy: Proxy) -> Iterator[None]:
    proxy.delay(LATE)
    yield
    proxy.pass_through()


@contextmanager
def cut(server: Server, proxy: Proxy) -> Iterator[None]:
    """It runs the command, and the connection is gone before the reply."""
    proxy.cut_answers()
    yield
    proxy.pass_through()


@contextmanager
def killed(server: Server, proxy: Proxy) -> Iterator[None]:
    server.kill()
    yield
    server.restart()


@contextmanager
def paused(server: Server, proxy: Proxy) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


@contextmanager
def loading(server: Server, proxy: Proxy) -> Iterator[None]:
    proxy.reply(LOADING)
    yield
    proxy.pass_through()


@contextmanager
def replica(server: Server, proxy: Proxy) -> Iterator[None]:
    """Another has become the master, and this one still receives the checks."""
    server.command("REPLICAOF", HOST, 1)
    yield
    server.command("REPLICAOF", "NO", "ONE")


@contextmanager
def full(server: Server, proxy: Proxy) -> Iterator[None]:
    server.command("CONFIG", "SET", "maxmemory", 1)
    yield
    server.command("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def unsaved(server: Server, proxy: Proxy) -> Iterator[None]:
    """It could not write its snapshot, so it takes no writes."""
    (server.folder / "taken").mkdir()
    server.command("CONFIG", "SET", "dbfilename", "taken")
    server.command("CONFIG", "SET", "save", "3600 1")
    server.command("BGSAVE")
    wait_until(lambda: server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "err", "it could not save")
    yield
    server.command("CONFIG", "SET", "save", "")


@contextmanager
def busy(server: Server, proxy: Proxy) -> Iterator[None]:
    """A script of another program does not end."""
    server.command("CONFIG", "SET", "lua-time-limit", 5)
    thread = Thread(target=_run_for_ever, args=(server,))
    thread.start()
    try:
        wait_until(lambda: _says(server).startswith("BUSY"), f"{server!r} is busy")
        yield
    finally:
        server.command("SCRIPT", "KILL")
        thread.join()


@contextmanager
def locked(server: Server, proxy: Proxy) -> Iterator[None]:
    """Its password has been changed, and every client has to send it."""
    server.command("CONFIG", "SET", "requirepass", "changed")
    server.password = "changed"
    server.command("CLIENT", "KILL", "TYPE", "normal")
    yield
    server.command("CONFIG", "SET", "requirepass", "")
    server.password = ""


def _run_for_ever(server: Server) -> None:
    with server.client(timeout=60.0) as client, suppress(ResponseError, RedisConnectionError):
        client.eval("while true do end", 0)


def _says(server: Server) -> str:
    try:
        return str(server.command("PING"))
    except RedisError as error:
        return str(error)


# All of them, and the cause that is reported of each. For some it depends on the first symptom.
CAUSES: dict[Fault, str] = {
    refused: "",
    silent: SILENT,
    slow: SILENT,
    cut: "",
    killed: "",
    paused: SILENT,
    loading: "LOADING",
    replica: "READONLY",
    full: "OOM",
    unsaved: "MISCONF",
    busy: "BUSY",
    locked: "",
}
# Those in which a server may run the commands, or runs them later.
RECEIVED = (silent, slow, cut, paused)
