"""The ASGI door: one middleware for every request and every WebSocket of an app."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from inspect import isawaitable
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_ratelimit.call_site import inside_a_request
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.inbound.guard import ClientGone, Gate, Limiters, reads_the_user
from asgi_ratelimit.inbound.headers import HeaderStyle, checked_style
from asgi_ratelimit.inbound.keys import KeyFunction, by_user_or_ip
from asgi_ratelimit.inbound.request_state import LEDGER, Ledger, merged
from asgi_ratelimit.inbound.responses import LimitedResponse, UnavailableResponse, can_only_close
from asgi_ratelimit.inbound.websocket import LimitedSocket
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import as_limits
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["RateLimitMiddleware"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_LAYERS = 100  # of middleware that are looked through
_READ_AHEAD = 65_536  # bytes of a body that are kept while its request is held


class RateLimitMiddleware:
    """Limits an ASGI app: `app.add_middleware(RateLimitMiddleware, limit="100/minute")`.

    `limit`: a string, a limit, a list of them (all or nothing), None, or a function of the connection that
    returns any of those. `key`, `cost`, `exempt` and `on_limited` may be functions too, sync or async.
    `exempt`: paths of the app, `*` standing for anything. `refund`: a function of the response's status; where
    it is true the charge is given back. `enforce=False` counts and reports but refuses nothing. `max_wait`:
    seconds that a request may be held instead of refused. `headers`: "discord", "ietf", "both" or None.
    `messages`: a limit on the frames of each WebSocket. ValueError for what makes no sense.

    An exception of the user's own functions is passed on as it is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: Any,
        key: KeyFunction = by_user_or_ip,
        cost: int | Callable[[HTTPConnection], Any] = 1,
        store: Store | None = None,
        name: str = "app",
        exempt: Iterable[str] | Callable[[HTTPConnection], Any] = (),
        refund: Callable[[int], bool] | None = None,
        enforce: bool = True,
        max_wait: float = 0.0,
        headers: HeaderStyle | None = "discord",
        on_limited: Callable[[HTTPConnection, Decision], Any] | None = None,
        messages: Any = None,
    ) -> None:
        for option, function in (("refund", refund), ("on_limited", on_limited)):
            if function is not None and not callable(function):
                raise ValueError(f"{option} must be a function or None, not {function!r}")
        self.app = app
        self.store: Store = MemoryStore() if store is None else store
        self._notices = WarnOnce()
        self._gate = Gate(limit, key, cost, max_wait, self._notices)
        self._limiters = Limiters(self.store, name, self._gate.fixed)
        self._exempt = exempt if callable(exempt) else _path_pattern(exempt)
        self._refund, self._enforce, self._style = refund, enforce, checked_style(headers)
        self._on_limited = on_limited
        self._messages = None if messages is None else as_limits(messages)
        self._awaits_user = reads_the_user(key)
        self._checked_start = False
        self._left_alone: set[str] = set()  # paths whose POSTs an InteractionLimit has verified: it limits them itself
        self._limiters.introduce(self._notices)
        self._check_place()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._checked_start:
            self._check_start()
        if scope["type"] not in ("http", "websocket"):
            if scope["type"] == "lifespan" and not isinstance(self.store, MemoryStore):
                receive, send = self._living(receive, send)
            await self.app(scope, receive, send)
            return
        ledger, receive, send = self._opened(scope, receive, send)
        may_be_exempt = self._exempt is not None or scope.get("method") == "OPTIONS"
        if self._gate.unlimited or (may_be_exempt and await self._is_exempt(scope)):
            await self.app(scope, receive, send)
            return
        path = scope.get("path", "")  # as this door sees it
        if self._left_alone and path in self._left_alone and scope.get("method") == "POST":
            await self.app(scope, receive, send)
            return
        had_user = "user" in scope
        mailbox = _Mailbox(receive) if self._gate.may_wait else None
        try:
            decided = await self._gate.decide(scope, self._limiters, gone=mailbox.gone if mailbox else None)
        except ClientGone:
            return
        except StoreUnavailable as error:
            logger.debug("a request is answered with 503: %s", error)  # the store has said so, and once
            await UnavailableResponse()(scope, receive, send)
            return
        if mailbox is not None:
            receive = mailbox.receive
        if decided is None:
            await self.app(scope, receive, send)
            return
        decision, limiter = decided
        if not ledger.add(decision, enforced=self._enforce):
            self._gate.warn_of_second_pass(limiter)
        if not decision.allowed and self._enforce:
            await self._refuse(decision, scope, receive, send)
            return
        if not decision.allowed:
            self._gate.tally(repr(limiter), self.store.clock)
        ledger.charged_at.append((self._left_alone, path))
        if self._refund is None:
            await self.app(scope, receive, send)
        else:
            await self._pass_on(decision, limiter, self._refund, scope, receive, send)
        if ledger.left_alone:
            await limiter.refund(decision)
        if self._awaits_user and not had_user and "user" in scope:
            self._warn_late_user()

    def _opened(self, scope: Scope, receive: Receive, send: Send) -> tuple[Ledger, Receive, Send]:
        """The request's ledger, and its channels with what this door does to them."""
        ledger = scope.get(LEDGER)
        if ledger is None:
            ledger = scope[LEDGER] = Ledger()
        ledger.store = self.store
        if ledger.style is None and self._style is not None:
            ledger.style = self._style
            send = self._writing(ledger, send)
        if self._messages is not None and scope["type"] == "websocket":
            socket = LimitedSocket(self._messages, self.store.clock, receive, send, self._too_many_frames)
            receive, send = socket.receive, socket.send
        if type(scope.get("headers")) is not list:  # any iterable will do for ASGI, but it is read more than once
            scope["headers"] = list(scope.get("headers") or ())
        return ledger, receive, send

    def _living(self, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """The channels of the app's lifespan; the store starts before the app does, and is closed after it."""

        async def starting() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.store.start()
                except StoreUnavailable as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def closing(message: Message) -> None:
            if message["type"] != "lifespan.startup.complete":
                await self.store.aclose()
            await send(message)

        return starting, closing

    async def _pass_on(
        self,
        decision: Decision,
        limiter: Limiter,
        refund: Callable[[int], bool],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        status = 0

        async def refunding(message: Message) -> None:
            nonlocal status
            if not status and (status := _status(message)) and refund(status):
                await limiter.refund(decision)
            await send(message)

        try:
            await self.app(scope, receive, refunding)
        except Exception:
            if not status and refund(500):
                await limiter.refund(decision)
            raise

    async def _refuse(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        response: Any = None
        if self._on_limited is not None and not can_only_close(scope):
            response = self._on_limited(HTTPConnection(scope), decision)
            if isawaitable(response):
                response = await response
            if not callable(response):
                self._notices.warn(
                    "ARL204", f"it must return a Response, not {response!r:.80}; Discord's 429 is sent instead"
                )
        await (response if callable(response) else LimitedResponse(decision))(scope, receive, send)

    def _too_many_frames(self) -> bool:
        if not self._enforce:
            self._gate.tally(f"messages={self._messages}", self.store.clock)
        return self._enforce

    async def _is_exempt(self, scope: Scope) -> bool:
        if scope.get("method") == "OPTIONS" and _is_preflight(scope):
            return True
        if callable(self._exempt):
            exempt = self._exempt(HTTPConnection(scope))
            return bool(await exempt if isawaitable(exempt) else exempt)
        return self._exempt is not None and self._exempt.fullmatch(_app_path(scope)) is not None

    def _writing(self, ledger: Ledger, send: Send) -> Send:
        """A `send` that puts the ledger's headers on the start of a response, or on an accepted WebSocket."""
        style, wall = self._style, self.store.clock.wall

        async def write(message: Message) -> None:
            if message["type"] in _STARTS and ledger.decisions:
                message = {**message, "headers": merged(message.get("headers") or (), ledger.headers(style, wall()))}
            await send(message)

        return write

    # What is checked once, at construction or at the first request

    def _check_place(self) -> None:
        if inside_a_request():
            self._notices.warn("ARL106", "its buckets are new each time and limit nothing; make it once, with the app")
        inner: Any = None if self._gate.unlimited else self.app
        for _ in range(_MOST_LAYERS):
            if isinstance(inner, CORSMiddleware):
                self._notices.warn(
                    "ARL108",
                    "browsers may not read its 429, which lacks the CORS headers. Add CORSMiddleware after "
                    "RateLimitMiddleware: what is added last stands outside.",
                )
            inner = getattr(inner, "app", None)

    def _check_start(self) -> None:
        self._checked_start = True
        self._gate.warn_of_workers(self.store)

    def _warn_late_user(self) -> None:
        self._notices.warn(
            "ARL107",
            "it saw no user, so everybody was keyed by address. Add AuthenticationMiddleware after "
            "RateLimitMiddleware: what is added last stands outside and runs first.",
        )


def _is_preflight(scope: Any) -> bool:
    """A browser's question before a cross-origin request (Fetch standard, CORS-preflight request)."""
    names = {name for name, _ in scope.get("headers", ())}
    return b"origin" in names and b"access-control-request-method" in names


_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))


def _status(message: Message) -> int:
    """The status of a response that starts with this message, 0 if none does; a WebSocket's accept is its 101."""
    if message["type"] == "websocket.accept":
        return 101
    if message["type"] == "websocket.close":
        return 403  # before it was accepted, that is
    return int(message["status"]) if message["type"] in _STARTS else 0


def _path_pattern(paths: Iterable[str]) -> re.Pattern[str] | None:
    paths = tuple(paths) if not isinstance(paths, str) else (paths,)
    for path in paths:
        if not isinstance(path, str) or not path.startswith(("/", "*")):
            raise ValueError(f'an exempt path looks like "/health" or "/static/*", not {path!r}')
    return re.compile("|".join(re.escape(path).replace(r"\*", ".*") for path in paths), re.DOTALL) if paths else None


def _app_path(scope: Scope) -> str:
    """The path as the app's routes see it: without the prefix under which a server or a mount has put the app."""
    path, root = str(scope.get("path", "")), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Mailbox:
    """Reads ahead while a request is held, to notice that its client leaves; what was read is kept for the app."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def gone(self) -> None:
        """Return when the client has left."""
        size = 0
        while size <= _READ_AHEAD:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] in ("http.disconnect", "websocket.disconnect"):
                return
            size += len(message.get("body", b""))
        await asyncio.get_running_loop().create_future()  # reads no further

    async def receive(self) -> Message:
        return self._kept.popleft() if self._kept else await self._receive()
