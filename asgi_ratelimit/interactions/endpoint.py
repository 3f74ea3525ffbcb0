"""InteractionLimit: an interaction is verified first, then limited per user; unsigned requests get no further."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Iterable
from contextlib import aclosing
from inspect import Parameter, Signature, isawaitable
from typing import Any, Literal

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.inbound.guard import RequestGuard
from asgi_ratelimit.inbound.holding import ClientGone
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import ASGIApplication
from asgi_ratelimit.inbound.path_patterns import app_path
from asgi_ratelimit.inbound.plain_default import NoPlainDefault
from asgi_ratelimit.inbound.request_state import STATE, RequestState
from asgi_ratelimit.interactions.keys import KEYS, Interaction, InteractionKey
from asgi_ratelimit.interactions.messages import Messages, Text, Unavailable, check_text
from asgi_ratelimit.interactions.signature import ReplayCache, SignatureVerifier, Signed
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, Limit, LimitSpec, as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["InteractionLimit"]

logger = logging.getLogger("asgi_ratelimit")

_PING, _AUTOCOMPLETE = 1, 4  # types of interaction
_PONG, _MESSAGE, _CHOICES = 1, 4, 8  # types of answer
_EPHEMERAL = 64  # flag: shown to the user only
_VERIFIED = "asgi_ratelimit.interaction"  # the key of a verified interaction in the scope
# Discord waits 3 s for an answer; these two leave the endpoint more than one of them.
_STORE_TIMEOUT = 0.75  # seconds, whatever the store's own timeout is
_LONGEST_DELAY = 1.0  # seconds for which an interaction may be held for its slot of a LeakyBucket


class InteractionLimit(NoPlainDefault):
    """Guards a bot's interactions endpoint: `Depends(InteractionLimit(PUBLIC_KEY, "5/10s"))`, or `wrap(app)`.

    public_key: the application's, 64 hex characters
    limit: a string, a limit, or a list of them
    key: "user" (the default); "guild", in a direct message the user; "command", per user and command (or `custom_id` of
        a component or modal); or a function of the interaction, sync or async, that returns a string
    autocomplete: the limit of autocompletes, which have a bucket of their own; `limit` by default
    store: its own, else that of an outer RateLimitMiddleware, else memory; its clock gives the time
    name: the name of its buckets, "interactions"
    text: the message to a limited user, with `{when}` for the countdown: a string, a dict of strings by locale ("de",
        "pt-BR", "default"), or a function of the interaction and the decision
    unavailable: the message during an outage that fails closed: a string, or a dict by locale
    tolerance: seconds by which Discord's timestamp may differ from the clock
    max_body: bytes

    In this order: a body over `max_body` is answered with 413; a bad signature, an old timestamp or a replay with 401;
    PING with PONG, never limited. Then the bucket is charged, so a forged request is charged to no key. A limited user
    gets a 200: an ephemeral message with a countdown, or no choices for an autocomplete. While the bucket of commands
    is used up there are no choices either. A delay of more than 1 s that a LeakyBucket gives is a refusal.

    The endpoint can read the body again, and finds it parsed in `request.state.interaction`. The dependency returns it
    too. An outer RateLimitMiddleware counts Discord like any visitor unless it says `exempt=("/interactions",)`: then
    there is one warning (ARL111), and its charge for each verified interaction is given back.
    Raises ValueError if an option is out of range.
    """

    def __init__(
        self,
        public_key: str,
        limit: LimitSpec = "5/10s",
        *,
        key: Literal["user", "guild", "command"] | InteractionKey = "user",
        autocomplete: LimitSpec | None = None,
        store: Store | None = None,
        name: str = "interactions",
        text: Text | None = None,
        unavailable: Unavailable | None = None,
        tolerance: float = 300.0,
        max_body: int = 1_048_576,
    ) -> None:
        if not callable(key) and (not isinstance(key, str) or key not in KEYS):
            raise ValueError(f'key must be "user", "guild", "command" or a function of the interaction, not {key!r}')
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 1 <= tolerance < 1e6:
            raise ValueError(f"tolerance must be seconds from 1, e.g. tolerance=300, not {tolerance!r}")
        if isinstance(max_body, bool) or not isinstance(max_body, int) or max_body < 1:
            raise ValueError(f"max_body must be a whole number of bytes from 1, e.g. 1_048_576, not {max_body!r}")
        check_store(store)
        self._verifier = SignatureVerifier(public_key)
        self._key: InteractionKey = KEYS[key] if isinstance(key, str) else key
        self._messages = Messages(check_text("text", text), check_text("unavailable", unavailable))
        self._tolerance, self._max_body = tolerance, max_body
        self._replays = ReplayCache(tolerance)
        warn_once = WarnOnce()
        limits = as_limits(limit)
        self._commands = _guard(limits, warn_once)
        self._autocompletes = _guard(limits if autocomplete is None else as_limits(autocomplete), warn_once)
        self._diagnostics = self._commands.diagnostics
        self._name, self._own_store, self._spare_store = name, store, MemoryStore()
        self._limiters, self._is_in_use = self._open(self._spare_store if store is None else store), False
        self.__signature__ = Signature([Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)])
        self._diagnostics.check_call_site("its buckets are new each time and limit nothing; make it once, with the app")

    async def __call__(self, request: Request) -> Interaction:
        """The verified interaction. Otherwise an exception that leaves the dependency as a response."""
        try:
            return await self.let_in(request)
        except _EarlyResponse:
            handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
            handlers[_EarlyResponse] = _respond
            raise

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
            verified = _Verified(self._verifier.raw, await self._verify(request))
            request.scope[_VERIFIED] = verified
            request.state.interaction = verified.interaction
        if self not in verified.charged_by:
            verified.charged_by.add(self)
            await self._charge(verified.interaction, request)
        return verified.interaction

    # Verification

    async def _verify(self, request: Request) -> Interaction:
        body = await self._read_body(request)
        signed = self._verifier.verify(request.scope["headers"], body)
        if signed is None:
            raise _error(401, "invalid request signature")
        limiters = self._limiters_for(request.scope)
        age = limiters.store.clock.wall() - signed.at
        if abs(age) > self._tolerance:
            logger.warning("an interaction that Discord signed %+.0f s ago was refused: is this clock right?", age)
            raise _error(401, "stale request timestamp")
        interaction = _parse(body)
        is_ping = interaction["type"] == _PING  # Discord may repeat it, and a second PONG does no harm
        if not is_ping and not await self._is_new(signed, interaction, limiters):
            raise _error(401, "this interaction has been here before")
        await self._uncount(request.scope)
        if is_ping:
            raise _EarlyResponse({"type": _PONG})
        return interaction

    async def _uncount(self, scope: Scope) -> None:
        """Give back the charge of an outer middleware: all interactions come from Discord's own addresses."""
        state = scope.get(STATE)
        if isinstance(state, RequestState) and state.middleware_count:
            path = app_path(scope, scope.get("app_root_path"))  # the path that the middleware compares
            self._diagnostics.warn(
                "ARL111",
                f"all of them come from Discord and share a bucket; add exempt=({path!r},) to the middleware",
            )
            await state.refund_middleware()

    async def _read_body(self, request: Request) -> bytes:
        if _content_length(request.scope["headers"]) > self._max_body:
            raise _error(413, "the body is too large")
        body = bytearray()
        try:
            async with aclosing(request.stream()) as stream:
                async for chunk in stream:
                    body += chunk
                    if len(body) > self._max_body:
                        raise _error(413, "the body is too large")
        except ClientDisconnect:
            raise _error(400, "the body is incomplete") from None
        request._body = bytes(body)  # where Starlette stores a body that was read: the endpoint can read it again
        return bytes(body)

    async def _is_new(self, signed: Signed, interaction: Interaction, limiters: _Limiters) -> bool:
        if not self._replays.add(signed, limiters.store.clock.wall()):
            return False
        if limiters.replays is None:
            return True
        return (await self._in_time(limiters.replays.try_acquire(signed.digest), interaction)).allowed

    # The limit

    async def _charge(self, interaction: Interaction, request: Request) -> None:
        limiters = self._limiters_for(request.scope)
        key = self._key(interaction)
        if isawaitable(key):
            key = await key
        guard, cache = self._commands, limiters.commands
        if interaction["type"] == _AUTOCOMPLETE:
            await self._check_commands(self._commands.as_key(key), interaction, limiters)
            guard, cache = self._autocompletes, limiters.autocompletes

        async def gone() -> None:  # the body has been read, so the next message is the disconnect
            while (await request.receive())["type"] != "http.disconnect":
                pass

        try:
            # A state of its own: the response to Discord carries no headers of this limit.
            decision = await guard.check(request.scope, cache, RequestState(), conn=request, key=key, gone=gone)
        except StoreUnavailable as error:
            raise self._put_off(interaction, error) from error
        except ClientGone:
            raise _error(499, "the client has left") from None
        if decision is not None and not decision.allowed:
            raise await self._limited(interaction, decision, limiters)

    async def _check_commands(self, key: str, interaction: Interaction, limiters: _Limiters) -> None:
        """No choices for a user whose commands are used up."""
        limiter = limiters.commands.fixed
        if limiter is not None:
            decision = await self._in_time(limiter.peek(key), interaction)
            if not decision.allowed:
                raise await self._limited(interaction, decision, limiters)

    async def _in_time(self, pending: Awaitable[Decision], interaction: Interaction) -> Decision:
        try:
            return await self._commands.in_time(pending)
        except StoreUnavailable as error:
            raise self._put_off(interaction, error) from error

    async def _limited(self, interaction: Interaction, decision: Decision, limiters: _Limiters) -> _EarlyResponse:
        return _reply(interaction, await self._messages.limited(interaction, decision, limiters.store.clock.wall()))

    def _put_off(self, interaction: Interaction, error: StoreUnavailable) -> _EarlyResponse:
        logger.debug("an interaction is put off: %s", error)  # the store itself has logged the outage, once
        return _reply(interaction, self._messages.unavailable(interaction))

    def _limiters_for(self, scope: Scope) -> _Limiters:
        state = scope.get(STATE)
        store = self._own_store
        if store is None:
            store = state.store if isinstance(state, RequestState) and state.store is not None else self._spare_store
        if self._limiters.store is not store or not self._is_in_use:
            self._limiters, self._is_in_use = self._open(store), True
            self._diagnostics.check_workers(store)
        return self._limiters

    def _open(self, store: Store) -> _Limiters:
        return _Limiters(store, self._name, self._commands, self._autocompletes, self._tolerance)


def _guard(limit: tuple[Limit, ...], warn_once: WarnOnce) -> RequestGuard:
    return RequestGuard(limit, _no_key, 1, warn_once, store_timeout=_STORE_TIMEOUT, longest_delay=_LONGEST_DELAY)


def _no_key(conn: HTTPConnection) -> None:
    """The key comes from the interaction, not from the connection."""


class _Verified:
    """A verified interaction on its way through one request, and the limits that have charged it."""

    __slots__ = ("charged_by", "interaction", "public_key")

    def __init__(self, public_key: bytes, interaction: Interaction) -> None:
        self.public_key, self.interaction = public_key, interaction
        self.charged_by: set[InteractionLimit] = set()


class _Limiters:
    """The limiters in one store: of commands, of autocompletes, and of signatures that were seen before."""

    def __init__(
        self, store: Store, name: str, commands: RequestGuard, autocompletes: RequestGuard, tolerance: float
    ) -> None:
        self.store = store
        self.commands = LimiterCache(store, name, commands.fixed)
        self.autocompletes = LimiterCache(store, f"{name}:autocomplete", autocompletes.fixed)
        self.replays: Limiter | None = None
        if store.shared:  # this process has a record of its own; the shared one is for the other processes
            once = FixedWindow(f"1/{2 * math.ceil(tolerance) + 1}s", outage="open")
            self.replays = Limiter(once, store=store, name=f"{name}:replays")


# Requests and responses


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The body's length if the request announces it. A header that cannot be parsed counts as 0."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    return max((int(value[:19]) for value in lengths if value.isdigit()), default=0)


def _parse(body: bytes) -> Interaction:
    try:
        interaction = json.loads(body)
    except (ValueError, RecursionError):
        interaction = None
    if not isinstance(interaction, dict) or type(interaction.get("type")) is not int:
        raise _error(400, "the body is no interaction")
    return interaction


class _EarlyResponse(Exception):
    """A response in place of the endpoint's. Not an HTTPException, so that no handler for these changes it."""

    def __init__(self, content: dict[str, Any], status: int = 200) -> None:
        super().__init__(status)
        self.response = Response(json.dumps(content).encode("ascii"), status, media_type="application/json")


def _error(status: int, message: str) -> _EarlyResponse:
    return _EarlyResponse({"message": message}, status)


def _reply(interaction: Interaction, content: str) -> _EarlyResponse:
    """A reply in place of the endpoint's own. Discord wants a 200."""
    if interaction["type"] == _AUTOCOMPLETE:
        return _EarlyResponse({"type": _CHOICES, "data": {"choices": []}})
    return _EarlyResponse({"type": _MESSAGE, "data": {"content": content, "flags": _EPHEMERAL}})


async def _respond(_: object, early: Exception) -> Response:
    assert isinstance(early, _EarlyResponse)
    return early.response


class _GuardedApp:
    """An ASGI app that receives verified interactions only. An object: Starlette takes a function for an endpoint."""

    def __init__(self, limit: InteractionLimit, app: ASGIApplication) -> None:
        self._limit, self.app = limit, app

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
        except _EarlyResponse as early:
            await early.response(scope, receive, send)
            return
        await self.app(scope, _replay(await request.body(), receive) if was_read else receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
