"""The tokens that calls bear: a scheduler for each, and the tokens and webhooks that Discord has rejected."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from operator import itemgetter
from typing import Final

from asgi_ratelimit.discord.errors import DiscordEvent, EventHook, TokenRejected, WebhookGone
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scheduler import CallLimits, Scheduler, Waiting
from asgi_ratelimit.discord.scopes import Scopes
from asgi_ratelimit.store import Store

__all__ = ["OPINION_S", "TokenRegistry", "TokenState"]

logger = logging.getLogger("asgi_ratelimit")

OPINION_S: Final = 10.0  # that a second opinion on a token may take
_MOST_TOKENS = 1_000
_MOST_WEBHOOKS = 10_000
_MOST_DOUBTS = 5
_TRUSTED_US = 60_000_000  # in which further 401s of a token ask for no second opinion
_REJECTED_US = 300_000_000  # after which a call may find out whether a token, or a webhook, is still dead


@dataclass(slots=True, eq=False)
class TokenState:
    """A token; or the address, for calls without one."""

    is_token: bool
    rejected_until_us: int = 0
    trusted_until_us: int = 0  # a second opinion has been good
    doubts: int = 0  # 401s since then
    opinion: asyncio.Future[None] | None = None  # it is being asked for, until then at the latest:
    opinion_due_us: int = 0
    scheduler: Scheduler = field(init=False)

    def opinion_s(self, now_us: int) -> float:
        """Seconds until the second opinion is there, at the latest."""
        return max(0, self.opinion_due_us - now_us) / 1e6


class TokenRegistry:
    """The tokens of a transport, the last thousand of them at least."""

    def __init__(self, store: Store, limits: CallLimits, egress: str, emit: EventHook) -> None:
        if not isinstance(egress, str) or not egress:
            raise ValueError(f'egress must name the address that calls come from, e.g. "default", not {egress!r}')
        self._store, self._limits, self._egress, self._emit = store, limits, egress, emit
        self._tokens: OrderedDict[str, TokenState] = OrderedDict()
        self.scopes = Scopes()
        self._mark = _MOST_TOKENS  # at so many, unused ones are forgotten
        self._gone: OrderedDict[str, int] = OrderedDict()  # webhooks, and until when nothing is sent there

    @property
    def waiting(self) -> list[Waiting]:
        return [queue for token in list(self._tokens.values()) for queue in token.scheduler.waiting]

    def of(self, authorization: str | None) -> TokenState:
        name = f"egress {self._egress}" if authorization is None else f"token {_digest(authorization)}"
        token = self._tokens.get(name)
        if token is None:
            self._make_room()
            token = self._tokens[name] = TokenState(authorization is not None)
            permits, check = permits_of(self._store, name), partial(self.check, token)
            token.scheduler = Scheduler(permits, self._store.clock, self._limits, self._emit, check, self.scopes)
        self._tokens.move_to_end(name)
        return token

    def scheduler_of(self, token: TokenState, route: Route) -> Scheduler:
        """The scheduler for calls of this token: the address's, while the route is limited by address."""
        scope = self.scopes.by_route.get(route.name) if token.is_token else None
        if scope is None or scope.crowded_until_us <= self._store.clock.now_us():
            return token.scheduler
        return self.of(None).scheduler

    def check(self, token: TokenState, route: Route) -> None:
        """Raises TokenRejected or WebhookGone for a call that Discord is sure to refuse."""
        if token.rejected_until_us and route.bears_token and not route.webhook:
            self._refuse_until(token.rejected_until_us, TokenRejected, route)
        if route.webhook and route.major in self._gone:
            self._refuse_until(self._gone[route.major], WebhookGone, route)

    def is_rejected(self, token: TokenState) -> bool:
        return self._store.clock.now_us() < token.rejected_until_us

    def doubt(self, token: TokenState) -> bool:
        """Count a 401. Returns whether it takes a second opinion: seldom, if one was good a moment ago."""
        token.doubts += 1
        is_trusted = token.doubts < _MOST_DOUBTS and self._store.clock.now_us() < token.trusted_until_us
        return not (is_trusted or self.is_rejected(token))

    def mark_trusted(self, token: TokenState) -> None:
        token.doubts = 0
        token.trusted_until_us = self._store.clock.now_us() + _TRUSTED_US

    def mark_rejected(self, token: TokenState, route: Route) -> None:
        token.rejected_until_us = self._store.clock.now_us() + _REJECTED_US
        token.scheduler.wake()
        logger.error(
            "Discord has rejected the token (401 at %s, and when it was asked again); nothing more is sent with it "
            "for %d s", route, _REJECTED_US // 1_000_000,
        )  # fmt: skip
        self._emit(DiscordEvent("token", str(route), _REJECTED_US / 1e6, status=401))

    def mark_webhook_gone(self, route: Route, status: int) -> None:
        self._gone[route.major] = self._store.clock.now_us() + _REJECTED_US
        if len(self._gone) > _MOST_WEBHOOKS:
            self._gone.popitem(last=False)
        for token in self._tokens.values():
            token.scheduler.wake(route.major)
        self._emit(DiscordEvent("webhook", str(route), _REJECTED_US / 1e6, status=status))

    async def aclose(self) -> None:
        await asyncio.gather(*(token.scheduler.aclose() for token in self._tokens.values()))

    def _refuse_until(self, until_us: int, error: type[TokenRejected | WebhookGone], route: Route) -> None:
        left_us = until_us - self._store.clock.now_us()
        if left_us > 0:
            raise error(route, left_us / 1e6)

    def _make_room(self) -> None:
        """Forget tokens without calls, the least recently used first and rejected ones last."""
        if len(self._tokens) < self._mark:
            return
        idle = [(name, self.is_rejected(token)) for name, token in self._tokens.items() if token.scheduler.is_idle]
        idle.sort(key=itemgetter(1))
        for name, _ in idle[: max(0, len(self._tokens) - _MOST_TOKENS // 2)]:
            del self._tokens[name]
        self._mark = max(_MOST_TOKENS, 2 * len(self._tokens))


def _digest(authorization: str) -> str:
    return blake2b(authorization.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
