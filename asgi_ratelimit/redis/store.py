"""RedisStore: the same buckets for every process that uses the same server."""

from __future__ import annotations

import asyncio
import itertools
import os
from binascii import crc_hqx
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from copy import copy
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.limits import OUTAGES, Outage
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.redis.address import Address, place_of
from asgi_ratelimit.redis.breaker import Tell
from asgi_ratelimit.redis.buckets import SLOTS, RedisBuckets
from asgi_ratelimit.redis.cluster import Cluster
from asgi_ratelimit.redis.cross_slot import CrossSlotBuckets
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.redis.fallback import Fallback, LastKnown, ServerClock
from asgi_ratelimit.redis.names import Namer
from asgi_ratelimit.redis.node import Check, Node, Redirect
from asgi_ratelimit.redis.scripts import RedisScripts
from asgi_ratelimit.store import Buckets
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RedisStore"]

_LOCAL_KEYS = 100_000  # that are known in this process, for an outage
_SCOPES = ("user", "shared", "global")  # the most specific first

_stores: WeakSet[RedisStore] = WeakSet()
_inherited: list[object] = []  # by a fork: never closed, since the parent goes on using them


class RedisStore:
    """Buckets in Redis or Valkey: one server, a master watched by Sentinel, or a cluster.

    `where`: a URL, or a redis.asyncio client whose settings are used (its own connections are neither used nor
    closed). `prefix`: what all keys begin with. `secret`: keys the digests under which keys are stored. `timeout`:
    seconds after which a check is answered without the server; then `outage` decides, unless a limit has one of its
    own: "local" (a store in this process's memory, warm), "open" (let everybody pass) or "closed" (StoreUnavailable).
    `deny_cache`: how many refusals are remembered, for a second at most; 0 for none. `clock`: for tests, instead of
    the server's. `on_event`: called with a StoreEvent when a server goes down and when it is back. ValueError for
    what makes no sense.
    """

    shared: bool = True

    def __init__(
        self,
        where: object,
        *,
        prefix: str = "ratelimit",
        secret: str | bytes | None = None,
        timeout: float = 0.1,
        outage: Outage = "local",
        deny_cache: int = 10_000,
        clock: Clock | None = None,
        on_event: Tell | None = None,
    ) -> None:
        _check_options(prefix, secret, timeout, outage, deny_cache)
        self._place = place_of(where)
        self.is_cluster = self._place.kind == "cluster"
        self.clock: Clock = clock or SystemClock()
        self.namer = Namer(prefix, secret.encode() if isinstance(secret, str) else secret or b"")
        self.deny = DenyCache(deny_cache)
        self.last_states = LastKnown()
        self.timeout = timeout
        self.outage: Outage = outage
        self._prefix, self._tell = prefix, on_event
        self._manual = clock
        self._server_clock = ServerClock()
        self._local = MemoryStore(max_keys=_LOCAL_KEYS, clock=clock or self._server_clock)
        self._notices = WarnOnce()
        self._patient: dict[float, RedisStore] = {}
        self._sessions: dict[asyncio.AbstractEventLoop, Node | Cluster] = {}
        self._lives: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        _stores.add(self)

    def __repr__(self) -> str:
        return f"RedisStore({self._place.name!r}, prefix={self._prefix!r})"

    def open(self, name: str, policies: Sequence[Policy]) -> Buckets:
        if not self.is_cluster:
            return self._buckets(name, policies, policies[0])
        by_scope = [[policy for policy in policies if policy.limit.scope == scope] for scope in _SCOPES]
        groups = [group for i, group in enumerate(by_scope) if group or i == 0]
        face = next((policy for policy in policies if policy.limit.scope != "global"), policies[0])
        buckets = [self._buckets(name, group, face, blocks=i == 0) for i, group in enumerate(groups)]
        return buckets[0] if len(buckets) == 1 else CrossSlotBuckets(buckets)

    def scripts(self, source: bytes, *, patience: float) -> RedisScripts:
        """A script on the same servers. Calls that may take longer than `timeout` have connections of their own."""
        server = self if self.timeout >= patience else self._more_patient(patience)
        return RedisScripts(server, source, self._local.clock, self.outage)

    async def start(self) -> None:
        """Connect. StoreUnavailable if the server refuses us; one that is merely down is an outage like any other."""
        try:
            await self.session().connect()
        except (AuthenticationError, NoPermissionError) as error:
            raise StoreUnavailable(
                f"{self._place.name} does not let us in: {str(error).rstrip('.')}. Check the user and the password of "
                'the URL, as in "redis://user:password@host:6379", and that this user may run scripts.'
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            self.session().fall(error)

    async def aclose(self) -> None:
        """Close the connections of this event loop. The store may be used again: it connects anew."""
        life = self._lives.pop(asyncio.get_running_loop(), None)
        if life is not None:
            await life.aclose()
        for patient in self._patient.values():
            await patient.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # What the limiters' buckets use

    def session(self) -> Node | Cluster:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            for former in [other for other in list(self._sessions) if other.is_closed()]:
                self._sessions.pop(former, None)
                self._lives.pop(former, None)
            session = self._sessions[loop] = self._new_session()
            self._lives[loop] = life = self._life(loop, session)
            with suppress(StopIteration):
                life.__anext__().send(None)
        return session

    async def _life(self, loop: asyncio.AbstractEventLoop, session: Node | Cluster) -> AsyncGenerator[None, None]:
        """Ends with `aclose`, or with the event loop: before it is closed it ends its generators."""
        try:
            yield
        finally:
            self._lives.pop(loop, None)
            self._sessions.pop(loop, None)
            await session.aclose()

    def _buckets(self, name: str, policies: Sequence[Policy], face: Policy, *, blocks: bool = True) -> RedisBuckets:
        fallback = Fallback(self._local, self.last_states, name, policies, face, self.outage)
        return RedisBuckets(self, name, policies, fallback, face, blocks=blocks)

    def _more_patient(self, patience: float) -> RedisStore:
        """The same store over connections of its own, so that neither has the other wait or give up."""
        if patience not in self._patient:
            other = self._patient[patience] = copy(self)
            other.timeout, other._sessions, other._lives, other._patient = patience, {}, {}, {}
            _stores.add(other)
        return self._patient[patience]

    def _new_session(self) -> Node | Cluster:
        dial = self._place.dial
        if not self.is_cluster:
            return self._node(self._place.name, lambda: dial(None), "{probe}")

        def make_node(address: Address, slot: int) -> Node:
            def redirect(said: str, checks: Sequence[Check]) -> None:
                cluster.redirect(said, checks, address[0])

            return self._node(f"{address[0]}:{address[1]}", lambda: dial(address), _tag_in(slot), redirect)

        cluster = Cluster(self._place.name, self._place.seeds, dial, make_node, self._tell)
        return cluster

    def _node(self, name: str, dial: Any, tag: str, redirect: Redirect | None = None) -> Node:
        return Node(
            name,
            dial,
            self.clock,
            timeout=self.timeout,
            probe_key=f"{self._prefix}:{tag}:probe",
            now=self._now,
            heard=self._server_clock.set,
            tell=self._tell,
            redirect=redirect,
            met=self._look_at_memory,
        )

    def _now(self) -> str:
        """What the script is told of the time: nothing, except in tests."""
        return "" if self._manual is None else str(self._manual.now_us())

    def _look_at_memory(self, memory: str) -> None:
        found = dict(line.split(":", 1) for line in memory.splitlines() if ":" in line)
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and found.get("maxmemory", "0") != "0":
            self._notices.warn(
                "ARL110", f"{self._place.name} has maxmemory-policy {policy}: set it to noeviction, or give it room"
            )

    def _leave_behind(self) -> None:
        """After a fork, in the child: these connections are the parent's."""
        _inherited.append((self._sessions, self._lives))
        self._sessions, self._lives = {}, {}


def _tag_in(slot: int) -> str:
    """A hash tag of a slot."""
    return next(f"{{{n}}}" for n in itertools.count() if crc_hqx(b"%d" % n, 0) % SLOTS == slot)


def _after_fork() -> None:
    for store in _stores:
        store._leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_options(prefix: object, secret: object, timeout: object, outage: object, deny_cache: object) -> None:
    if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
        raise ValueError(f'prefix must be a string without braces such as "ratelimit", not {prefix!r}')
    if secret is not None and (not isinstance(secret, (str, bytes)) or not secret):
        kind = "an empty one" if secret in ("", b"") else f"a {type(secret).__name__}"
        raise ValueError(f"secret must be a string or bytes such as os.environ['SECRET'], not {kind}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be seconds above 0, e.g. timeout=0.1, not {timeout!r}")
    if outage not in OUTAGES:
        raise ValueError(f'outage must be "local", "open" or "closed", not {outage!r}')
    if isinstance(deny_cache, bool) or not isinstance(deny_cache, int) or deny_cache < 0:
        raise ValueError(f"deny_cache must be a whole number from 0, e.g. deny_cache=10_000, not {deny_cache!r}")
