"""The bot: a DiscordClient on the app's store, and the Discord that it talks to, a fake one unless there is a token."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

import httpx

from asgi_ratelimit.discord import DiscordClient, DiscordEvent
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing import FakeBucket, FakeDiscord

__all__ = ["LIMIT", "Bot", "Bots", "Window", "ideal", "open_bots", "real_channel"]

Window = Literal["fixed", "sliding"]
Listener = Callable[[DiscordEvent], object]
Watcher = Callable[[httpx.Response | None], object]

ROUTE = "POST /channels/{channel_id}/messages"
COUNT, PERIOD = 5, 2.0  # the fake Discord's limit in each channel; the period is in seconds
LIMIT = f"{COUNT}/{PERIOD:g}s"
LATENCY = (0.04, 0.12)  # s, so that there is something to see

_channel_ids = itertools.count(10**17)


class Bot:
    """A client, and the fake that it talks to, if it is one."""

    def __init__(self, token: str, inner: httpx.AsyncBaseTransport, store: Store, fake: FakeDiscord | None) -> None:
        self._listeners: set[Listener] = set()
        self.fake, self.clock = fake, store.clock
        self.client = DiscordClient(token, store=store, transport=_Witness(inner), on_event=self._emit)

    @contextmanager
    def listen(self, listener: Listener) -> Iterator[None]:
        """Pass the client's events to the listener, too."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def post(self, channel: str, content: str, watcher: Watcher) -> httpx.Response:
        """Send a message. `watcher` is called with None each time that it leaves, and with each answer to it."""
        path = f"/channels/{channel}/messages"
        return await self.client.post(path, json={"content": content}, extensions={"witness": watcher})

    def _emit(self, event: DiscordEvent) -> None:
        for listener in tuple(self._listeners):
            listener(event)


@dataclass(frozen=True, slots=True)
class Bots:
    """The bots by kind of window, or a real one for both."""

    by_window: Mapping[Window, Bot]
    real_channel: str | None = None

    def channels(self, count: int) -> list[str]:
        """Of a fake Discord new ones, so that no burst starts with the windows that another one has used up."""
        return [self.real_channel] if self.real_channel else [str(next(_channel_ids)) for _ in range(count)]


def real_channel() -> str | None:
    """Where messages go for real: DISCORD_CHANNEL, if there is a DISCORD_TOKEN too."""
    return (os.environ.get("DISCORD_CHANNEL") or None) if os.environ.get("DISCORD_TOKEN") else None


@asynccontextmanager
async def open_bots(store: Store) -> AsyncIterator[Bots]:
    """The bots of one worker; they hang up at the end."""
    channel = real_channel()
    async with AsyncExitStack() as stack:
        if channel:
            real = Bot(os.environ["DISCORD_TOKEN"], httpx.AsyncHTTPTransport(), store, None)
            await stack.enter_async_context(real.client)
            yield Bots({"fixed": real, "sliding": real}, channel)
            return
        bots: dict[Window, Bot] = {"fixed": _faked("fixed", store), "sliding": _faked("sliding", store)}
        for bot in bots.values():
            await stack.enter_async_context(bot.client)
        yield Bots(bots)


def ideal(messages: int, channels: int, window: Window) -> float:
    """Seconds that the limits alone require. Answers that took no time would not be faster."""
    most = -(-messages // channels)  # in one channel
    if window == "fixed":
        return (most - 1) // COUNT * PERIOD
    return max(0, most - COUNT) * PERIOD / COUNT


def _faked(window: Window, store: Store) -> Bot:
    fake = FakeDiscord({ROUTE: FakeBucket(LIMIT, window=window)}, clock=store.clock, latency=LATENCY, record=False)
    # The token is this worker's alone, and so are its buckets: the fakes of other workers count for themselves.
    return Bot(secrets.token_urlsafe(24), httpx.ASGITransport(fake), store, fake)


class _Witness(httpx.AsyncBaseTransport):
    """Sees each request at the moment when it really leaves, and each answer, also those that are never passed on."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        watcher: Watcher = request.extensions.get("witness", lambda answer: None)
        watcher(None)
        response = await self._inner.handle_async_request(request)
        watcher(response)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()
