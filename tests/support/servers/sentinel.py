"""A master with replicas, and sentinels that put one of them in its place when it is gone."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Self

from tests.support.servers.binaries import KINDS
from tests.support.servers.server import HOST, Option, Server, is_in_step, wait_until

NAME = "service"
SETTINGS = {"down-after-milliseconds": 500, "failover-timeout": 2000, "parallel-syncs": 1}


class Sentinels:
    """`servers` are the first master and its replicas, `sentinels` three that watch them with a quorum of two."""

    def __init__(self, kind: str = KINDS[0], *, replicas: int = 1, **options: Option) -> None:
        self.servers = [Server(kind, repl_diskless_sync_delay=0, **options) for _ in range(1 + replicas)]
        self.sentinels = [Server(kind, "--sentinel") for _ in range(3)]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"{HOST}:{each.port}" for each in self.sentinels) + f"/{NAME}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for each in (*self.servers, *self.sentinels):
                stack.enter_context(each)
            self._replicate()
            self._watch()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def master(self) -> Server:
        """The server that is the master now, according to the first sentinel that runs."""
        return self._master_by(next(each for each in self.sentinels if each.running))

    def wait_for_new_master(self, old: Server) -> Server:
        """Return when all the sentinels that run agree on another master, and it agrees."""
        running = [each for each in self.sentinels if each.running]
        wait_until(
            lambda: all(self._master_by(each) is not old for each in running), f"{old!r} is replaced", seconds=30
        )
        new = self.master()
        wait_until(lambda: new.role == "master", f"{new!r} is a master")
        return new

    def _master_by(self, sentinel: Server) -> Server:
        _, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(each for each in self.servers if each.port == int(port))

    def _replicate(self) -> None:
        master, *replicas = self.servers
        for replica in replicas:
            replica.command("REPLICAOF", HOST, master.port)
        for replica in replicas:
            wait_until(partial(is_in_step, replica), f"{replica!r} is in step with its master")

    def _watch(self) -> None:
        for sentinel in self.sentinels:
            sentinel.command("SENTINEL", "MONITOR", NAME, HOST, self.servers[0].port, 2)
            for setting, value in SETTINGS.items():
                sentinel.command("SENTINEL", "SET", NAME, setting, value)
        for sentinel in self.sentinels:
            wait_until(partial(self._knows_all, sentinel), f"{sentinel!r} knows all the others")

    def _knows_all(self, sentinel: Server) -> bool:
        words = sentinel.command("SENTINEL", "MASTER", NAME)
        state = dict[str, str](zip(words[::2], words[1::2], strict=True))
        return (state["num-slaves"], state["num-other-sentinels"]) == (str(len(self.servers) - 1), "2")
