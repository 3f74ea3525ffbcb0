"""The httpx transport that sends requests to Discord when their limits allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import httpx

from asgi_ratelimit.discord.errors import EventHook
from asgi_ratelimit.discord.event_log import EventLog, safe_hook
from asgi_ratelimit.discord.invalid_requests import InvalidRequests
from asgi_ratelimit.discord.lone_clients import LONE_CLIENTS
from asgi_ratelimit.discord.observing import CallObserver
from asgi_ratelimit.discord.order import Order
from asgi_ratelimit.discord.origins import Origin, Origins, origin_of
from asgi_ratelimit.discord.outgoing import DiscordResponse, OutgoingRequest, RedactedRequest
from asgi_ratelimit.discord.per_loop import PerLoop
from asgi_ratelimit.discord.pools import CONNECTIONS, RESERVE, bound_to_loop, pooled
from asgi_ratelimit.discord.redaction import install_log_filters
from asgi_ratelimit.discord.routes import prefix_of
from asgi_ratelimit.discord.scheduler import CLOSED, Call, CallLimits, Waiting
from asgi_ratelimit.discord.sender import RetryPolicy, Sender
from asgi_ratelimit.discord.tokens import OPINION_S, TokenRegistry
from asgi_ratelimit.discord.turns import Turns
from asgi_ratelimit.events import observers_of
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store

__all__ = ["DiscordTransport"]

_OF_ONE_CALL = (b"content-type", b"content-length", b"transfer-encoding", b"expect", b"x-audit-log-reason")
_DOUBLES = (httpx.ASGITransport, httpx.MockTransport)  # in tests, each with a server of its own


class DiscordTransport(httpx.AsyncBaseTransport):
    """Sends requests to Discord when their limits allow, through an inner transport. All others go out as they are.

    inner: the transport that sends; httpx's own by default
    store: where buckets are stored: a RedisStore for several processes; a MemoryStore by default
    global_limit: requests of one token in any second
    max_wait: seconds that a request may wait for limits; None: any time
    max_retries: how often a request is sent again, with back-off, after a 5xx, 408, 425 or a lost connection; 429s are
        waited out besides, unless it is 0
    min_remaining: so many of each bucket are left to others that use the token; one call may always go
    retry_unsafe: True: a POST or PATCH that may have arrived is sent again, also where no nonce makes that safe
    application_id: separates an interaction's follow-ups from ordinary webhooks
    ordered: POSTs to one channel or webhook arrive in the order in which they were made; so each waits for the response
        to the one before it
    egress: the name of the address that requests come from: all processes with one name share its budget of
        invalid requests
    origins: addresses that are Discord besides its own, e.g. of a proxy: ["http://127.0.0.1:8080"]
    max_in_flight: calls of one token without a response at a time, each over a connection of its own; of each event
        loop, if several use the transport
    on_event: called with each DiscordEvent

    A request's own `extensions`:

    deadline: seconds from now, after which the request is of no use
    priority: a whole number; higher ones go first
    reason: for the audit log
    retries: in place of `max_retries`
    ordered: in place of the option

    Raises ValueError for an option that cannot be used.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        store: Store | None = None,
        global_limit: int = 50,
        max_wait: float | None = None,
        max_retries: int = 5,
        min_remaining: int = 0,
        retry_unsafe: bool = False,
        application_id: str | int | None = None,
        ordered: bool = False,
        egress: str = "default",
        origins: Iterable[str | httpx.URL] = (),
        max_in_flight: int = 100,
        on_event: EventHook | None = None,
    ) -> None:
        if inner is not None and not isinstance(inner, httpx.AsyncBaseTransport):
            raise ValueError(f"inner must be an httpx transport, e.g. httpx.AsyncHTTPTransport(), not {inner!r}")
        policy = RetryPolicy(max_wait, max_retries, retry_unsafe)
        self._patience_s = policy.patience_s
        self._application_id = _checked_id(application_id)
        self._store = _checked_store(store)
        observer = CallObserver(observers_of(self._store))
        emit = EventLog(observer.hook(safe_hook(on_event)), self._store.clock)
        limits = CallLimits(global_limit, max_in_flight, min_remaining)
        make = partial(_Engine.of, self._store, limits, policy, egress, emit, observer)
        make()  # raises for an option that cannot be used
        self._engines = PerLoop(make, _Engine.aclose)
        self._inner = pooled(most=max(CONNECTIONS, max_in_flight) + RESERVE) if inner is None else bound_to_loop(inner)
        self._origins = Origins(origins)
        self._authorization: str | None = None
        self._homes: frozenset[Origin] = frozenset()  # where that token belongs
        if not isinstance(ordered, bool):
            raise ValueError(f"ordered must be True or False, not {ordered!r}")
        self._is_ordered, self._turns = ordered, Turns(is_ordered=ordered)
        self._is_closed = False
        self._is_watched = store is None and not isinstance(inner, _DOUBLES)
        install_log_filters()

    @property
    def store(self) -> Store:
        """Where buckets are stored."""
        return self._store

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait now, by route and resource, with the state of their buckets."""
        return [waiting for engine in self._engines.all() for waiting in engine.waiting]

    def use_token(self, authorization: str | None, origin: httpx.URL) -> None:
        """Add this header to requests to this origin: to all of Discord's addresses, if it is one of them.

        None: it is Discord's address, but its requests bear no token, e.g. those to a webhook.
        """
        self._authorization, self._homes = authorization, self._origins.include(origin)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises DiscordError for a request that is not sent, and httpx's own errors for one that fails for good."""
        return await self.send_through(self._inner, request)

    async def send_through(self, inner: httpx.AsyncBaseTransport, request: httpx.Request) -> httpx.Response:
        """The same over another inner transport, e.g. one that is mounted for some addresses."""
        origin, clock, came_us = origin_of(request.url), self._store.clock, self._store.clock.now_us()
        is_discord = self._origins.hold(origin)
        if is_discord:
            await self._turns.take(request.url, request.extensions)
        if self._is_closed:
            raise RuntimeError(CLOSED)
        if not is_discord:
            return DiscordResponse.of(await inner.handle_async_request(request))
        engine = self._engines.current()
        outgoing = OutgoingRequest(request, await request.aread(), self._application_id, clock.wall())
        authorization = self._authorization_of(outgoing, origin)
        if self._is_watched and authorization is not None:
            self._is_watched = False
            LONE_CLIENTS.note(authorization, origin)
        token = engine.tokens.of(authorization)
        deadline_s = outgoing.deadline_s
        deadline_us = None if deadline_s is None else came_us + round(deadline_s * 1e6)
        call = Call(outgoing.route, outgoing.priority, outgoing.is_safe, deadline_us, retries=outgoing.retries)
        sending = partial(
            engine.sender.send,
            call,
            token,
            partial(outgoing.transmit, inner),
            None if authorization is None else lambda: self._ask_again(inner, request, authorization),
        )
        is_ordered = self._is_ordered if outgoing.is_ordered is None else outgoing.is_ordered
        if not (is_ordered and request.method == "POST" and call.route.major):
            return await sending()
        async with engine.order.turn(authorization, call.route, self._shortest(deadline_s)):
            return await sending()

    def _shortest(self, deadline_s: float | None) -> float | None:
        """Seconds that a call may stand in line: until its deadline, and for `max_wait` and a response at most."""
        seconds = [each for each in (deadline_s, self._patience_s) if each is not None]
        return min(seconds, default=None)

    async def would_wait(self, request: httpx.Request) -> float:
        """The seconds that this request would have to wait, as far as is known now. Nothing is sent.

        Raises DiscordError if it would not be sent at all.
        """
        if self._is_closed:
            raise RuntimeError(CLOSED)
        origin = origin_of(request.url)
        if not self._origins.hold(origin):
            return 0.0
        engine = self._engines.current()
        outgoing = OutgoingRequest(request, await request.aread(), self._application_id, self._store.clock.wall())
        token = engine.tokens.of(self._authorization_of(outgoing, origin))
        return await engine.sender.would_wait(outgoing.route, token)

    def _authorization_of(self, outgoing: OutgoingRequest, origin: Origin) -> str | None:
        """The header that a call is counted by. The bot's own is sent only where it belongs."""
        given = outgoing.headers.get("Authorization")
        own = self._authorization if origin in self._homes else None
        if given is None and own is not None and outgoing.route.bears_token:
            outgoing.headers["Authorization"] = own
        return own if given is None else given

    async def _ask_again(self, inner: httpx.AsyncBaseTransport, cause: httpx.Request, authorization: str) -> int:
        """The status of a call that every living token may make, with the headers of the call that was refused."""
        path = "/oauth2/@me" if authorization[:7].lower() == "bearer " else "/users/@me"
        prefix = prefix_of(cause.url.raw_path.decode("ascii"))
        headers = httpx.Headers([each for each in cause.headers.raw if each[0].lower() not in _OF_ONE_CALL])
        headers["Authorization"] = authorization
        url = cause.url.copy_with(raw_path=f"{prefix}{path}".encode())
        request = RedactedRequest("GET", url, headers=headers)
        outgoing = OutgoingRequest(request, b"", self._application_id, self._store.clock.wall())
        due_us = self._store.clock.now_us() + round(OPINION_S * 1e6)
        call = Call(outgoing.route, outgoing.priority, outgoing.is_safe, due_us)
        engine = self._engines.current()
        token = engine.tokens.of(authorization)
        response = await engine.sender.send(call, token, partial(outgoing.transmit, inner))
        await response.aclose()
        return response.status_code

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._stop()
        await self._inner.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        await self._stop()
        await self._inner.aclose()

    async def _stop(self) -> None:
        self._is_closed = True
        await self._engines.aclose()


@dataclass(frozen=True, slots=True)
class _Engine:
    """What paces the calls of one event loop. The permits, which all event loops share, are the store's."""

    tokens: TokenRegistry
    sender: Sender
    order: Order

    @property
    def waiting(self) -> list[Waiting]:
        return [*self.tokens.waiting, *self.sender.waiting, *self.order.waiting]

    @classmethod
    def of(
        cls,
        store: Store,
        limits: CallLimits,
        policy: RetryPolicy,
        egress: str,
        emit: EventHook,
        observer: CallObserver,
    ) -> Self:
        tokens = TokenRegistry(store, limits, egress, emit)
        sender = Sender(tokens, InvalidRequests(store, egress, emit), store.clock, policy, emit, observer)
        return cls(tokens, sender, Order())

    async def aclose(self) -> None:
        await self.sender.aclose()


def _checked_store(store: Store | None) -> Store:
    if store is None:
        return MemoryStore()
    if isinstance(store, type) or not (hasattr(store, "open") and hasattr(store, "clock")):
        raise ValueError(f"store must be a store such as MemoryStore(), not {store!r:.80}")
    return store


def _checked_id(application_id: object) -> str | None:
    if application_id is None:
        return None
    text = str(application_id)
    if isinstance(application_id, bool) or not isinstance(application_id, (str, int)) or not _is_number(text):
        raise ValueError(f'application_id must be a snowflake such as "1234567890", not {application_id!r}')
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
