"""The httpx side of a call: the request as it is sent, and a response that shows no token."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import anyio
import httpx

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.discord.deadlines import within
from asgi_ratelimit.discord.nonces import Pieces, with_nonce
from asgi_ratelimit.discord.redaction import redacted
from asgi_ratelimit.discord.response_headers import ALREADY_ANSWERED, NOT_CARRIED_OUT, RETRIED, error_code, object_of
from asgi_ratelimit.discord.routes import CALLBACK, route_of
from asgi_ratelimit.discord.sender import SendFailed

__all__ = ["BROKEN", "USER_AGENT", "DiscordResponse", "OutgoingRequest", "RedactedRequest"]

USER_AGENT: Final = "DiscordBot (https://asgi-ratelimit-discord.invalid, 1)"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_NEVER_SENT: Final = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, ConnectionRefusedError,
)  # fmt: skip
# httpcore lets some of anyio's pass, e.g. over HTTP/2.
BROKEN: Final = (ConnectionError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
# httpx-aiohttp calls each lost connection a ConnectTimeout. These alone of aiohttp's errors come before the request.
_NEVER_SENT_BY_AIOHTTP: Final = frozenset({"ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError"})
_USELESS: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)  # the same would happen again
_LONGEST_EDIT: Final = 2**18  # bytes; an image may be larger, and it is no edit of a channel
_PIECE: Final = 2**16  # bytes that are sent at a time, so that a large body is not copied into buffers as a whole
_LONGEST_REASON: Final = 512  # characters, a limit of Discord's


class OutgoingRequest:
    """A request as it is sent, as often as it has to be. The user's own stays as it was.

    A request's `extensions` may hold "deadline", "priority", "retries", "ordered" and "reason". Raises ValueError if
    one of them cannot be used.
    """

    def __init__(self, request: httpx.Request, body: bytes, application_id: str | None, wall: float) -> None:
        self._request, self._length = request, len(body)
        self._pieces: Pieces = (body,)
        self.headers = request.headers.copy()
        if self.headers.get("User-Agent", "python-httpx").startswith("python-httpx"):
            self.headers["User-Agent"] = USER_AGENT
        path, kind = request.url.raw_path.decode("ascii"), self.headers.get("Content-Type", "")
        is_short_json = len(body) <= _LONGEST_EDIT and kind.startswith("application/json")
        content = object_of(body) if request.method == "PATCH" and is_short_json else None
        self.route = route_of(request.method, path, application_id=application_id, body=content, wall=wall)
        self._has_nonce = False
        if self.route.creates_message:
            self._add_nonce(kind, body)
        self._is_callback = self.route.lifetime == CALLBACK
        self.is_safe = self._has_nonce or self._is_callback or request.method in _SAFE
        self._has_arrived = False  # perhaps, with an attempt that was lost
        self._set_length()
        self._read_options(request.extensions)

    def _add_nonce(self, kind: str, body: bytes) -> None:
        pieces, self._has_nonce = with_nonce(kind, body)
        self._length = sum(len(piece) for piece in pieces)
        self._pieces = pieces if self._length > _PIECE else (b"".join(pieces),)

    def _read_options(self, extensions: Mapping[str, Any]) -> None:
        retries, ordered, deadline = extensions.get("retries"), extensions.get("ordered"), extensions.get("deadline")
        self.retries = None if retries is None else _retries(retries)
        self.is_ordered = None if ordered is None else _flag(ordered, "ordered")
        self.priority = _whole(extensions["priority"], "priority") if "priority" in extensions else 0
        lifetime = self.route.lifetime
        self.deadline_s = lifetime if deadline is None else _shorter(_positive(deadline, "deadline"), lifetime)
        if extensions.get("reason") is not None:
            self.headers["X-Audit-Log-Reason"] = _reason(extensions["reason"])

    async def transmit(self, inner: httpx.AsyncBaseTransport, left_s: float | None, clock: Clock) -> DiscordResponse:
        """Send it once, within `left_s` seconds of this clock. Raises SendFailed if no response comes."""
        extensions = dict(self._request.extensions)
        if left_s is not None:
            timeouts = extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
            extensions["timeout"] = {name: _shorter(value, left_s) for name, value in timeouts.items()}
        request = RedactedRequest(
            self._request.method,
            self._request.url,
            headers=self.headers,
            stream=_SentBody(self._pieces) if self._length > _PIECE else httpx.ByteStream(bytes(self._pieces[0])),
            extensions=extensions,
        )
        try:
            if left_s is None:
                return await self._exchange(inner, request)
            async with within(clock, left_s):
                return await self._exchange(inner, request)
        except TimeoutError:
            if left_s is None:
                raise
            self._has_arrived = True
            late = httpx.ReadTimeout(f"the deadline has passed, {left_s:.3f} s after the request was sent")
            raise SendFailed(late, sent=True) from None
        except _USELESS as error:
            raise type(error)(redacted(str(error))) from None
        except SendFailed:
            self._has_arrived = True
            raise
        except (httpx.TransportError, *BROKEN) as error:
            is_sent = _may_have_arrived(error)
            self._has_arrived |= is_sent
            raise SendFailed(as_httpx(error), sent=is_sent) from error

    async def _exchange(self, inner: httpx.AsyncBaseTransport, request: httpx.Request) -> DiscordResponse:
        response = DiscordResponse.of(await inner.handle_async_request(request))
        try:
            if self._has_nonce and response.is_success:
                await response.read_body()
            if self._has_arrived and await self._is_done(response):
                return response.as_done()
        except BaseException:
            await response.aclose()
            raise
        self._has_arrived |= response.status_code in RETRIED - NOT_CARRIED_OUT
        return response

    async def _is_done(self, response: DiscordResponse) -> bool:
        """Whether the answer to a repetition shows that an earlier attempt was carried out."""
        if self._request.method == "DELETE":
            return response.status_code == 404
        if not self._is_callback or response.status_code != 400:
            return False
        return error_code(await response.read_body()) == ALREADY_ANSWERED

    def _set_length(self) -> None:
        """The length of the body is fixed by now, even if it came in chunks."""
        if "Transfer-Encoding" in self.headers:
            del self.headers["Transfer-Encoding"]
        elif "Content-Length" not in self.headers:
            return
        self.headers["Content-Length"] = str(self._length)


class _SentBody(httpx.ByteStream):
    """A large body that is sent piece by piece, as often as it has to be."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(b"")
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            for start in range(0, len(piece), _PIECE):
                yield bytes(piece[start : start + _PIECE])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class RedactedRequest(httpx.Request):
    """A request with a repr that shows no token."""

    def __repr__(self) -> str:
        return redacted(super().__repr__())

    @classmethod
    def of(cls, request: httpx.Request) -> httpx.Request:
        """The same request, with the same state. The original keeps its class."""
        if type(request) is not httpx.Request:
            return request
        copy = cls.__new__(cls)
        vars(copy).update(vars(request))
        return copy


class DiscordResponse(httpx.Response):
    """A response that allows an early look at its body. Its request and errors show no token."""

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        return cls(
            response.status_code, headers=response.headers, stream=response.stream, extensions=response.extensions
        )

    @property
    def request(self) -> httpx.Request:
        return super().request

    @request.setter
    def request(self, request: httpx.Request) -> None:
        self._request = request if isinstance(request, RedactedRequest) else RedactedRequest.of(request)

    def as_done(self) -> DiscordResponse:
        """The success that was lost: a 204 with the same limits."""
        headers = [(name, value) for name, value in self.headers.raw if not name.lower().startswith(b"content-")]
        return DiscordResponse(204, headers=headers, stream=_NoBody(self.stream), extensions=self.extensions)

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        try:
            async for chunk in super().aiter_raw(chunk_size):
                yield chunk
        except (httpx.TransportError, *BROKEN) as error:
            raise self._cut(error) from error

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        try:
            yield from super().iter_raw(chunk_size)
        except (httpx.TransportError, *BROKEN) as error:
            raise self._cut(error) from error

    def _cut(self, error: Exception) -> Exception:
        told = f"the answer has come, {self.status_code}, and the connection was lost within its body"
        return type(as_httpx(error))(redacted(f"{told}: {error or type(error).__name__}"))

    async def read_body(self) -> bytes:
        """The body, decoded. The response can still be read by others."""
        try:
            raw = b"".join([chunk async for chunk in self.stream])  # type: ignore[union-attr]
        except (httpx.TransportError, *BROKEN) as error:
            raise SendFailed(as_httpx(error), sent=True) from error
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
            message = redacted(str(error))
        else:
            return self
        raise httpx.HTTPStatusError(message, request=request, response=self)


class _NoBody(httpx.AsyncByteStream):
    """Nothing, in place of a body that nobody reads. Closing it closes that one."""

    def __init__(self, body: object) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        await self._body.aclose()  # type: ignore[attr-defined]


def as_httpx(error: Exception) -> Exception:
    """The same error as one of httpx or of Python, where it is one of anyio."""
    if isinstance(error, httpx.ConnectTimeout) and _may_have_arrived(error):
        return httpx.ReadError(str(error))
    if isinstance(error, (httpx.TransportError, ConnectionError)):
        return error
    return httpx.ReadError(f"the connection was lost: {type(error).__name__}")


def _may_have_arrived(error: Exception) -> bool:
    kinds = type(error.__cause__).__mro__
    if any(kind.__module__.startswith("aiohttp.") for kind in kinds):
        return not any(kind.__name__ in _NEVER_SENT_BY_AIOHTTP for kind in kinds)
    return not isinstance(error, _NEVER_SENT)


# The options of one request


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'extensions={{"{name}": ...}} must be a whole number, e.g. 10, not {value!r}')
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f'extensions={{"{name}": ...}} must be True or False, not {value!r}')
    return value


def _retries(value: object) -> int:
    retries = _whole(value, "retries")
    if retries < 0:
        raise ValueError(f'extensions={{"retries": ...}} must be a whole number from 0, e.g. 2, not {value!r}')
    return retries


def _positive(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f'extensions={{"{name}": ...}} must be seconds above 0, e.g. 2.5, not {value!r}')
    return float(value)


def _shorter(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise ValueError(f'extensions={{"reason": ...}} must be text of up to 512 characters, not {reason!r:.80}')
    return quote(reason, safe=" /", errors="replace")
