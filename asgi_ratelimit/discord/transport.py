"""The httpx side of it: a transport that paces, retries and learns."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx

from asgi_ratelimit.discord.errors import Tell
from asgi_ratelimit.discord.invalid_requests import InvalidBudget
from asgi_ratelimit.discord.nonces import signed
from asgi_ratelimit.discord.pools import CONNECTIONS, pooled
from asgi_ratelimit.discord.redaction import keep_tokens_out
from asgi_ratelimit.discord.response_headers import object_of
from asgi_ratelimit.discord.routes import redacted, route_of
from asgi_ratelimit.discord.scheduler import CLOSED, Call, Pace, Waiting
from asgi_ratelimit.discord.sender import Courier, Lost, Terms, Trip
from asgi_ratelimit.discord.tokens import Owners, careful
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store

__all__ = ["USER_AGENT", "DiscordTransport"]

USER_AGENT: Final = "DiscordBot (https://asgi-ratelimit-discord.invalid, 1)"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_USELESS: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)  # the same would happen again
_LONGEST_REASON: Final = 512  # characters, as Discord has it

keep_tokens_out("httpx", "hpack.hpack", "hpack.table")
keep_tokens_out(*(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")))


class DiscordTransport(httpx.AsyncBaseTransport):
    """Sends requests to Discord when their limits allow, through `inner`, httpx's own transport unless given.

    `store`: where buckets are kept, a MemoryStore unless given; a RedisStore for several processes. `global_limit`:
    requests of one token in any second. `max_wait`: seconds that a request may wait for limits, None for any time.
    `max_retries`: how often it is sent again after a 500, 502, 503, 504, 524 or a lost connection, with back-off;
    429s are waited out besides, unless it is 0. `retry_unsafe=False`: a POST or PATCH that may have arrived is not
    sent again. `application_id`: tells an interaction's follow-ups from ordinary webhooks. `egress`: names the
    address that requests come from: all processes with one name share its budget of invalid requests.
    `max_in_flight`: calls of one token that are out at a time, each over a connection of its own. `on_event`: is
    called with each DiscordEvent.

    A request's own `extensions`: "deadline", in seconds from now, after which it is of no use; "priority", a whole
    number, higher ones first; "reason", for the audit log. ValueError for options that make no sense.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        store: Store | None = None,
        global_limit: int = 50,
        max_wait: float | None = None,
        max_retries: int = 5,
        retry_unsafe: bool = True,
        application_id: str | int | None = None,
        egress: str = "default",
        max_in_flight: int = 100,
        on_event: Tell | None = None,
    ) -> None:
        if inner is not None and not isinstance(inner, httpx.AsyncBaseTransport):
            raise ValueError(f"inner must be an httpx transport, e.g. httpx.AsyncHTTPTransport(), not {inner!r}")
        terms = Terms(max_wait, max_retries, retry_unsafe)
        self._application_id = _checked_id(application_id)
        self._store: Store = MemoryStore() if store is None else store
        tell = careful(on_event)
        self._owners = Owners(self._store, Pace(global_limit, max_in_flight), egress, tell)
        budget = InvalidBudget(self._store, egress, tell)
        self._courier = Courier(self._owners, budget, self._store.clock, terms, tell)
        self._inner = pooled(most=max(CONNECTIONS, max_in_flight)) if inner is None else inner
        self._authorization: str | None = None
        self._origin: httpx.URL | None = None  # None: every request is one to Discord
        self._is_closed = False

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait now, by route and resource, and what is known of their buckets."""
        return self._owners.waiting

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """DiscordError for a request that is not sent; httpx's own errors for one that fails for good."""
        return await self._carry(request, self._inner)

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
        await self._courier.aclose()

    async def _carry(self, request: httpx.Request, inner: httpx.AsyncBaseTransport) -> httpx.Response:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        if type(request) is httpx.Request:
            request.__class__ = _Request  # it is in every error of httpx's
        if self._origin is not None and not _same_origin(request.url, self._origin):
            return await inner.handle_async_request(request)
        clock = self._store.clock
        parcel = _Parcel(request, await request.aread(), self._application_id, clock.wall())
        if self._authorization is not None:
            parcel.headers.setdefault("Authorization", self._authorization)
        authorization = parcel.headers.get("Authorization")
        deadline_s = parcel.deadline
        trip = Trip(
            self._owners.of(authorization),
            Call(parcel.route, parcel.priority),
            request.method in _SAFE or parcel.has_nonce,
            authorization is not None,
            None if deadline_s is None else clock.now_us() + round(deadline_s * 1e6),
        )
        return await self._courier.deliver(trip, lambda left_s: parcel.go(inner, left_s))


class _Parcel:
    """A request as it is sent, as often as it has to be; the user's own stays as it was."""

    def __init__(self, request: httpx.Request, body: bytes, application_id: str | None, wall: float) -> None:
        self._request, self._body, self.has_nonce = request, body, False
        self.headers = request.headers.copy()
        if self.headers.get("User-Agent", "python-httpx").startswith("python-httpx"):
            self.headers["User-Agent"] = USER_AGENT
        path, kind = request.url.raw_path.decode("ascii"), self.headers.get("Content-Type", "")
        told = object_of(body) if request.method == "PATCH" and kind.startswith("application/json") else None
        self.route = route_of(request.method, path, application_id=application_id, body=told, wall=wall)
        if self.route.creates_message:
            self._body, self.has_nonce = signed(kind, body)
        self._measure()
        self.priority = _whole(request.extensions.get("priority", 0), "priority")
        self.deadline = _shorter(_positive(request.extensions.get("deadline"), "deadline"), self.route.lifetime)
        if request.extensions.get("reason") is not None:
            self.headers["X-Audit-Log-Reason"] = _reason(request.extensions["reason"])

    async def go(self, inner: httpx.AsyncBaseTransport, left_s: float | None) -> _Response:
        """Send it once. Lost where nothing comes back."""
        extensions = dict(self._request.extensions)
        if left_s is not None:
            timeouts = extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
            extensions["timeout"] = {name: _shorter(value, left_s) for name, value in timeouts.items()}
        request = httpx.Request(
            self._request.method,
            self._request.url,
            headers=self.headers,
            stream=httpx.ByteStream(self._body),
            extensions=extensions,
        )
        try:
            response = await inner.handle_async_request(request)
        except (httpx.TransportError, ConnectionError) as error:
            if isinstance(error, _USELESS):
                raise type(error)(redacted(str(error))) from None
            raise Lost(error, sent=not isinstance(error, (*_NEVER_SENT, ConnectionRefusedError))) from error
        return _Response(
            response.status_code, headers=response.headers, stream=response.stream, extensions=response.extensions
        )

    def _measure(self) -> None:
        """Say how long the body is, which is known by now however it came."""
        if "Transfer-Encoding" in self.headers:
            del self.headers["Transfer-Encoding"]
        elif "Content-Length" not in self.headers:
            return
        self.headers["Content-Length"] = str(len(self._body))


class _Request(httpx.Request):
    """A request whose repr shows no token."""

    def __repr__(self) -> str:
        return redacted(super().__repr__())


class _Response(httpx.Response):
    """A response whose body may be looked at before others read it, and whose error shows no token."""

    async def keep(self) -> bytes:
        """The body, decoded; whoever is given the response can still read it."""
        try:
            raw = b"".join([chunk async for chunk in self.stream])  # type: ignore[union-attr]
        except httpx.TransportError as error:
            raise Lost(error, sent=True) from error
        finally:
            await self.stream.aclose()  # type: ignore[union-attr]
        self.stream = httpx.ByteStream(raw)
        try:
            return await httpx.Response(200, headers=self.headers, stream=self.stream).aread()
        except httpx.DecodingError:
            return b""

    def raise_for_status(self) -> Self:
        try:
            super().raise_for_status()
        except httpx.HTTPStatusError as error:
            request = error.request
            said = redacted(str(error))
        else:
            return self
        raise httpx.HTTPStatusError(said, request=request, response=self)


# Options, and what a request is given on its way


def _checked_id(application_id: object) -> str | None:
    if application_id is None:
        return None
    text = str(application_id)
    if isinstance(application_id, bool) or not isinstance(application_id, (str, int)) or not _is_number(text):
        raise ValueError(f'application_id must be a snowflake such as "1234567890", not {application_id!r}')
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'extensions={{"{name}": ...}} must be a whole number, e.g. 10, not {value!r}')
    return value


def _positive(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f'extensions={{"{name}": ...}} must be seconds above 0, e.g. 2.5, not {value!r}')
    return float(value)


def _shorter(one: float | None, other: float | None) -> float | None:
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise ValueError(f'extensions={{"reason": ...}} must be text of up to 512 characters, not {reason!r:.80}')
    return quote(reason, safe=" /", errors="replace")
