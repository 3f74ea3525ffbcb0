"""A real cluster: masters that share the slots between them, replicas if wanted, and slots that move."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import permutations
from typing import Self

from redis.exceptions import RedisError

from tests.support.servers.binaries import KINDS
from tests.support.servers.server import BUS, HOST, Option, Server, is_in_step, wait_until

SLOTS = 16_384


class Cluster:
    """`masters` servers with a share of the slots each, followed in `nodes` by `replicas` of every one of them."""

    def __init__(
        self, kind: str = KINDS[0], *, masters: int = 3, replicas: int = 0, timeout_ms: int = 500, **options: Option
    ) -> None:
        own: dict[str, Option] = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": timeout_ms,
            "cluster_replica_validity_factor": 0,
            "repl_diskless_sync_delay": 0,
            "repl_ping_replica_period": 1,  # a replica is listed after its first ping
        }
        self.nodes = [Server(kind, **own, **options) for _ in range(masters * (1 + replicas))]
        self._masters, self._stack = masters, ExitStack()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._share_slots()
            self._meet()
            self._replicate()
            self.wait_until_ok()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait_until_ok(self) -> None:
        """Return when every node that runs sees the whole cluster."""
        for node in self.nodes:
            if node.running:
                wait_until(partial(self._is_ok, node), f"{node!r} finds the cluster to be whole")

    def slot_of(self, key: str) -> int:
        return int(self._anybody.command("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> Server:
        """The master that has this slot now."""
        for first, last, (_, port, *_), *_ in self._anybody.command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self._on(port)
        raise LookupError(f"no node has slot {slot}")

    def move_slot(self, slot: int, target: Server) -> None:
        """Move a slot and its keys, as resharding does, in the three steps below."""
        self.open_slot(slot, target)
        self.carry_keys(slot, target)
        self.close_slot(slot, target)

    def open_slot(self, slot: int, target: Server) -> None:
        """From now on the owner answers ASK for keys of this slot that it does not hold."""
        owner = self.owner(slot)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(owner))
        owner.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(target))

    def carry_keys(self, slot: int, target: Server) -> None:
        """Take the slot's keys over, while it still belongs to its owner."""
        owner = self.owner(slot)
        while keys := owner.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            owner.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)

    def close_slot(self, slot: int, target: Server) -> None:
        """Announce the slot's owner to every master. From now on the others answer MOVED."""
        owner, name = self.owner(slot), self._id(target)
        others = [node for node in self.nodes if node not in (target, owner) and node.role == "master"]
        for node in (target, owner, *others):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def master_and_replica(self, slot: int) -> tuple[Server, Server]:
        """The master of this slot, and its replica."""
        for first, last, (_, port, *_), *replicas in self._anybody.command("CLUSTER", "SLOTS"):
            if first <= slot <= last and replicas:
                return self._on(port), self._on(replicas[0][1])
        raise LookupError(f"slot {slot} has no replica")

    @property
    def _anybody(self) -> Server:
        return next(node for node in self.nodes if node.running)

    def _on(self, port: int) -> Server:
        return next(node for node in self.nodes if node.port == port)

    def _id(self, node: Server) -> str:
        return str(node.command("CLUSTER", "MYID"))

    def _share_slots(self) -> None:
        bounds = [SLOTS * n // self._masters for n in range(self._masters + 1)]
        for epoch, node in enumerate(self.nodes, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node, first, after in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.command("CLUSTER", "ADDSLOTS", *range(first, after))

    def _meet(self) -> None:
        for one, other in permutations(self.nodes, 2):
            one.command("CLUSTER", "MEET", HOST, other.port, other.port + BUS)

    def _replicate(self) -> None:
        for n, node in enumerate(self.nodes[self._masters :]):
            self._follow(node, self._id(self.nodes[n % self._masters]))
        for node in self.nodes:
            wait_until(partial(self._knows_replicas, node), f"{node!r} knows every replica")

    def _follow(self, node: Server, master: str) -> None:
        wait_until(lambda: master in node.command("CLUSTER", "NODES"), f"{node!r} knows its master")
        node.command("CLUSTER", "REPLICATE", master)
        wait_until(lambda: is_in_step(node), f"{node!r} is in step with its master")

    def _knows_replicas(self, node: Server) -> bool:
        ports = {port for _, _, *servers in node.command("CLUSTER", "SLOTS") for _, port, *_ in servers}
        return len(ports) == len(self.nodes)

    def _is_ok(self, node: Server) -> bool:
        try:
            state = node.command("CLUSTER INFO")
        except RedisError:
            return False
        whole = state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS
        return whole and int(state["cluster_known_nodes"]) == len(self.nodes)


def _is_master(node: Server) -> bool:
    return bool(node.command("INFO", "replication")["role"] == "master")
