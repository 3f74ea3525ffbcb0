"""InteractionLimit: an interaction is verified first, then limited per user; unsigned requests get no further."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from inspect import Parameter, Signature, isawaitable
from typing import TypeVar

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.escalation import Escalate
from asgi_ratelimit.inbound.client_ip import by_ip
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.holding import ClientGone
from asgi_ratelimit.inbound.keyed_limits import KeyedLimits, KeyedSpec, keyed_limits
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import ASGIApplication, KeyFunction
from asgi_ratelimit.inbound.path_patterns import app_path
from asgi_ratelimit.inbound.plain_default import NoPlainDefault
from asgi_ratelimit.inbound.request_end import release_at_end
from asgi_ratelimit.inbound.request_headers import headers_of
from asgi_ratelimit.inbound.request_state import STATE, RequestState, state_of
from asgi_ratelimit.interactions.body import BodyReader, parse
from asgi_ratelimit.interactions.failures import FailureLimit
from asgi_ratelimit.interactions.keys import Component, Interaction, InteractionKey, KeyName, key_function, own_keys
from asgi_ratelimit.interactions.messages import Messages, Text, Unavailable, check_text
from asgi_ratelimit.interactions.replays import ReplayCache
from asgi_ratelimit.interactions.responses import (
    AUTOCOMPLETE,
    EarlyResponse,
    closing,
    error,
    is_event,
    is_ping,
    pong,
    reply,
    respond,
)
from asgi_ratelimit.interactions.signature import SignatureHeaders, SignatureVerifier, Signed
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, LimitSpec, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.minute_line import MinuteLine
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["InteractionLimit"]

logger = logging.getLogger("asgi_ratelimit")

Result = TypeVar("Result")
_VERIFIED = "asgi_ratelimit.interaction"  # the key of a verified interaction in the scope
MOST_SECONDS = 0.75  # for all that is decided about one interaction; Discord waits 3 s for an answer
_LONGEST_DELAY = 0.5  # seconds of these for which it may be held for its slot of a LeakyBucket


class InteractionLimit(NoPlainDefault):
    """Guards a bot's interactions endpoint: `Depends(InteractionLimit(PUBLIC_KEY, "5/10s"))`, or `wrap(app)`.

    public_key: the application's, 64 hex characters
    limit: a string, a limit, or a list of them. Some may have a key of their own, `by` a function of the interaction
    key: "user"; "guild", in a direct message the user; "command", per user and command, component or modal; a function
    component: for "command": what ends the name in a `custom_id` (`page:37` is "page"), or a function of it
    autocomplete: the limit of autocompletes, which have a bucket of their own; `limit` by default
    store: its own, else that of an outer RateLimitMiddleware, else memory; its clock gives the time
    name: the name of its buckets, "interactions"
    text: the message to a limited user, with `{when}` for the countdown: a string, a dict of strings by locale ("de",
        "pt-BR", "default"), or a function of the interaction and the decision
    unavailable: the message during an outage that fails closed: a string, or a dict by locale
    tolerance: seconds by which Discord's timestamp may differ from the clock
    max_body: bytes
    failures: the limit of requests that cannot be verified, for each client and process, or None; they get a 429, not
        the 401. A verified interaction never fails for them. A middleware that counts does it instead.
    escalate: an Escalate: a user who goes on when refused is blocked, each time for longer; autocompletes never count
    client: the key function of such a client, by_ip; behind a proxy `ClientIP(trusted_proxies=[...])`

    In this order: the headers of a signature have to be there and well-formed, else 401, and the body is not read. A
    body over `max_body` is answered with 413, one that takes 2 s with 408; a bad signature, an old timestamp or a
    replay with 401; PING with PONG, never limited. Then the bucket is charged, so a forged request is charged to no
    key. A limited user gets a 200: an ephemeral message with a countdown, or no choices for an autocomplete. While the
    bucket of commands is used up there are no choices either. Webhook events, which have the same key and an `event`,
    are verified too and reach the endpoint unlimited; their PING gets a 204.

    All of it takes 0.75 s at most after the body has arrived: the key function, the store, and the delay of a
    LeakyBucket, which is a refusal if it is above 0.5 s. What takes longer is answered as an outage that fails closed.

    The endpoint can read the body again, and finds it parsed in `request.state.interaction`. The dependency returns it
    too. An outer RateLimitMiddleware counts Discord like any visitor unless it has `exempt=("/interactions",)` or
    `default=True`. There is one warning (ARL111), and its charge for each verified interaction is given back.
    Raises ValueError if an option is out of range.
    """

    def __init__(
        self,
        public_key: str,
        limit: KeyedSpec = "5/10s",
        *,
        key: KeyName | InteractionKey = "user",
        component: Component = ":",
        autocomplete: KeyedSpec | None = None,
        store: Store | None = None,
        name: str = "interactions",
        text: Text | None = None,
        unavailable: Unavailable | None = None,
        tolerance: float = 300.0,
        max_body: int = 1_048_576,
        failures: LimitSpec | None = "60/minute",
        client: KeyFunction = by_ip,
        escalate: Escalate | None = None,
    ) -> None:
        if not callable(client):
            raise ValueError(f"client must be a key function such as by_ip, not {client!r}")
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 1 <= tolerance < 1e6:
            raise ValueError(f"tolerance must be seconds from 1, e.g. tolerance=300, not {tolerance!r}")
        if isinstance(max_body, bool) or not isinstance(max_body, int) or max_body < 1:
            raise ValueError(f"max_body must be a whole number of bytes from 1, e.g. 1_048_576, not {max_body!r}")
        check_store(store)
        self._verifier = SignatureVerifier(public_key)
        self._key = key_function(key, component)
        self._messages = Messages(check_text("text", text), check_text("unavailable", unavailable))
        self._tolerance, self._bodies = tolerance, BodyReader(max_body)
        self._replays = ReplayCache(tolerance)
        self._warn_once = warn_once = WarnOnce()
        limits = keyed_limits(limit)
        self._commands = _guard(limits, warn_once, escalate)
        self._autocompletes = _guard(limits if autocomplete is None else keyed_limits(autocomplete), warn_once)
        self._failures = FailureLimit(None if failures is None else as_limits(failures), client, name, warn_once)
        self._stale = MinuteLine()
        self._diagnostics = self._commands.diagnostics
        self._name, self._own_store, self._spare_store = name, store, MemoryStore()
        self._limiters, self._is_in_use = self._open(self._spare_store if store is None else store), False
        self.__signature__ = Signature([Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)])
        self._diagnostics.check_call_site("its buckets are new each time and limit nothing; make it once, with the app")

    async def __call__(self, request: Request) -> Interaction:
        """The verified interaction. Otherwise an exception that leaves the dependency as a response."""
        try:
            interaction = await self.let_in(request)
        except EarlyResponse:
            handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
            handlers[EarlyResponse] = respond
            raise
        verified = request.scope[_VERIFIED]
        if verified.state.slots:
            release_at_end(request.scope, verified.state, self._diagnostics.warn)
        return interaction

    def replaces_default(self, scope: Scope) -> bool:
        """Whether a `RateLimitMiddleware(default=True)` leaves the endpoint to it, failures included."""
        return not self._failures.is_off

    def wrap(self, app: ASGIApplication) -> ASGIApp:
        """The app behind this guard, for Starlette and plain ASGI.

        `Route("/interactions", endpoint, methods=["POST"], middleware=[Middleware(interaction_limit.wrap)])`, or
        `Mount("/interactions", interaction_limit.wrap(app))`. Every request to the wrapped app needs a signature.
        """
        return _GuardedApp(self, app)

    async def let_in(self, request: Request) -> Interaction:
        """Verify an interaction once, then charge this limit once. Raises the response to one that may not pass."""
        verified = request.scope.get(_VERIFIED)
        if not isinstance(verified, _Verified) or verified.public_key != self._verifier.raw:
            verified = await self._verify(request)
            request.scope[_VERIFIED] = verified
            request.state.interaction = verified.interaction
        if self not in verified.charged_by and not is_event(verified.interaction):
            verified.charged_by.add(self)
            await self._within(verified, self._charge(verified, request))
        return verified.interaction

    # Verification

    async def _verify(self, request: Request) -> _Verified:
        limiters = self._limiters_for(request.scope)
        try:
            signed, interaction = await self._read(request, limiters.store.clock)
        except EarlyResponse as failure:
            raise await self._failures.count(failure, request, limiters.store) from None
        verified = _Verified(self._verifier.raw, interaction)
        is_new = self._replays.add(signed, limiters.store.clock.wall())
        if is_ping(interaction):
            raise await self._pong(verified, is_new, request, limiters)
        if is_new and limiters.replays is not None:
            is_new = (await self._within(verified, limiters.replays.check(signed.digest))).allowed
        if not is_new:
            replayed = error(401, "this interaction has been here before")
            raise await self._failures.count(replayed, request, limiters.store)
        if _is_counted(request.scope):
            await self._within(verified, self._uncount(request.scope))
        return verified

    async def _read(self, request: Request, clock: Clock) -> tuple[Signed, Interaction]:
        """The signed message. The headers are enough to refuse most others: then the body is not read."""
        headers = SignatureHeaders.of(headers_of(request.scope))
        if headers is None:
            raise error(401, "invalid request signature", closing(request.scope))
        self._bodies.check_announced(request)
        body = await self._bodies.read(request)
        signed = self._verifier.verify(headers, body)
        if signed is None:
            raise error(401, "invalid request signature")
        age = clock.wall() - signed.at
        if abs(age) > self._tolerance:
            self._stale.warn(
                clock,
                "%d stale interactions were refused; Discord signed the last %+.0f s ago: is this clock right?",
                age,
            )
            raise error(401, "stale request timestamp")
        request._body = body  # where Starlette stores a body that was read: the endpoint can read it again
        return signed, parse(body)

    async def _pong(self, verified: _Verified, is_new: bool, request: Request, limiters: _Limiters) -> EarlyResponse:
        """The answer to a PING. Discord may repeat one. A client that goes on repeating it is none of Discord's."""
        answer = pong(verified.interaction)
        if not is_new:
            answer = await self._failures.count_here(answer, request, limiters.store)
        if answer.response.status_code < 300 and _is_counted(request.scope):
            try:
                await verified.within(self._uncount(request.scope))
            except StoreUnavailable as outage:
                logger.debug("a refund is lost: %s", outage)
        return answer

    async def _uncount(self, scope: Scope) -> None:
        """Give back the charge of an outer middleware: all interactions come from Discord's own addresses."""
        path = app_path(scope, scope.get("app_root_path"))  # the path that the middleware compares
        self._diagnostics.warn(
            "ARL111",
            f"all of them come from Discord and share a bucket; add exempt=({path!r},) to the middleware",
        )
        await state_of(scope).refund_middleware()

    # The limit

    async def _charge(self, verified: _Verified, request: Request) -> None:
        interaction = verified.interaction
        limiters = self._limiters_for(request.scope)
        key = self._key(interaction)
        if isawaitable(key):
            key = await key
        guard, cache = self._commands, limiters.commands
        if interaction["type"] == AUTOCOMPLETE:
            await self._check_commands(key, interaction, limiters, request)
            guard, cache = self._autocompletes, limiters.autocompletes

        async def gone() -> None:  # the body has been read, so the next message is the disconnect
            while (await request.receive())["type"] != "http.disconnect":
                pass

        try:
            # A state of its own: the response to Discord carries no headers of these limits.
            resolved = own_keys(guard.sources, interaction)
            decision = await guard.check(request.scope, cache, verified.state, "", gone, request, key, resolved)
        except ClientGone:
            raise error(499, "the client has left") from None
        if decision is not None and not decision.allowed:
            raise await self._limited(interaction, decision, limiters, request.scope)

    async def _check_commands(
        self, key: object, interaction: Interaction, limiters: _Limiters, request: Request
    ) -> None:
        """No choices for a user whose commands are used up."""
        resolved = own_keys(self._commands.sources, interaction)
        decision = await self._commands.peek(request, limiters.commands, "", key, resolved)
        if decision is not None and not decision.allowed:
            raise await self._limited(interaction, decision, limiters, request.scope)

    async def _limited(
        self, interaction: Interaction, decision: Decision, limiters: _Limiters, scope: Scope
    ) -> EarlyResponse:
        await state_of(scope).undo()  # a refused interaction is charged by no limit of its route
        return reply(interaction, await self._messages.limited(interaction, decision, limiters.store.clock.wall()))

    async def _within(self, verified: _Verified, pending: Awaitable[Result]) -> Result:
        """The result, if there is one in time; else the user is put off."""
        try:
            return await verified.within(pending)
        except StoreUnavailable as outage:
            logger.debug("an interaction is put off: %s", outage)  # the store itself has logged the outage, once
            raise reply(verified.interaction, self._messages.unavailable(verified.interaction)) from outage

    def _limiters_for(self, scope: Scope) -> _Limiters:
        state = scope.get(STATE)
        store = self._own_store
        if store is None:
            store = state.store if isinstance(state, RequestState) and state.store is not None else self._spare_store
        if self._limiters.store is not store or not self._is_in_use:
            self._limiters, self._is_in_use = self._open(store), True
            self._limiters.commands.introduce(self._warn_once)
            self._diagnostics.check_workers(store)
        return self._limiters

    def _open(self, store: Store) -> _Limiters:
        return _Limiters(store, self._name, self._commands, self._autocompletes, self._tolerance)


def _guard(limit: KeyedLimits, warn_once: WarnOnce, escalate: Escalate | None = None) -> RequestGuard:
    return RequestGuard(limit, _no_key, 1, warn_once, longest_delay=_LONGEST_DELAY, escalate=escalate)


def _is_counted(scope: Scope) -> bool:
    """Whether a middleware has charged the request."""
    state = scope.get(STATE)
    return isinstance(state, RequestState) and state.middleware_count > 0


def _no_key(conn: HTTPConnection) -> None:
    """The key comes from the interaction, not from the connection."""


class _Verified:
    """A verified interaction on its way through one request, the limits that have charged it, and its time left."""

    __slots__ = ("_left", "charged_by", "interaction", "public_key", "state")

    def __init__(self, public_key: bytes, interaction: Interaction) -> None:
        self.public_key, self.interaction = public_key, interaction
        self.charged_by: set[InteractionLimit] = set()
        self.state = RequestState()  # of all interaction limits
        self._left = MOST_SECONDS

    async def within(self, pending: Awaitable[Result]) -> Result:
        """The result. Raises StoreUnavailable once everything that was awaited here has taken too long together."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = asyncio.timeout(self._left)
        try:
            async with deadline:
                return await pending
        except TimeoutError as late:
            if not deadline.expired():
                raise
            raise StoreUnavailable(f"an interaction was not decided within {MOST_SECONDS} s") from late
        finally:
            self._left -= loop.time() - started


class _Limiters:
    """The limiters in one store: of commands, of autocompletes, and of signatures that were seen before."""

    def __init__(
        self,
        store: Store,
        name: str,
        commands: RequestGuard,
        autocompletes: RequestGuard,
        tolerance: float,
    ) -> None:
        self.store = store
        self.commands = LimiterCache(store, name, commands.fixed, escalate=commands.escalate)
        self.autocompletes = LimiterCache(store, f"{name}:autocomplete", autocompletes.fixed)
        self.replays: Limiter | None = None
        if store.shared:  # this process has a record of its own; the shared one is for the other processes
            once = FixedWindow(f"1/{2 * math.ceil(tolerance) + 1}s", outage="open")
            self.replays = Limiter(once, store=store, name=f"{name}:replays")


class _GuardedApp:
    """An ASGI app that receives verified interactions only. An object: Starlette takes a function for an endpoint."""

    def __init__(self, limit: InteractionLimit, app: ASGIApplication) -> None:
        self._limit, self.app = limit, app
        self.replaces_default = limit.replaces_default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "interactions come as requests"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        was_read = _VERIFIED not in scope
        try:
            await self._limit.let_in(request)
        except EarlyResponse as early:
            await early.response(scope, receive, send)
            return
        try:
            await self.app(scope, _replay(await request.body(), receive) if was_read else receive, send)
        finally:
            await scope[_VERIFIED].state.release()


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
