"""The client for threads: an httpx.Client, paced as DiscordClient is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Unpack

import httpx

from asgi_ratelimit.discord.client import API, CommonOptions, authorization_of, check_json, paced_transports
from asgi_ratelimit.discord.errors import EventHook
from asgi_ratelimit.discord.outgoing import USER_AGENT, RedactedRequest
from asgi_ratelimit.discord.scheduler import Waiting
from asgi_ratelimit.discord.sync_transport import SyncTransport
from asgi_ratelimit.store import Store

__all__ = ["SyncDiscordClient", "SyncHttpxOptions"]


class SyncHttpxOptions(CommonOptions, total=False):
    """The options of httpx.Client that a SyncDiscordClient passes on. Its transports are asynchronous ones."""

    event_hooks: Mapping[str, list[Callable[..., object]]] | None


class SyncDiscordClient(httpx.Client):
    """A DiscordClient for threads: an httpx.Client, whose calls return without `await`.

    Any number of threads may use one client. Its calls run in an event loop in a daemon thread, which all SyncLimiters
    and SyncDiscordClients of the process share. A forked process has a loop and connections of its own. `close` ends
    the calls that wait, with a RuntimeError for each.

    The options are those of DiscordClient. `transport` and `mounts` are asynchronous transports. Hooks are plain
    functions; `on_event` is called in the loop's thread. Raises ValueError for an option that cannot be used.
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
        **httpx_options: Unpack[SyncHttpxOptions],
    ) -> None:
        options: dict[str, Any] = dict(httpx_options)
        pacing, mounts = paced_transports(
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
        transport = SyncTransport(pacing, pacing.store)
        mounted: dict[str, httpx.BaseTransport | None] = {
            pattern: None if inner is None else SyncTransport(inner, pacing.store) for pattern, inner in mounts.items()
        }
        super().__init__(base_url=base_url, transport=transport, mounts=mounted, **options)
        if self.headers["User-Agent"].startswith("python-httpx"):
            self.headers["User-Agent"] = USER_AGENT
        self._pacing, self._sync = pacing, transport

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait now, by route and resource, with the state of their buckets."""
        return self._sync.run(self._waiting)

    def would_wait(self, method: str, url: httpx.URL | str, **options: Any) -> float:
        """The seconds that this request would have to wait, as far as is known now. Nothing is sent.

        The arguments are those of `build_request`. Raises DiscordError if it would not be sent at all.
        """
        request = self.build_request(method, url, **options)
        request.read()
        return self._sync.run(partial(self._pacing.would_wait, request))

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """As httpx does it. Raises TypeError if `json` cannot be written as JSON."""
        try:
            return RedactedRequest.of(super().build_request(method, url, **options))
        except (TypeError, ValueError) as error:
            check_json(method, url, options.get("json"), error)
            raise

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As httpx does it. The request of an error shows no token."""
        try:
            return super().send(request, **options)
        except httpx.RequestError as error:
            with suppress(RuntimeError):  # it has no request
                error.request = RedactedRequest.of(error.request)
            raise

    async def _waiting(self) -> list[Waiting]:
        return self._pacing.waiting
