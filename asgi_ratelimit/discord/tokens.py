"""Whose calls they are: for each token its own pacer, and what Discord has said to be dead."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from inspect import iscoroutinefunction
from operator import itemgetter

from asgi_ratelimit.discord.errors import DiscordEvent, Tell, TokenRejected, WebhookGone
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.discord.scheduler import Pace, Pacer, Waiting
from asgi_ratelimit.store import Store

__all__ = ["Owner", "Owners", "careful"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_OWNERS = 1_000
_MOST_WEBHOOKS = 10_000


@dataclass(slots=True, eq=False)
class Owner:
    """A token, or the address where a call bears none."""

    pacer: Pacer = field(init=False)
    is_dead: bool = False


class Owners:
    """The tokens that a transport has met, the last thousand of them at least."""

    def __init__(self, store: Store, pace: Pace, egress: str, tell: Tell) -> None:
        if not isinstance(egress, str) or not egress:
            raise ValueError(f'egress must name the address that calls come from, e.g. "default", not {egress!r}')
        if isinstance(store, type) or not (hasattr(store, "open") and hasattr(store, "clock")):
            raise ValueError(f"store must be a store such as MemoryStore(), not {store!r:.80}")
        self._store, self._pace, self._egress, self._tell = store, pace, egress, tell
        self._owners: OrderedDict[str, Owner] = OrderedDict()
        self._mark = _MOST_OWNERS  # how many there may be before some are forgotten
        self._gone: OrderedDict[str, None] = OrderedDict()  # webhooks

    @property
    def waiting(self) -> list[Waiting]:
        return [line for owner in self._owners.values() for line in owner.pacer.waiting]

    def of(self, authorization: str | None) -> Owner:
        name = f"egress {self._egress}" if authorization is None else f"token {_digest(authorization)}"
        owner = self._owners.get(name)
        if owner is None:
            self._make_room()
            owner = self._owners[name] = Owner()
            leases, check = permits_of(self._store, name), partial(self.check, owner)
            owner.pacer = Pacer(leases, self._store.clock, self._pace, self._tell, check)
        self._owners.move_to_end(name)
        return owner

    def check(self, owner: Owner, route: Route) -> None:
        """TokenRejected or WebhookGone for a call that Discord is sure to refuse."""
        if owner.is_dead and not (route.webhook or route.exempt):
            raise TokenRejected(route)
        if route.webhook and route.major in self._gone:
            raise WebhookGone(route)

    def bury_token(self, owner: Owner, route: Route) -> None:
        if not owner.is_dead:
            owner.is_dead = True
            owner.pacer.wake()
            logger.error("Discord has rejected the token (401 at %s); nothing more is sent with it", route)
            self._tell(DiscordEvent("token", str(route), status=401))

    def bury_webhook(self, route: Route, status: int) -> None:
        self._gone[route.major] = None
        if len(self._gone) > _MOST_WEBHOOKS:
            self._gone.popitem(last=False)
        for owner in self._owners.values():
            owner.pacer.wake(route.major)
        self._tell(DiscordEvent("webhook", str(route), status=status))

    async def aclose(self) -> None:
        await asyncio.gather(*(owner.pacer.aclose() for owner in self._owners.values()))

    def _make_room(self) -> None:
        """Forget those that were not in use for longest, dead ones last."""
        if len(self._owners) < self._mark:
            return
        idle = [(name, owner.is_dead) for name, owner in self._owners.items() if owner.pacer.is_idle]
        idle.sort(key=itemgetter(1))
        for name, _ in idle[: max(0, len(self._owners) - _MOST_OWNERS // 2)]:
            del self._owners[name]
        self._mark = max(_MOST_OWNERS, 2 * len(self._owners))


def careful(tell: Tell | None) -> Tell:
    """`tell`, of which no failure reaches a call. ValueError if it cannot be called, or is a coroutine function."""
    if tell is not None and (not callable(tell) or iscoroutinefunction(tell)):
        raise ValueError(f"on_event must be a plain function of a DiscordEvent, e.g. on_event=print, not {tell!r:.80}")

    def told(event: DiscordEvent) -> None:
        if tell is None:
            return
        try:
            tell(event)
        except Exception:
            logger.exception("on_event failed at %r", event)

    return told


def _digest(authorization: str) -> str:
    return blake2b(authorization.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
