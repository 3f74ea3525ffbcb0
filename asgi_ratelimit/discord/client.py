"""The client of a bot: an httpx.AsyncClient with Discord's paths and paced requests."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self, TypedDict, Unpack
from urllib.request import getproxies, proxy_bypass

import httpx

from asgi_ratelimit.discord.errors import EventHook
from asgi_ratelimit.discord.outgoing import USER_AGENT, RedactedRequest
from asgi_ratelimit.discord.pools import CONNECTIONS, RESERVE, bound_to_loop, pooled
from asgi_ratelimit.discord.redaction import redacted
from asgi_ratelimit.discord.scheduler import Waiting
from asgi_ratelimit.discord.transport import DiscordTransport
from asgi_ratelimit.discord.turns import Turns
from asgi_ratelimit.store import Store

__all__ = [
    "API",
    "CommonOptions",
    "DiscordClient",
    "HttpxOptions",
    "authorization_of",
    "check_json",
    "paced_transports",
]

API: Final = "https://discord.com/api/v10"
_TIMEOUT: Final = httpx.Timeout(5.0, read=30.0)  # Discord takes its time over big files and in busy minutes
_MANY: Final = 1_000_000
_INNER: Final = ("verify", "cert", "http1", "http2", "limits")


class CommonOptions(TypedDict, total=False):
    """The options of httpx that a client with and one without `await` pass on."""

    auth: httpx.Auth | tuple[str | bytes, str | bytes] | Callable[[httpx.Request], httpx.Request] | None
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    cookies: httpx.Cookies | Mapping[str, str] | Sequence[tuple[str, str]] | None
    default_encoding: str | Callable[[bytes], str]
    follow_redirects: bool
    headers: httpx.Headers | Mapping[str, str] | Sequence[tuple[str, str]] | None
    http1: bool
    http2: bool
    limits: httpx.Limits
    max_redirects: int
    mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None
    params: httpx.QueryParams | Mapping[str, str | int | float | bool | None] | Sequence[tuple[str, str]] | str | None
    proxy: str | httpx.URL | httpx.Proxy | None
    timeout: float | tuple[float | None, float | None, float | None, float | None] | httpx.Timeout | None
    transport: httpx.AsyncBaseTransport | None
    trust_env: bool
    verify: ssl.SSLContext | str | bool


class HttpxOptions(CommonOptions, total=False):
    """The options of httpx.AsyncClient that a DiscordClient passes on."""

    event_hooks: Mapping[str, list[Callable[..., Awaitable[object]]]] | None


class PacingOptions(TypedDict):
    """The options of a client's DiscordTransport."""

    store: Store | None
    global_limit: int
    max_wait: float | None
    max_retries: int
    min_remaining: int
    retry_unsafe: bool
    application_id: str | int | None
    ordered: bool
    egress: str
    on_event: EventHook | None


class DiscordClient(httpx.AsyncClient):
    """An httpx.AsyncClient for a bot: its paths are Discord's, its requests are paced, its token stays with Discord.

    token: the bot's, or "Bearer ..." for a user's; it is sent to the origin of `base_url` only
    base_url: where Discord is; requests to other origins go out as they are
    store: where buckets are stored: a RedisStore for several processes; a MemoryStore by default
    global_limit: requests of the token in any second
    max_wait: seconds that a request may wait for limits; None: any time
    max_retries: how often a request is sent again after a failure that is no 429
    min_remaining: so many of each bucket are left to others that use the token
    retry_unsafe: True: a POST or PATCH that may have arrived is sent again, also where no nonce makes that safe
    application_id: separates an interaction's follow-ups from ordinary webhooks
    ordered: POSTs to one channel or webhook arrive in the order in which they were made
    egress: the name of the address that requests come from
    on_event: called with each DiscordEvent
    httpx_options: those of httpx.AsyncClient: `transport` is the inner one; `limits` also bounds the calls in flight

    DiscordTransport describes these options in full. Raises ValueError for one that cannot be used.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str | httpx.URL = API,
        store: Store | None = None,
        global_limit: int = 50,
        max_wait: float | None = None,
        max_retries: int = 5,
        min_remaining: int = 0,
        retry_unsafe: bool = False,
        application_id: str | int | None = None,
        ordered: bool = False,
        egress: str = "default",
        on_event: EventHook | None = None,
        **httpx_options: Unpack[HttpxOptions],
    ) -> None:
        options: dict[str, Any] = dict(httpx_options)
        transport, mounts = paced_transports(
            authorization_of(token),
            base_url,
            options,
            store=store,
            global_limit=global_limit,
            max_wait=max_wait,
            max_retries=max_retries,
            min_remaining=min_remaining,
            retry_unsafe=retry_unsafe,
            application_id=application_id,
            ordered=ordered,
            egress=egress,
            on_event=on_event,
        )
        super().__init__(base_url=base_url, transport=transport, mounts=mounts, **options)
        if self.headers["User-Agent"].startswith("python-httpx"):
            self.headers["User-Agent"] = USER_AGENT
        self._pacing, self._turns = transport, Turns(is_ordered=ordered)

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait now, by route and resource, with the state of their buckets."""
        return self._pacing.waiting

    async def would_wait(self, method: str, url: httpx.URL | str, **options: Any) -> float:
        """The seconds that this request would have to wait, as far as is known now. Nothing is sent.

        The arguments are those of `build_request`. Raises DiscordError if it would not be sent at all.
        """
        return await self._pacing.would_wait(self.build_request(method, url, **options))

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """As httpx does it. Raises TypeError if `json` cannot be written as JSON."""
        try:
            return RedactedRequest.of(super().build_request(method, url, **options))
        except (TypeError, ValueError) as error:
            check_json(method, url, options.get("json"), error)
            raise

    async def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """As httpx does it. Of many that start at once, the first ones leave while the others are still built."""
        options["extensions"] = await self._turns.take(url, options.get("extensions"))
        return await super().request(method, url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: httpx.URL | str, **options: Any) -> AsyncIterator[httpx.Response]:
        """As httpx does it, and as `request` does."""
        options["extensions"] = await self._turns.take(url, options.get("extensions"))
        async with super().stream(method, url, **options) as response:
            yield response

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx does it. The request of an error shows no token."""
        try:
            return await super().send(request, **options)
        except httpx.RequestError as error:
            with suppress(RuntimeError):  # it has no request
                error.request = RedactedRequest.of(error.request)
            raise


class _Mounted(httpx.AsyncBaseTransport):
    """A transport that a user mounted for some addresses, paced like the rest."""

    def __init__(self, pacing: DiscordTransport, inner: httpx.AsyncBaseTransport) -> None:
        self._pacing, self._inner = pacing, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._pacing.send_through(self._inner, request)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def aclose(self) -> None:
        await self._inner.aclose()


# Options


def paced_transports(
    authorization: str | None, base_url: str | httpx.URL, options: dict[str, Any], **pacing: Unpack[PacingOptions]
) -> tuple[DiscordTransport, dict[str, httpx.AsyncBaseTransport | None]]:
    """The transport of a client, and those that its user mounted. What httpx's client may have is left in `options`.

    Raises ValueError for an option that cannot be used.
    """
    origin = _checked_address(base_url)
    if "Authorization" in httpx.Headers(options.get("headers")):
        raise ValueError("headers={'Authorization': ...} would go to strangers, too; give the token as token=")
    options.setdefault("timeout", _TIMEOUT)
    in_flight = _checked_connections(options.get("limits"))
    mounts: Mapping[str, httpx.AsyncBaseTransport | None] = options.pop("mounts", None) or {}
    transport = DiscordTransport(_inner_transport(options, origin), max_in_flight=in_flight, **pacing)
    transport.use_token(authorization, origin)
    return transport, {
        pattern: inner and _Mounted(transport, bound_to_loop(inner)) for pattern, inner in mounts.items()
    }


def check_json(method: str, url: httpx.URL | str, content: object, error: Exception) -> None:
    """Raise TypeError if that was the error: `json=` cannot be written as JSON."""
    if not _is_json(content):
        problem = redacted(f"{method} {url}: json= cannot be written as JSON: {error}")
        raise TypeError(f"{problem}. Give it dicts, lists, strings, numbers, bools and None.") from error


def authorization_of(token: object) -> str:
    """The header that proves it. Raises ValueError for one that Discord cannot have issued."""
    example = """the bot's token as a string, e.g. os.environ["DISCORD_TOKEN"]"""
    if not isinstance(token, str):
        raise ValueError(f"token must be {example}, not {'None' if token is None else f'a {type(token).__name__}'}")
    kind, _, secret = token.partition(" ") if token.startswith(("Bot ", "Bearer ")) else ("Bot", "", token)
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        flaw = "an empty one" if not secret else f"one with a blank or an odd character in its {len(token)}"
        raise ValueError(f"token must be {example}, not {flaw}")
    return f"{kind} {secret}"


def _checked_address(base_url: object) -> httpx.URL:
    rule = f"base_url must be an absolute address without a query, e.g. {API!r}"
    try:
        url = httpx.URL(base_url) if isinstance(base_url, (str, httpx.URL)) else None
    except httpx.InvalidURL as error:
        raise ValueError(f"{rule}: {error}") from None
    if url is None:
        raise ValueError(f"{rule}, not a {type(base_url).__name__}")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ValueError(f"{rule}, not {url!r}")  # its repr shows no password
    return url


def _checked_connections(limits: object) -> int:
    """The most calls at a time for which there are connections, but for the reserve of interactions."""
    if limits is None:
        return CONNECTIONS
    most = limits.max_connections if isinstance(limits, httpx.Limits) else 0
    if most == 0:
        raise ValueError(f"limits must be httpx's, e.g. httpx.Limits(max_connections=50), not {limits!r}")
    return _MANY if most is None else most - min(RESERVE, math.ceil(most / 10), most - 1)


def _inner_transport(options: dict[str, Any], origin: httpx.URL) -> httpx.AsyncBaseTransport:
    """The user's transport, else one with the user's options. Removes them from `options`."""
    transport: httpx.AsyncBaseTransport | None = options.pop("transport", None)
    proxy, trust_env = options.pop("proxy", None), options.get("trust_env", True)
    own = {name: options.pop(name) for name in _INNER if name in options}
    if transport is not None:
        if own or proxy is not None:
            names = ", ".join([*own, *(["proxy"] if proxy is not None else [])])
            raise ValueError(f"{names}: options of httpx's own transport, which transport= replaces; give one of them")
        return transport
    if proxy is None and trust_env:
        proxy = _proxy_of_the_environment(origin)
    return pooled(proxy=proxy, trust_env=trust_env, **own)


def _proxy_of_the_environment(origin: httpx.URL) -> str | None:
    proxies = getproxies()
    proxy = proxies.get(origin.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(origin.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_json(content: object) -> bool:
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        return False
    return True
