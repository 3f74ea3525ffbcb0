"""RedisStore: the same buckets for every process that uses the same server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self
from weakref import WeakSet

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Policy
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.events import Observer, Observers
from asgi_ratelimit.limits import OUTAGES, Outage
from asgi_ratelimit.log_observer import with_log
from asgi_ratelimit.redis.address import Where, locate
from asgi_ratelimit.redis.breaker import EventHook
from asgi_ratelimit.redis.buckets import RedisBuckets
from asgi_ratelimit.redis.clearing import delete_records
from asgi_ratelimit.redis.cluster import Cluster
from asgi_ratelimit.redis.connections import Connections, SessionFactory
from asgi_ratelimit.redis.cross_slot import CrossSlotBuckets
from asgi_ratelimit.redis.deny_cache import DenyCache
from asgi_ratelimit.redis.doubts import Doubts
from asgi_ratelimit.redis.fallback import Fallback, LastKnown, OutageStore, ServerClock
from asgi_ratelimit.redis.names import Namer
from asgi_ratelimit.redis.node import Node
from asgi_ratelimit.redis.renewals import Renewals
from asgi_ratelimit.redis.scripts import RedisScripts
from asgi_ratelimit.store import Buckets

__all__ = ["RedisStore"]

_SCOPES = ("user", "shared", "global")  # the most specific first


class Work(Protocol):
    """It uses a store in the background."""

    async def aclose(self) -> None:
        """Come to an end on this event loop."""
        ...


class RedisStore:
    """Buckets in Redis or Valkey: one server, a master watched by Sentinel, or a cluster.

    Raises ValueError if an option cannot be used.

    where: a URL, or a redis.asyncio client; its settings are used, but not its connections
    prefix: the beginning of every record's name in Redis
    secret: the key of the digests that stand for users' keys in those names
    timeout: seconds after which a check is answered without the server
    outage: the answer without the server, unless a limit has an `outage` of its own. "local": a warm store in this
        process's memory decides. "open" (fail open): every call is allowed. "closed" (fail closed): StoreUnavailable
        is raised.
    deny_cache: the number of refusals that are cached, each for a second at most; 0 for none
    clock: a clock for tests, used instead of the server's
    on_event: called with a StoreEvent when a server goes down, when it is back, when checks were decided without it,
        when a record is not believed, and when an outage has brought more users than this process counts one by one
    observers: told of these events, and of every decision of the limiters and doors that use this store
    """

    shared: bool = True

    def __init__(
        self,
        where: Where,
        *,
        prefix: str = "ratelimit",
        secret: str | bytes | None = None,
        timeout: float = 0.1,
        outage: Outage = "local",
        deny_cache: int = 10_000,
        clock: Clock | None = None,
        on_event: EventHook | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        _check_options(prefix, secret, timeout, outage, deny_cache)
        _check_parts(clock, on_event)
        self._location = locate(where)
        self.is_cluster = self._location.kind == "cluster"
        self.clock: Clock = clock or SystemClock()
        secret_key = secret.encode() if isinstance(secret, str) else secret or b""
        self.observers = Observers(with_log(observers), self.clock, secret_key)
        self.observers.introduce(self._location.name)
        on_event = self.observers.with_hook(on_event)
        self.namer = Namer(prefix, secret_key)
        self.deny = DenyCache(deny_cache)
        self.doubts = Doubts(self._location.name, on_event)
        self.last_states = LastKnown()
        self.renewals = Renewals(self.clock)
        self.timeout = timeout
        self.outage: Outage = outage
        self._prefix = prefix
        server_clock = ServerClock()
        self.server_clock: Clock = clock or server_clock
        self._local = OutageStore(self._location.name, self.server_clock, on_event)
        self._factory = SessionFactory(self._location, prefix, clock, _after_reply(server_clock, self.last_states))
        self._connections = Connections(self._factory, timeout, on_event)
        self._on_event = on_event
        self._patient: dict[float, Connections] = {}
        self.session: Callable[[], Node | Cluster] = self._connections.session
        self._background: WeakSet[Work] = WeakSet()

    def __repr__(self) -> str:
        return f"RedisStore({self._location.name!r}, prefix={self._prefix!r})"

    def open(self, name: str, policies: Sequence[Policy]) -> Buckets:
        if not self.is_cluster:
            return self._buckets(name, policies, policies[0])
        own, *others = [[policy for policy in policies if policy.limit.scope == scope] for scope in _SCOPES]
        reported_policy = next((policy for policy in policies if policy.limit.scope != "global"), policies[0])
        if len(own) == len(policies) == 1:
            return self._buckets(name, own, reported_policy)
        first = next((policy for policy in policies if policy.limit.holds), None)  # the slot that counts for a call

        def make(group: Sequence[Policy], blocks: bool = True) -> RedisBuckets:
            counts = any(policy is first for policy in group)
            return self._buckets(name, group, reported_policy, blocks=blocks, counts=counts)

        positions = [i for i, policy in enumerate(policies) if policy.limit.scope == "user"]
        rest = [make(group, blocks=False) for group in others if group]
        return CrossSlotBuckets(policies, own, rest, positions, make)

    def scripts(self, source: bytes, *, patience: float) -> RedisScripts:
        """A script on the same servers. Calls that may take longer than `timeout` have connections of their own."""
        connections = self._connections
        if self.timeout < patience:
            connections = self._patient.setdefault(patience, Connections(self._factory, patience, self._on_event))
        return RedisScripts(connections, self.namer, source, self.server_clock, self.outage)

    def close_first(self, work: Work) -> None:
        """Let this come to its end before the connections of its event loop are closed."""
        self._background.add(work)

    async def clear(self) -> None:
        """Delete every record that begins with `prefix`, on every server, and all that this process remembers of them.

        It is a tool for tests: it walks through all names in Redis. Other processes may remember a refusal for another
        second. Raises StoreUnavailable if a server does not answer.
        """
        try:
            await delete_records(self._location, self._prefix)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(
                f"{self._location.name} cannot be cleared: {error or type(error).__name__}"
            ) from error
        finally:
            self.deny.refusals.clear()
            self.last_states.clear()
            self._local.clear()

    async def start(self) -> None:
        """Connect. Raises StoreUnavailable if the server refuses us or settings are unusable, not if it is down."""
        name = self._location.name
        try:
            await self.session().connect()
        except NoPermissionError as error:
            raise StoreUnavailable(
                f"{name} does not let us work: {str(error).rstrip('.')}. The user needs the rights "
                f'"+eval +evalsha +get +set +del +time ~{self._prefix}:*".'
            ) from error
        except AuthenticationError as error:
            raise StoreUnavailable(
                f"{name} does not let us in: {str(error).rstrip('.')}. Check the user and the password of the URL, as "
                'in "redis://user:password@host:6379"; those for sentinels are "?sentinel_password=…".'
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            self.session().suspend(error)
        except Exception as error:  # of a credential provider, for example
            raise StoreUnavailable(f"{name} cannot be connected to: {error or type(error).__name__}") from error

    async def aclose(self) -> None:
        """Close the connections of this event loop. The store may be used again. It connects again then."""
        for work in [*self._background]:
            await work.aclose()
        self.renewals.stop()
        for connections in (self._connections, *self._patient.values()):
            await connections.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _buckets(
        self,
        name: str,
        policies: Sequence[Policy],
        reported_policy: Policy,
        *,
        blocks: bool = True,
        counts: bool = True,
    ) -> RedisBuckets:
        fallback = Fallback(self._local, self.last_states, name, policies, reported_policy, self.outage, self.renewals)
        slots = self.observers.slots if counts else None
        return RedisBuckets(self, name, policies, fallback, reported_policy, blocks=blocks, counts=slots)


def _after_reply(clock: ServerClock, last_states: LastKnown) -> Callable[[int], None]:
    """What follows each reply. No open connection keeps the store alive."""

    def note(now_us: int) -> None:
        clock.set(now_us)
        last_states.trim()

    return note


def _check_options(prefix: object, secret: object, timeout: object, outage: object, deny_cache: object) -> None:
    if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
        raise ValueError(f'prefix must be a string without braces, e.g. "ratelimit", not {prefix!r}')
    if secret is not None and (not isinstance(secret, (str, bytes)) or not secret):
        kind = "an empty one" if secret in ("", b"") else f"a {type(secret).__name__}"
        raise ValueError(f"secret must be a string or bytes, e.g. os.environ['SECRET'], not {kind}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be seconds above 0, e.g. timeout=0.1, not {timeout!r}")
    if outage not in OUTAGES:
        raise ValueError(f'outage must be "local", "open" or "closed", not {outage!r}')
    if isinstance(deny_cache, bool) or not isinstance(deny_cache, int) or deny_cache < 0:
        raise ValueError(f"deny_cache must be a whole number from 0, e.g. deny_cache=10_000, not {deny_cache!r}")


def _check_parts(clock: object, on_event: object) -> None:
    if clock is not None and not callable(getattr(clock, "now_us", None)):
        raise ValueError(f"clock must be a Clock such as ManualClock(), or None for the server's, not {clock!r}")
    if on_event is not None and not callable(on_event):
        raise ValueError(f"on_event must be a function that takes a StoreEvent, not {on_event!r}")
