"""The interactions endpoint: what Discord signed is let in, paced per user; nothing else gets past the signature."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterable
from contextlib import aclosing
from inspect import Parameter, Signature, isawaitable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit.call_site import inside_a_request, several_workers
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.inbound.guard import ANONYMOUS
from asgi_ratelimit.inbound.request_state import LEDGER, Ledger
from asgi_ratelimit.interactions.keys import ASKERS, Interaction, KeyFunction
from asgi_ratelimit.interactions.messages import Text, Unavailable, Wording, checked_text
from asgi_ratelimit.interactions.signature import SeenBefore, Signatures, Signed
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, Limit
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["InteractionLimit"]

logger = logging.getLogger("asgi_ratelimit")

Limits = str | Limit | Iterable[str | Limit]

_PING, _AUTOCOMPLETE = 1, 4  # types of interaction
_PONG, _MESSAGE, _CHOICES = 1, 4, 8  # types of answer
_EPHEMERAL = 64  # flag: shown to nobody but the user
_PASSED = "asgi_ratelimit.interaction"  # where a verified interaction stands in the scope
# Discord waits 3 s for an answer; these two leave the endpoint more than one of them.
_PATIENCE = 0.75  # seconds for which the store is waited for, whatever its own timeout is
_LONGEST_HOLD = 1.0  # seconds for which an interaction may be held for its slot of a LeakyBucket


class InteractionLimit:
    """Guards a bot's interactions endpoint: `Depends(InteractionLimit(PUBLIC_KEY, "5/10s"))`, or `wrap(app)`.

    In this order: a body over `max_body` bytes is answered with 413; a bad signature, a timestamp more than
    `tolerance` seconds from the clock, or an interaction that was here before with 401; PING with PONG, never
    limited. Then the bucket is charged, so what Discord did not sign costs nobody anything. Who has used up `limit`
    gets a 200: an ephemeral message with a countdown, or no choices where an autocomplete was asked for.

    `key`: "user" (the default), "guild" (in a direct message: the user), "command" (per user and command, or
    `custom_id` of a component or modal), or a function of the interaction, sync or async, that returns a string.
    Autocompletes have a bucket of their own, `limit` unless `autocomplete` is given, since each keystroke may be one;
    while the commands' bucket is used up there are no choices either. `text`: what a limited user reads, `{when}`
    being the countdown: a string, a dict of them by locale ("de", "pt-BR", "default"), or a function of the
    interaction and the decision. `unavailable`: the same for when the store cannot answer within 0.75 s, without
    the function. `store` is its own, else an outer RateLimitMiddleware's, else memory; its clock tells the time.
    A wait of more than 1 s that a LeakyBucket asks for is a refusal: Discord gives up after 3 s.

    The endpoint can read the body again, as JSON or otherwise, and finds it parsed in `request.state.interaction`;
    the dependency returns it too. An outer RateLimitMiddleware leaves POSTs to this path alone from the first
    interaction that was verified, and gives back what that one was charged. ValueError for what makes no sense.
    """

    def __init__(
        self,
        public_key: str,
        limit: Limits = "5/10s",
        *,
        key: str | KeyFunction = "user",
        autocomplete: Limits | None = None,
        store: Store | None = None,
        name: str = "interactions",
        text: Text | None = None,
        unavailable: Unavailable | None = None,
        tolerance: float = 300.0,
        max_body: int = 1_048_576,
    ) -> None:
        if not callable(key) and (not isinstance(key, str) or key not in ASKERS):
            raise ValueError(f'key must be "user", "guild", "command" or a function of the interaction, not {key!r}')
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 1 <= tolerance < 1e6:
            raise ValueError(f"tolerance must be seconds from 1, e.g. tolerance=300, not {tolerance!r}")
        if isinstance(max_body, bool) or not isinstance(max_body, int) or max_body < 1:
            raise ValueError(f"max_body must be a whole number of bytes from 1, e.g. 1_048_576, not {max_body!r}")
        self._signatures = Signatures(public_key)
        self._key: KeyFunction = ASKERS[key] if isinstance(key, str) else key
        self._name, self._limit = name, _reusable(limit)
        self._autocomplete = self._limit if autocomplete is None else _reusable(autocomplete)
        self._wording = Wording(checked_text("text", text), checked_text("unavailable", unavailable))
        self._tolerance, self._max_body = tolerance, max_body
        self._seen = SeenBefore(tolerance)
        self._notices = WarnOnce()
        self._own_store, self._spare_store = store, MemoryStore()
        self._buckets, self._in_use = self._opened(self._spare_store if store is None else store), False
        self.__signature__ = Signature([Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)])
        if inside_a_request():
            self._notices.warn("ARL106", "its buckets are new each time and limit nothing; make it once, with the app")

    async def __call__(self, request: Request) -> Interaction:
        """The verified interaction, or an answer that leaves the dependency by itself."""
        try:
            return await self._let_in(request)
        except _Answered:
            handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
            handlers[_Answered] = _respond
            raise

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The app behind this guard, for Starlette and plain ASGI.

        `Route("/interactions", endpoint, methods=["POST"], middleware=[Middleware(interaction_limit.wrap)])`, or
        `Mount("/interactions", interaction_limit.wrap(app))`. Everything that it wraps needs a signature.
        """
        return _Guarded(self, app)

    async def _let_in(self, request: Request) -> Interaction:
        passed = request.scope.get(_PASSED)
        if not isinstance(passed, _Passed) or passed.public_key != self._signatures.raw:
            passed = _Passed(self._signatures.raw, await self._verified(request))
            request.scope[_PASSED] = passed
            request.state.interaction = passed.interaction
        if self not in passed.charged_by:
            passed.charged_by.add(self)
            await self._charge(passed.interaction, self._buckets_for(request.scope))
        return passed.interaction

    # Is it Discord's?

    async def _verified(self, request: Request) -> Interaction:
        body = await self._body(request)
        signed = self._signatures.verified(request.scope["headers"], body)
        if signed is None:
            raise _refused(401, "invalid request signature")
        buckets = self._buckets_for(request.scope)
        age = buckets.store.clock.wall() - signed.at
        if abs(age) > self._tolerance:
            logger.warning("an interaction that Discord signed %+.0f s ago was refused: is this clock right?", age)
            raise _refused(401, "stale request timestamp")
        interaction = _parsed(body)
        is_ping = interaction["type"] == _PING  # repeated by Discord as it likes; a second PONG tells nobody anything
        if not is_ping and not await self._is_new(signed, interaction, buckets):
            raise _refused(401, "this interaction has been here before")
        ledger = request.scope.get(LEDGER)
        if isinstance(ledger, Ledger) and request.method == "POST":
            ledger.leave_alone()
        if is_ping:
            raise _Answered({"type": _PONG})
        return interaction

    async def _body(self, request: Request) -> bytes:
        if _announced(request.scope["headers"]) > self._max_body:
            raise _refused(413, "the body is too large")
        body = bytearray()
        try:
            async with aclosing(request.stream()) as stream:
                async for chunk in stream:
                    body += chunk
                    if len(body) > self._max_body:
                        raise _refused(413, "the body is too large")
        except ClientDisconnect:
            raise _refused(400, "the body is incomplete") from None
        request._body = bytes(body)  # where Starlette keeps what it has read: the endpoint can read it again
        return request._body

    async def _is_new(self, signed: Signed, interaction: Interaction, buckets: _Buckets) -> bool:
        if not self._seen.add(signed, buckets.store.clock.wall()):
            return False
        if buckets.replays is None:
            return True
        return (await self._answered(buckets.replays.try_acquire(signed.digest), interaction)).allowed

    # May it go on?

    async def _charge(self, interaction: Interaction, buckets: _Buckets) -> None:
        key = await self._key_of(interaction)
        decision = await self._answered(buckets.decide(key, interaction), interaction)
        if not decision.allowed:
            wall = buckets.store.clock.wall()
            raise _answer_to(interaction, await self._wording.limited(interaction, decision, wall))
        if decision.delay:
            await buckets.store.clock.sleep(decision.delay)

    async def _answered(self, asked: Any, interaction: Interaction) -> Decision:
        """What the store says, in time for an answer to Discord whatever becomes of the store."""
        try:
            async with asyncio.timeout(_PATIENCE):
                decision: Decision = await asked
        except (StoreUnavailable, TimeoutError) as error:
            logger.debug("an interaction is put off: %s", error)  # the store has said so, and once
            raise _answer_to(interaction, self._wording.put_off(interaction)) from error
        return decision

    async def _key_of(self, interaction: Interaction) -> str:
        key = self._key(interaction)
        if isawaitable(key):
            key = await key
        if isinstance(key, str) and key:
            return key
        if key is None or key == "":
            self._notices.warn("ARL103", "an interaction names no user and no guild; all such share one bucket")
        else:
            self._notices.warn("ARL201", f"a key is a string such as 'user:1', not {key!r:.80}; such share one bucket")
        return ANONYMOUS

    def _buckets_for(self, scope: Scope) -> _Buckets:
        ledger = scope.get(LEDGER)
        store = self._own_store
        if store is None:
            store = ledger.store if isinstance(ledger, Ledger) and ledger.store is not None else self._spare_store
        if self._buckets.store is not store or not self._in_use:
            self._buckets, self._in_use = self._opened(store), True
            if isinstance(store, MemoryStore) and several_workers():
                self._notices.warn("ARL105", "each worker counts for itself; use one worker or a RedisStore")
        return self._buckets

    def _opened(self, store: Store) -> _Buckets:
        return _Buckets(store, self._name, self._limit, self._autocomplete, self._tolerance)


class _Passed:
    """A verified interaction on its way through one request, and the limits that have charged it."""

    __slots__ = ("charged_by", "interaction", "public_key")

    def __init__(self, public_key: bytes, interaction: Interaction) -> None:
        self.public_key, self.interaction = public_key, interaction
        self.charged_by: set[InteractionLimit] = set()


class _Buckets:
    """What is kept in one store: the commands' buckets, the autocompletes', and which signatures were seen."""

    def __init__(self, store: Store, name: str, limit: Limits, autocomplete: Limits, tolerance: float) -> None:
        self.store = store
        self._commands = Limiter(limit, store=store, name=name)
        self._autocompletes = Limiter(autocomplete, store=store, name=f"{name}:autocomplete")
        self.replays: Limiter | None = None
        if not isinstance(store, MemoryStore):  # this process has a record of its own; a shared one is for the others
            once = FixedWindow(f"1/{2 * math.ceil(tolerance) + 1}s", outage="open")
            self.replays = Limiter(once, store=store, name=f"{name}:replays")

    async def decide(self, key: str, interaction: Interaction) -> Decision:
        limiter = self._commands
        if interaction["type"] == _AUTOCOMPLETE:
            decision = await limiter.peek(key)
            if not decision.allowed:
                return decision
            limiter = self._autocompletes
        decision = await limiter.try_acquire(key)
        if decision.delay <= _LONGEST_HOLD:
            return decision
        await limiter.refund(decision)
        return decision.as_refusal(decision.cost, round((decision.delay - _LONGEST_HOLD) * 1e6))


# What is read and what is answered


def _reusable(limit: Limits) -> Limits:
    return limit if isinstance(limit, (str, Limit)) or not isinstance(limit, Iterable) else tuple(limit)


def _announced(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The body's length, as far as the request tells; one that cannot be read is counted while it comes."""
    found = [value for name, value in headers if name.lower() == b"content-length"]
    return max((int(value[:19]) for value in found if value.isdigit()), default=0)


def _parsed(body: bytes) -> Interaction:
    try:
        interaction = json.loads(body)
    except (ValueError, RecursionError):
        interaction = None
    if not isinstance(interaction, dict) or type(interaction.get("type")) is not int:
        raise _refused(400, "the body is no interaction")
    return interaction


class _Answered(Exception):
    """The request is answered already: not an HTTPException, so that no way of showing those gets in between."""

    def __init__(self, answer: dict[str, Any], status: int = 200) -> None:
        super().__init__(status)
        self.response = Response(json.dumps(answer).encode("ascii"), status, media_type="application/json")


def _refused(status: int, why: str) -> _Answered:
    return _Answered({"message": why}, status)


def _answer_to(interaction: Interaction, content: str) -> _Answered:
    """In place of the endpoint's own answer; Discord wants a 200."""
    if interaction["type"] == _AUTOCOMPLETE:
        return _Answered({"type": _CHOICES, "data": {"choices": []}})
    return _Answered({"type": _MESSAGE, "data": {"content": content, "flags": _EPHEMERAL}})


async def _respond(_: object, answered: Exception) -> Response:
    assert isinstance(answered, _Answered)
    return answered.response


class _Guarded:
    """An ASGI app that only sees verified interactions. An object: Starlette takes a function for an endpoint."""

    def __init__(self, limit: InteractionLimit, app: ASGIApp) -> None:
        self._limit, self.app = limit, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "interactions come as requests"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        was_read = _PASSED not in scope
        try:
            await self._limit._let_in(request)
        except _Answered as answered:
            await answered.response(scope, receive, send)
            return
        await self.app(scope, _again(await request.body(), receive) if was_read else receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
