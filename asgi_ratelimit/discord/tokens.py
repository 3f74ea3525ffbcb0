"""The tokens that calls bear: a scheduler for each, and the tokens and webhooks that Discord has rejected."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from inspect import iscoroutinefunction
from operator import itemgetter

from asgi_ratelimit.discord.errors import DiscordEvent, EventHook, TokenRejected, WebhookGone
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scheduler import CallLimits, Scheduler, Waiting
from asgi_ratelimit.store import Store

__all__ = ["TokenRegistry", "TokenState", "safe_hook"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_TOKENS = 1_000
_MOST_WEBHOOKS = 10_000


@dataclass(slots=True, eq=False)
class TokenState:
    """A token; or the address, for calls without one."""

    is_token: bool
    is_rejected: bool = False
    scheduler: Scheduler = field(init=False)


class TokenRegistry:
    """The tokens of a transport, the last thousand of them at least."""

    def __init__(self, store: Store, limits: CallLimits, egress: str, emit: EventHook) -> None:
        if not isinstance(egress, str) or not egress:
            raise ValueError(f'egress must name the address that calls come from, e.g. "default", not {egress!r}')
        if isinstance(store, type) or not (hasattr(store, "open") and hasattr(store, "clock")):
            raise ValueError(f"store must be a store such as MemoryStore(), not {store!r:.80}")
        self._store, self._limits, self._egress, self._emit = store, limits, egress, emit
        self._tokens: OrderedDict[str, TokenState] = OrderedDict()
        self._mark = _MOST_TOKENS  # at so many, unused ones are forgotten
        self._gone: OrderedDict[str, None] = OrderedDict()  # webhooks

    @property
    def waiting(self) -> list[Waiting]:
        return [queue for token in self._tokens.values() for queue in token.scheduler.waiting]

    def of(self, authorization: str | None) -> TokenState:
        name = f"egress {self._egress}" if authorization is None else f"token {_digest(authorization)}"
        token = self._tokens.get(name)
        if token is None:
            self._make_room()
            token = self._tokens[name] = TokenState(authorization is not None)
            permits, check = permits_of(self._store, name), partial(self.check, token)
            token.scheduler = Scheduler(permits, self._store.clock, self._limits, self._emit, check)
        self._tokens.move_to_end(name)
        return token

    def check(self, token: TokenState, route: Route) -> None:
        """Raises TokenRejected or WebhookGone for a call that Discord is sure to refuse."""
        if token.is_rejected and not (route.webhook or route.exempt):
            raise TokenRejected(route)
        if route.webhook and route.major in self._gone:
            raise WebhookGone(route)

    def mark_rejected(self, token: TokenState, route: Route) -> None:
        if not token.is_rejected:
            token.is_rejected = True
            token.scheduler.wake()
            logger.error("Discord has rejected the token (401 at %s); nothing more is sent with it", route)
            self._emit(DiscordEvent("token", str(route), status=401))

    def mark_webhook_gone(self, route: Route, status: int) -> None:
        self._gone[route.major] = None
        if len(self._gone) > _MOST_WEBHOOKS:
            self._gone.popitem(last=False)
        for token in self._tokens.values():
            token.scheduler.wake(route.major)
        self._emit(DiscordEvent("webhook", str(route), status=status))

    async def aclose(self) -> None:
        await asyncio.gather(*(token.scheduler.aclose() for token in self._tokens.values()))

    def _make_room(self) -> None:
        """Forget tokens without calls, the least recently used first and rejected ones last."""
        if len(self._tokens) < self._mark:
            return
        idle = [(name, token.is_rejected) for name, token in self._tokens.items() if token.scheduler.is_idle]
        idle.sort(key=itemgetter(1))
        for name, _ in idle[: max(0, len(self._tokens) - _MOST_TOKENS // 2)]:
            del self._tokens[name]
        self._mark = max(_MOST_TOKENS, 2 * len(self._tokens))


def safe_hook(on_event: EventHook | None) -> EventHook:
    """A function that calls `on_event`, and logs its exceptions instead of raising them.

    Raises ValueError if it cannot be called, or is a coroutine function.
    """
    if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
        raise ValueError(
            f"on_event must be a plain function of a DiscordEvent, e.g. on_event=print, not {on_event!r:.80}"
        )

    def emit(event: DiscordEvent) -> None:
        if on_event is None:
            return
        try:
            on_event(event)
        except Exception:
            logger.exception("on_event failed at %r", event)

    return emit


def _digest(authorization: str) -> str:
    return blake2b(authorization.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
