"""The state of the page, as often as it changes. All open pages of a process share one look at the counts."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.admin.limiters import LimitersInUse
from asgi_ratelimit.admin.view import DiscordSource, LimiterCount, state_of_page, waiting_for_discord
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.observe.snapshot import Snapshot
from asgi_ratelimit.store import Store

__all__ = ["EventStream", "Feed"]

logger = logging.getLogger("asgi_ratelimit")

_STREAM_S = 120.0  # a stream ends, and the browser opens another: it has to be let in again
_PATIENCE_S = 15.0  # with a reader that takes nothing, such as a computer that sleeps


class EventStream(EventSourceResponse):
    """The events as a response. It ends if its reader takes nothing for a while: else it would wait for ever."""

    def __init__(
        self,
        events: AsyncIterator[dict[str, Any]],
        *,
        headers: Mapping[str, str] | None = None,
        patience: float = _PATIENCE_S,
    ) -> None:
        super().__init__(events, headers=headers, send_timeout=patience)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* TimeoutError:
            logger.debug("an open operator's page takes nothing any more: its event stream ends")


class Feed:
    """The states of the page.

    every: seconds between two looks
    """

    def __init__(
        self, store: Store, stats: LimiterCount, limiters: LimitersInUse, discord: DiscordSource | None, every: float
    ) -> None:
        self._store, self._stats, self._limiters, self._discord = store, stats, limiters, discord
        self._every = every
        self._state: dict[str, Any] = {}
        self._text, self._version = "", 0  # the state as JSON, written once for all pages, and how often it has changed
        self._looked_us: int | None = None

    async def state(self) -> dict[str, Any]:
        """The newest state, no older than half the time between two looks."""
        now_us = self._store.clock.now_us()
        if self._looked_us is None or not 0 <= now_us - self._looked_us < self._every * 5e5:
            snapshot = await self._counted()
            waiting = None if self._discord is None else waiting_for_discord(self._discord)
            self._note(state_of_page(snapshot, self._limiters.limits(), self._limiters.about(), waiting))
            self._looked_us = now_us
        return self._state

    def _note(self, state: dict[str, Any]) -> None:
        if {**self._state, "time": 0} != {**state, "time": 0}:
            self._version += 1
        self._state, self._text = state, json.dumps(state)

    async def _counted(self) -> Snapshot:
        """The counts of all processes; those of this one while the store is out of reach."""
        try:
            return await self._stats.share(self._store)
        except StoreUnavailable as error:
            logger.debug("the operator's page has the counts of one process only: %s", error)
            return self._stats.snapshot()

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Each state that differs from the last, as events for sse-starlette. It ends after a while."""
        last = 0
        for _ in range(max(1, round(_STREAM_S / self._every))):
            await self.state()
            if self._version != last:
                last = self._version
                yield {"event": "state", "data": self._text, "retry": 1000}
            await self._store.clock.sleep(self._every)
        yield {"event": "over", "data": "", "retry": 1}
