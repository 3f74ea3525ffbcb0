"""A cluster as one event loop sees it: which node has which slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from asgi_ratelimit.redis.address import Address, Dial
from asgi_ratelimit.redis.breaker import Breaker, EventHook
from asgi_ratelimit.redis.calls import Check
from asgi_ratelimit.redis.connection import end, hang_up
from asgi_ratelimit.redis.missed import Missed
from asgi_ratelimit.redis.node import Node

__all__ = ["Cluster"]

_SLOTS = 16_384
_MOST_HOPS = 3  # of one check, while slots are on the move
_SECONDS_TO_MAP = 1.0  # for one node's map, in the background
_PAUSE = 0.2  # seconds between two maps, at least

_SlotMap = dict[int, Address]  # the address of each slot's node


class Cluster:
    """Sends each check to the node of its slot, and follows the slots when they move."""

    def __init__(
        self,
        name: str,
        seeds: Sequence[Address],
        dial: Dial,
        make_node: Callable[[Address, int], Node],
        on_event: EventHook | None,
    ) -> None:
        self._seeds, self._dial, self._make_node = seeds, dial, make_node
        self._breaker = Breaker(name, on_event)  # of the map, not of a node
        self._nodes: dict[Address, Node] = {}
        self._slots: _SlotMap = {}
        self._waiting: list[Check] = []  # for the first map
        self._mapping: asyncio.Task[None] | None = None
        self._next_map = 0.0
        self.loop = asyncio.get_running_loop()
        self._missed = Missed(self._breaker, self.loop)

    def put(self, check: Check) -> None:
        if self._slots:
            self._route(check)
        elif self._breaker.is_open:
            self._refresh()
            self._missed.fail([check], ConnectionError(self._breaker.cause))
        else:
            if not self._waiting:
                self.loop.call_at(check.due, self._check_deadline)
            self._waiting.append(check)
            self._refresh()

    def miss(self, check: Check, error: Exception) -> None:
        """Answer a check without its server, and count it."""
        address = self._slots.get(check.slot)
        if address is None:
            self._missed.fail([check], error)
        else:
            self._node(address, check.slot).miss(check, error)

    async def connect(self) -> None:
        """Read the map and connect to each node. Raises the errors of redis-py."""
        if not self._slots:
            self._adopt(await self._fetch_map())
        await asyncio.gather(*(node.connect() for node in self._nodes.values()))

    async def aclose(self) -> None:
        if self._mapping is not None:
            await end([self._mapping])
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()))
        self._missed.report()

    def retire(self) -> None:
        """Close all connections, at once and for good."""
        if self._mapping is not None:
            self._mapping.cancel()
        for node in self._nodes.values():
            node.retire()
        self._missed.fail(self._take_waiting(), ConnectionError(f"{self._breaker.node} is not used any more"))
        self._missed.report()

    def suspend(self, error: Exception) -> None:
        """Use the older map, if there is one, since no new one can be read."""
        if not self._slots:
            self._breaker.trip(error)
        self._missed.fail(self._take_waiting(), error)

    def redirect(self, message: str, checks: Sequence[Check], origin: str) -> None:
        """The node at `origin` has answered MOVED (for good) or ASK (this once): the script did not run."""
        kind, _, where = [*message.split(" "), "", ""][:3]
        host, _, port = where.rpartition(":")
        address, moved = (host or origin, int(port) if port.isdecimal() else 0), kind == "MOVED"
        if not 0 < address[1] < 65_536:
            error = ConnectionError(f"{origin} names no node: {message:.200}")
            self._missed.fail(checks, error)
            return
        if moved:
            self._slots[checks[0].slot] = address
            self._refresh()
        for check in checks:
            check.hops += 1
            check.asking = not moved
            if check.hops > _MOST_HOPS:
                self._missed.fail([check], ConnectionError(message))
            else:
                self._node(address, check.slot).put(check)

    def _route(self, check: Check) -> None:
        address = self._slots.get(check.slot)
        if address is None:
            self._refresh()
            self._missed.fail([check], ConnectionError(f"no node of {self._breaker.node} serves slot {check.slot}"))
            return
        node = self._node(address, check.slot)
        if node.breaker.is_open:
            self._refresh()  # another may have taken its place
        node.put(check)

    def _node(self, address: Address, slot: int) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._make_node(address, slot)
        return node

    # The map

    def _refresh(self) -> None:
        """Read the map again, in the background, unless that is being done or was done just now."""
        if self._mapping is None and self.loop.time() >= self._next_map:
            self._mapping = self.loop.create_task(self._read_map())

    async def _read_map(self) -> None:
        try:
            self._adopt(await self._fetch_map())
        except Exception as error:  # of a credential provider, for example
            self.suspend(error)
        finally:
            self._mapping = None
            self._next_map = self.loop.time() + _PAUSE

    def _adopt(self, slots: _SlotMap) -> None:
        self._slots = slots
        if self._breaker.is_open:
            self._breaker.record_probe(None)
        present = set(slots.values())
        for address in self._nodes.keys() - present:
            node = self._nodes.pop(address)
            node.retire()
            node.breaker.retire()
        for slot, address in slots.items():
            if address in present:
                present.discard(address)
                self._node(address, slot)
        for check in self._take_waiting():
            self._route(check)

    def _check_deadline(self) -> None:
        """Fail if the first map has not come in time."""
        if self._waiting and self._waiting[0].due <= self.loop.time():
            self.suspend(TimeoutError(f"{self._breaker.node} did not list its slots in time"))

    def _take_waiting(self) -> list[Check]:
        checks, self._waiting = self._waiting, []
        return checks

    async def _fetch_map(self) -> _SlotMap:
        failure: Exception = ConnectionError(f"{self._breaker.node} has no address")
        for address in dict.fromkeys([*self._nodes, *self._seeds]):
            try:
                return await self._query(address)
            except (RedisError, OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _query(self, address: Address) -> _SlotMap:
        connection = None
        try:
            async with asyncio.timeout(_SECONDS_TO_MAP):
                connection = await self._dial(address)
                await connection.send_command("CLUSTER SLOTS")
                reply: Any = await connection.read_response(disable_decoding=True)
        finally:
            if connection is not None:
                hang_up(connection)
        slots = _slots_of(reply, address[0])
        if not slots:
            raise ConnectionError(f"{address[0]}:{address[1]} lists no slots")
        return slots


def _slots_of(reply: Any, origin: str) -> _SlotMap:
    """The map in a reply; empty if it is none."""
    slots: _SlotMap = {}
    try:
        for first, last, (name, port, *_), *_ in reply:
            host = (name or b"").decode() or origin  # a node that does not know its own name is the one that replied
            if not (0 <= first <= last < _SLOTS and 0 < port < 65_536):
                return {}
            slots.update(dict.fromkeys(range(first, last + 1), (host, port)))
    except (AttributeError, TypeError, ValueError):
        return {}
    return slots
