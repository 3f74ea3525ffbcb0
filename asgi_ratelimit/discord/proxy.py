"""A proxy before Discord: a bot in any language changes its base URL, and its calls are paced."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
from starlette.types import Message, Receive, Scope, Send

from asgi_ratelimit.discord.bodies import BodyRefused, ClientLeft, KeptBodies
from asgi_ratelimit.discord.errors import (
    DiscordEvent,
    DiscordRateLimited,
    EventHook,
    TokenRejected,
    WebhookGone,
)
from asgi_ratelimit.discord.event_log import safe_hook
from asgi_ratelimit.discord.outgoing import BROKEN
from asgi_ratelimit.discord.transport import DiscordTransport
from asgi_ratelimit.errors import RateLimitError
from asgi_ratelimit.store import Store

__all__ = ["LARGEST", "DiscordProxy"]

logger = logging.getLogger("asgi_ratelimit")

DEADLINE: Final = b"x-deadline"
LARGEST: Final = 100 * 2**20
_MEMORY: Final = 256 * 2**20
_TIMEOUT: Final = {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": None}
# Of one connection only: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OF_A_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
_NOT_FORWARDED: Final = _OF_A_HOP | {b"host", b"content-length", b"expect", DEADLINE}
_NOT_ANSWERED: Final = _OF_A_HOP | {b"retry-after"}
_LENGTH: Final = b"content-length"
_BODILESS: Final = frozenset({204, 304})  # a length would be that of another answer
_IN_PATHS: Final = "/:@!$&'()*+,;=~"
_PACING: Final = b"x-ratelimit-"
_STOPS: Final = {"message": "the proxy stops, and this call has no answer yet"}
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,5}")
_MOMENT: Final = 0.001  # seconds: a client that sends more at a time waits no longer

Headers = Iterable[tuple[bytes, bytes]]


class DiscordProxy:
    """An ASGI app that forwards requests to Discord when their limits allow.

    upstream: where requests go, with their own path: "https://discord.com"
    store: where buckets are stored: a RedisStore for several proxies; a MemoryStore by default
    global_limit: requests of one token in any second
    min_remaining: so many of each bucket are left to others that use the tokens
    egress: the name of the address that requests come from
    max_body: bytes of the largest request; it is kept in memory, as it may have to be sent again
    max_memory: bytes of all requests that are kept at a time; the next ones are not read until there is room
    on_event: called with each DiscordEvent
    transport: the httpx transport that sends; httpx's own by default

    A request waits for as long as its limits ask for. With a header `X-Deadline: 2.5` it is answered with a 429 as soon
    as it is sure to wait for more seconds than that. The X-RateLimit headers of answers name a bucket that is never
    used up: the client has nothing to wait for. `GET /health` shows what has been done so far. Raises ValueError for an
    option that cannot be used.
    """

    def __init__(
        self,
        *,
        upstream: str = "https://discord.com",
        store: Store | None = None,
        global_limit: int = 50,
        min_remaining: int = 0,
        egress: str = "default",
        max_body: int = LARGEST,
        max_memory: int | None = None,
        on_event: EventHook | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._upstream, self._on_event = _checked_upstream(upstream), safe_hook(on_event)
        self._counts: Counter[str] = Counter()
        self._store, self._is_closed = store, False
        self._transport = DiscordTransport(
            transport,
            store=store,
            global_limit=global_limit,
            min_remaining=min_remaining,
            egress=egress,
            origins=[self._upstream],
            on_event=self._count_event,
        )
        max_body = _checked_bytes(max_body, "max_body", LARGEST)
        max_memory = max(_MEMORY, 2 * max_body) if max_memory is None else max_memory
        max_memory = _checked_bytes(max_memory, "max_memory", _MEMORY)
        self._bodies = KeptBodies(self._transport.store.clock, max_body, max_memory)

    @property
    def counts(self) -> dict[str, int]:
        """What has been done so far: requests, answers by class ("2xx"), events ("limited", "wait") by kind."""
        return dict(self._counts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "a DiscordProxy forwards HTTP only"})
        elif scope["type"] != "http":
            raise RuntimeError(f"a DiscordProxy forwards HTTP only, no {scope['type']}")
        elif _own_path(scope) == b"/health":
            await _reply(send, 200, self.health)
        else:
            await self._forward(scope, receive, send)

    async def aclose(self) -> None:
        """Close the connections, and end all waiting. The store stays open."""
        self._is_closed = True
        await self._transport.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self.aclose()
        if self._store is not None:  # served by itself, nobody else uses it
            await self._store.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def health(self) -> dict[str, Any]:
        """What `GET /health` shows: `counts`, the bodies that are kept or wait for room, and the calls that wait."""
        waiting = [
            {"route": each.route, "calls": each.calls, "cause": each.cause, "seconds": round(each.seconds, 3)}
            for each in self._transport.waiting
        ]
        bodies = {"bytes": self._bodies.taken, "waiting": self._bodies.waiting}
        return {"status": "ok", "counts": self.counts, "bodies": bodies, "waiting": waiting}

    def _count_event(self, event: DiscordEvent) -> None:
        self._counts[event.kind] += 1
        self._on_event(event)

    # A request

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._counts["requests"] += 1
        answering = _Answering(send)
        try:
            await self._send_on(scope, receive, answering)
        except ClientLeft:
            self._counts["left"] += 1
        except BodyRefused as error:
            is_late = error.status == 429
            content = _limited(global_=False, retry_after=1.0) if is_late else {"message": str(error)}
            await self._answer(answering, error.status, content, is_last=True)
        except asyncio.CancelledError:  # the server stops
            if not answering.has_begun:
                await self._answer(answering, 503, _STOPS, is_last=True)
            raise

    async def _send_on(self, scope: Scope, receive: Receive, answering: _Answering) -> None:
        came_us = self._transport.store.clock.now_us()
        sent = list(scope["headers"])  # a server may add those that follow the body to its own list
        try:
            url, deadline_s = self._url_of(scope), _deadline_of(sent)
        except (httpx.InvalidURL, ValueError) as error:
            told = "the path cannot be sent on" if isinstance(error, httpx.InvalidURL) else str(error)
            await self._answer(answering, 400, {"message": told})
            return
        async with self._bodies.kept(receive, sent, deadline_s) as body:
            headers, options = _end_to_end(sent, _NOT_FORWARDED), {"timeout": _TIMEOUT}
            request = httpx.Request(scope["method"], url, headers=headers, content=body or None, extensions=options)
            if deadline_s is not None:
                request.extensions["deadline"] = self._left_s(came_us, deadline_s)
            is_old = scope.get("http_version") == "1.0"
            await self._until_left(self._exchange(request, answering, is_old=is_old), receive)

    def _left_s(self, came_us: int, deadline_s: float) -> float:
        left_s = deadline_s - (self._transport.store.clock.now_us() - came_us) / 1e6
        if left_s <= 0:
            raise BodyRefused(429, "the body has come too late")
        return left_s

    async def _until_left(self, exchange: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Do it for as long as the client is there."""
        forwarding = asyncio.ensure_future(exchange)
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((forwarding, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not forwarding.done():
                self._counts["left"] += 1
                forwarding.cancel()
            await asyncio.wait((forwarding, leaving))
        if not forwarding.cancelled():
            forwarding.result()

    def _url_of(self, scope: Scope) -> httpx.URL:
        """The same path at the upstream, and nowhere else, whatever the request says."""
        path = _own_path(scope)
        if not path.startswith(b"/"):
            raise ValueError("only paths are forwarded, e.g. /api/v10/users/@me")
        query: bytes = scope["query_string"]
        return self._upstream.copy_with(raw_path=path + b"?" + query if query else path)

    async def _exchange(self, request: httpx.Request, send: _Answering, *, is_old: bool) -> None:
        is_bounded = "deadline" in request.extensions
        try:
            response = await self._transport.handle_async_request(request)
        except RateLimitError as error:
            await self._answer(send, *_of_error(error, is_bounded))
        except RuntimeError:
            if not self._is_closed:
                raise
            await self._answer(send, 503, _STOPS, is_last=True)
        except httpx.LocalProtocolError as error:
            await self._answer(send, 400, {"message": f"the request cannot be sent on: {error}"})
        except httpx.TimeoutException as error:
            await self._answer(send, 504, {"message": f"Discord has not answered: {type(error).__name__}"})
        except (httpx.TransportError, OSError) as error:
            await self._answer(send, 502, {"message": f"Discord cannot be reached: {type(error).__name__}"})
        else:
            if response.status_code == 429:
                await self._refuse(response, send, is_bounded)
            else:
                await self._pass_on(response, send, is_old=is_old)

    async def _refuse(self, response: httpx.Response, send: Send, is_bounded: bool) -> None:
        """Discord refuses the call again and again. A client that knows no limits would come back at once."""
        await response.stream.aclose()  # type: ignore[union-attr]
        if is_bounded:
            await self._answer(send, 429, _limited(global_=False, retry_after=1.0))
        else:
            await self._answer(send, 503, {"message": "Discord refuses this call again and again; try it later"})

    async def _answer(self, send: Send, status: int, content: Mapping[str, Any], *, is_last: bool = False) -> None:
        """`is_last`: the rest of the request is not read, so no other one can follow on the connection."""
        self._counts[f"{status // 100}xx"] += 1
        await _reply(send, status, content, [(b"connection", b"close")] if is_last else [])

    async def _pass_on(self, response: httpx.Response, send: _Answering, *, is_old: bool) -> None:
        """Piece by piece. `is_old`: the client speaks HTTP/1.0, and reads no pieces without a length."""
        self._counts[f"{response.status_code // 100}xx"] += 1
        headers = [each for each in _end_to_end(response.headers.raw, _NOT_ANSWERED) if not each[0].startswith(_PACING)]
        headers += _room_left(response.headers, self._transport.store.clock.wall())
        pieces: AsyncIterable[bytes] = response.stream  # type: ignore[assignment]
        try:
            if response.status_code in _BODILESS:
                headers = [each for each in headers if each[0] != _LENGTH]
            elif is_old and all(name != _LENGTH for name, _ in headers):
                body = b"".join([piece async for piece in pieces])
                headers, pieces = [*headers, (_LENGTH, str(len(body)).encode())], _one(body)
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (httpx.TransportError, *BROKEN) as error:  # the server cuts the answer off as well
            self._counts["cut"] += 1
            if not send.has_begun:
                await self._answer(send, 502, {"message": f"Discord has answered in part: {type(error).__name__}"})
            logger.warning("the connection to Discord was lost within an answer: %s", type(error).__name__)
        finally:
            await response.stream.aclose()  # type: ignore[union-attr]


class _Answering:
    """Sends an answer, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.has_begun = send, False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


def _checked_bytes(value: object, name: str, example: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be bytes from 1, e.g. {example}, not {value!r}")
    return value


def _checked_upstream(upstream: object) -> httpx.URL:
    rule = 'upstream must be an address without a path, e.g. "https://discord.com"'
    try:
        url = httpx.URL(upstream) if isinstance(upstream, (str, httpx.URL)) else httpx.URL("")
    except httpx.InvalidURL as error:
        raise ValueError(f"{rule}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.raw_path not in (b"", b"/"):
        raise ValueError(f"{rule}, not {upstream!r:.80}")
    return url


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _room_left(headers: Mapping[str, str], wall: float) -> Headers:
    """A bucket that is never used up, with as many calls at a time as Discord's own has.

    Without one some clients send one call of a kind at a time, and all others wait for it.
    """
    bucket, limit = headers.get("x-ratelimit-bucket", ""), headers.get("x-ratelimit-limit", "")
    if not bucket or not _WHOLE.fullmatch(limit):
        return []
    room = {"bucket": bucket, "limit": int(limit) + 1, "remaining": int(limit), "reset-after": _MOMENT}
    room["reset"] = f"{wall + _MOMENT:.3f}"
    return [(_PACING + name.encode(), str(value).encode("latin-1", "replace")) for name, value in room.items()]


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _end_to_end(headers: Headers, dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers that are not of one connection, in lower case."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {word.strip().lower() for name, value in lower if name == b"connection" for word in value.split(b",")}
    return [(name, value) for name, value in lower if name not in dropped and name not in named]


def _deadline_of(headers: Headers) -> float | None:
    """The seconds after which the client has no more use for an answer. Raises ValueError if they are none."""
    text = next((value for name, value in headers if name == DEADLINE), None)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"X-Deadline must be seconds above 0, e.g. 2.5, not {text.decode(errors='replace')!r}")
    return seconds


def _of_error(error: RateLimitError, is_bounded: bool) -> tuple[int, Mapping[str, Any]]:
    """Status and body of the answer to a request that is not sent to Discord."""
    match error:
        case DiscordRateLimited() if is_bounded:
            return 429, _limited(global_=error.scope == "global", retry_after=round(error.retry_after, 3))
        case TokenRejected():
            return 401, {"message": "401: Unauthorized", "code": 0}
        case WebhookGone():
            return 404, {"message": "Unknown Webhook", "code": 10015}
        case DiscordRateLimited():
            return 504, {"message": str(error)}
    return 503, {"message": str(error)}


def _limited(*, global_: bool, retry_after: float) -> Mapping[str, Any]:
    return {"message": "You are being rate limited.", "global": global_, "retry_after": retry_after}


def _own_path(scope: Scope) -> bytes:
    """The path below the one where the proxy is mounted."""
    path: bytes = scope.get("raw_path") or quote(scope["path"], safe=_IN_PATHS).encode()
    return path.removeprefix(scope.get("root_path", "").encode())


async def _reply(send: Send, status: int, content: Mapping[str, Any], more: Headers = ()) -> None:
    body = json.dumps(content).encode()
    headers = [*more, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:  # clients of Discord take one without Via for a ban, and read whole seconds
        headers += [
            (b"via", b"1.1 asgi-ratelimit"),
            (b"retry-after", str(max(1, math.ceil(content["retry_after"]))).encode()),
        ]
        headers += [(b"x-ratelimit-scope", b"global" if content["global"] else b"user")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
