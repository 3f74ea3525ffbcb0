"""The connections of a store: one session for each event loop, and none that a forked process inherits."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from warnings import warn as _warn  # still there when the interpreter ends
from weakref import WeakSet, ref

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.redis.address import Address, Location
from asgi_ratelimit.redis.breaker import EventHook, StoreEvent
from asgi_ratelimit.redis.calls import Check, Redirect
from asgi_ratelimit.redis.cluster import Cluster
from asgi_ratelimit.redis.connection import Connect
from asgi_ratelimit.redis.names import slot_of
from asgi_ratelimit.redis.node import Node
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["Connections", "SessionFactory"]

_Sessions = dict[asyncio.AbstractEventLoop, Node | Cluster]
_Lifetimes = dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]]

_all: WeakSet[Connections] = WeakSet()
_inherited: list[object] = []  # from the parent of a fork: never closed, since the parent goes on using them


class SessionFactory:
    """Makes sessions with the servers of a store. `clock`: that of a test, instead of the server's."""

    def __init__(
        self,
        location: Location,
        prefix: str,
        clock: Clock | None,
        on_time: Callable[[int], None],
    ) -> None:
        self.is_cluster, self.name = location.kind == "cluster", location.name
        self._location, self._prefix = location, prefix
        self._clock, self._sets_time = clock or SystemClock(), clock is not None
        self._on_time = on_time
        self._warnings = WarnOnce()

    def make(self, timeout: float, on_event: EventHook | None) -> Node | Cluster:
        """A session of the running event loop."""
        dial = self._location.dial
        if not self.is_cluster:
            return self._node(self._location.name, lambda: dial(None), "{probe}", timeout, on_event)

        def make_node(address: Address, slot: int) -> Node:
            def redirect(message: str, checks: Sequence[Check]) -> None:
                cluster.redirect(message, checks, address[0])

            name = f"{address[0]}:{address[1]}"
            return self._node(name, lambda: dial(address), _tag_in(slot), timeout, on_event, redirect)

        cluster = Cluster(self._location.name, self._location.seeds, dial, make_node, on_event)
        return cluster

    def _node(
        self,
        name: str,
        dial: Connect,
        tag: str,
        timeout: float,
        on_event: EventHook | None,
        redirect: Redirect | None = None,
    ) -> Node:
        return Node(
            name,
            dial,
            self._clock,
            timeout=timeout,
            probe_key=f"{self._prefix}:{tag}:probe",
            sets_time=self._sets_time,
            on_time=self._on_time,
            on_event=on_event,
            redirect=redirect,
            on_memory=self._warn_of_eviction,
        )

    def _warn_of_eviction(self, memory: str) -> None:
        settings = dict(line.split(":", 1) for line in memory.splitlines() if ":" in line)
        policy = settings.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and settings.get("maxmemory", "0") != "0":
            self._warnings.warn(
                "ARL110", f"{self._location.name} has maxmemory-policy {policy}: set it to noeviction, or give it room"
            )


class Connections:
    """One session for each event loop. It ends with `aclose`, with its event loop, or with these connections."""

    def __init__(self, factory: SessionFactory, timeout: float, on_event: EventHook | None = None) -> None:
        self.timeout, self.is_cluster = timeout, factory.is_cluster
        self._factory, self._on_event = factory, on_event
        self._sessions: _Sessions = {}
        self._lifetimes: _Lifetimes = {}
        _all.add(self)

    def session(self) -> Node | Cluster:
        """The session of the running event loop."""
        loop = get_running_loop()
        return self._sessions.get(loop) or self._new_session(loop)

    @property
    def is_open(self) -> bool:
        """Whether the running event loop has a session."""
        return get_running_loop() in self._sessions

    async def aclose(self) -> None:
        """End the session of the running event loop. A later call of `session` makes another one."""
        lifetime = self._lifetimes.pop(asyncio.get_running_loop(), None)
        if lifetime is not None:
            await lifetime.aclose()

    def abandon(self) -> None:
        """Drop all sessions without closing them. A forked process does so, since they belong to its parent."""
        _inherited.append((self._sessions, self._lifetimes))
        self._sessions, self._lifetimes = {}, {}

    def __del__(self) -> None:
        """Close what nothing can use any more, with a ResourceWarning."""
        sessions = {loop: session for loop, session in self._sessions.items() if not loop.is_closed()}
        if not sessions:
            return
        message = f"the RedisStore at {self._factory.name} was not closed: use `async with`, or `await store.aclose()`"
        _warn(message, ResourceWarning, stacklevel=2)
        for loop, session in sessions.items():
            with suppress(RuntimeError):  # the loop has been closed just now
                loop.call_soon_threadsafe(session.retire)

    def emit(self, event: StoreEvent) -> None:
        """Call the hook of the store's user."""
        if self._on_event is not None:
            self._on_event(event)

    def _hook(self) -> EventHook:
        """`emit`, without a reference to it: the hook may refer to the store, which no open connection keeps alive."""
        reference = ref(self)

        def hook(event: StoreEvent) -> None:
            connections = reference()
            if connections is not None:
                connections.emit(event)

        return hook

    def _new_session(self, loop: asyncio.AbstractEventLoop) -> Node | Cluster:
        for former in [other for other in list(self._sessions) if other.is_closed()]:
            self._sessions.pop(former, None)
            self._lifetimes.pop(former, None)
        session = self._sessions[loop] = self._factory.make(self.timeout, self._hook())
        self._lifetimes[loop] = lifetime = _lifetime(loop, session, self._sessions, self._lifetimes)
        with suppress(StopIteration):
            lifetime.__anext__().send(None)
        return session


async def _lifetime(
    loop: asyncio.AbstractEventLoop, session: Node | Cluster, sessions: _Sessions, lifetimes: _Lifetimes
) -> AsyncGenerator[None, None]:
    """Ends with `aclose`, or with the event loop, which ends its generators before it is closed."""
    try:
        yield
    finally:
        lifetimes.pop(loop, None)
        sessions.pop(loop, None)
        await session.aclose()


@functools.cache  # it takes thousands of tries to find one
def _tag_in(slot: int) -> str:
    """A hash tag of a slot."""
    return next(f"{{{n}}}" for n in itertools.count() if slot_of(str(n)) == slot)


def _after_fork() -> None:
    for connections in _all:
        connections.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
