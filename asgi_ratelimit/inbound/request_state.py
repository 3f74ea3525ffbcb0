"""The decisions about one request. They stand in its scope, so that every door can read them and add its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from inspect import isawaitable
from typing import Any

import anyio
from starlette.types import Message

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.inbound.headers import (
    HeaderStyle,
    RawHeaders,
    discord_headers,
    ietf_headers,
    retry_after_header,
)
from asgi_ratelimit.inbound.uncancelled import to_its_end
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.store import Store

__all__ = ["STATE", "RefundRule", "RequestState", "give_back", "merge_headers", "settle_charge", "state_of"]

logger = logging.getLogger("asgi_ratelimit")

RefundRule = Callable[[int], bool | Awaitable[bool]]  # of the response's status

STATE = "asgi_ratelimit"  # its key in the scope


class RequestState:
    """The decisions about one request, and the style in which its response reports them."""

    # Values are those of the class until they are set: each request has a state, and sets few of them.
    store: Store | None = None  # of the innermost middleware; its routes use it too
    style: HeaderStyle | None = None  # of the outermost middleware that writes headers
    charges: tuple[tuple[Limiter | None, Decision], ...] = ()  # the decisions, each with the limiter that made it
    middleware_count = 0  # the first charges, which are those of middleware
    refused_by: Decision | None = None
    is_watched = False  # whether a middleware sees the start of the response
    has_started = False  # whether the response has started
    is_open = False  # whether it is a WebSocket that the app has accepted, and has not closed
    slots: tuple[tuple[Limiter, Decision], ...] = ()  # the decisions that hold one (see Concurrency)
    free: tuple[Decision, ...] = ()  # those of them that cost nothing else; they are refunded at the end
    has_trailers = False  # whether the response ends with them
    refunds: tuple[tuple[Decision, RefundRule], ...] = ()  # those that wait for the status

    @property
    def decisions(self) -> list[Decision]:
        """The decisions, in the order in which they were made."""
        return [decision for _, decision in self.charges]

    def repeats(self) -> bool:
        """Whether the last decision has charged a bucket that an earlier one had charged already."""
        *others, (limiter, decision) = self.charges
        if limiter is None or not decision.allowed:
            return False
        earlier = {
            (part.bucket, part.bucket_key)
            for other, one in others
            if other is not None and other.store is limiter.store
            for part in one.parts
        }
        return not earlier.isdisjoint((part.bucket, part.bucket_key) for part in decision.parts)

    def has_missed(self, store: Store) -> bool:
        """Whether a decision about this request was made without the server of that store."""
        return any(
            decision.reason == "degraded" and limiter is not None and limiter.store is store
            for limiter, decision in self.charges
        )

    def limiter_of(self, decision: Decision) -> Limiter | None:
        """The limiter that has made a decision which still stands; None: it was given back or settled."""
        return next((limiter for limiter, one in self.charges if one is decision), None)

    def replace(self, decision: Decision, settled: Decision) -> None:
        """Report a decision in another form: its charge is not what it was."""
        self.charges = tuple((limiter, settled if one is decision else one) for limiter, one in self.charges)

    def report(self, refusal: Decision) -> None:
        """Report the refusal of a limiter that the app has asked itself."""
        self.charges, self.refused_by = ((None, refusal),), refusal

    async def undo(self) -> None:
        """Give back every charge: a refused request is charged by none. The response reports the refusal alone."""
        await self._undo(len(self.charges))

    async def refund_middleware(self) -> None:
        """Give back the charges of all middleware. The response does not report them any more."""
        await self._undo(self.middleware_count)

    async def _undo(self, count: int) -> None:
        charges, self.charges = self.charges[:count], self.charges[count:]
        self.middleware_count = max(0, self.middleware_count - count)
        for limiter, decision in charges:
            if limiter is not None:
                await give_back(limiter, decision)

    async def refund_by(self, status: int) -> None:
        """Give back the charges that this status does not cost. The response reports their buckets without them."""
        refunds, self.refunds = self.refunds, ()
        for decision, rule in refunds:
            limiter = self.limiter_of(decision)
            if limiter is None:
                continue
            answer = rule(status)
            if isawaitable(answer):
                await to_its_end(self._refund_later(limiter, decision, answer))
            elif answer:
                await self._refund(limiter, decision)

    async def _refund_later(self, limiter: Limiter, decision: Decision, answer: Awaitable[bool]) -> None:
        if await answer:
            await self._refund(limiter, decision)

    async def _refund(self, limiter: Limiter, decision: Decision) -> None:
        self.replace(decision, decision.as_settled(0))
        if limiter.holds:  # its slot is needed for as long as the response goes on
            self.free += (decision,)
        else:
            await give_back(limiter, decision)

    def hold(self, limiter: Limiter, decision: Decision) -> None:
        """Note a decision that holds slots until the end of the request."""
        self.slots += ((limiter, decision),)

    async def release(self) -> None:
        """Free the slots that the request has held, at its end. All of them, even if it is cancelled meanwhile."""
        while self.slots:
            (limiter, decision), *others = self.slots
            self.slots = tuple(others)
            try:
                await self._end(limiter, decision)
            finally:
                if self.slots:
                    await self.release()

    async def _end(self, limiter: Limiter, decision: Decision) -> None:
        if any(decision is one for one in self.free):
            await give_back(limiter, decision)
        else:
            with anyio.CancelScope(shield=True):
                await limiter.release(decision)

    def start(self, message: Message, wall: float) -> Message:
        """The message that starts the response, with the headers."""
        self.has_started = True
        if not self.charges:
            return message
        message = dict(message)  # it may be a constant of the app's
        message["headers"] = merge_headers(message.get("headers") or (), self.headers(self.style, wall))
        return message

    @property
    def shown(self) -> Decision | None:
        """The bucket of Discord's headers: the one that refused, else the one with the fewest remaining."""
        if self.refused_by is not None:
            return self.refused_by
        # Slots come and go with the requests of others: a client that planned by them would wait for a whole lease.
        decisions = [decision for _, decision in self.charges if not decision.policy.limit.holds]
        return min(decisions, key=lambda d: d.remaining) if decisions else None

    def headers(self, style: HeaderStyle | None, wall: float) -> RawHeaders:
        """The headers of a response to this request in that style."""
        if style == "discord" and self.refused_by is None and len(self.charges) == 1 and not self.slots:
            return discord_headers(self.charges[0][1], wall)
        shown = self.shown
        if shown is None:
            return []
        refused = self.refused_by is not None
        headers: RawHeaders = []
        if style in ("discord", "both"):
            headers += discord_headers(shown, wall, refused)
        if style in ("ietf", "both"):
            headers += ietf_headers(self.decisions, self.refused_by)
        if refused:
            headers.append(retry_after_header(shown))
        return headers


async def give_back(limiter: Limiter, decision: Decision) -> None:
    """Refund a decision, even if the request is cancelled. During an outage it is lost: no request fails for it."""
    try:
        with anyio.CancelScope(shield=True):
            await limiter.refund(decision)
    except StoreUnavailable as error:
        logger.debug("a refund is lost: %s", error)


async def settle_charge(limiter: Limiter, decision: Decision, used: int) -> None:
    """Settle a decision, even if the request is cancelled. During an outage the charge stays as it was."""
    try:
        with anyio.CancelScope(shield=True):
            await limiter.settle(decision, used)
    except StoreUnavailable as error:
        logger.debug("a settlement is lost: %s", error)


def state_of(scope: MutableMapping[str, Any]) -> RequestState:
    """The state of a request, made if it has none."""
    state = scope.get(STATE)
    if type(state) is not RequestState:
        state = scope[STATE] = RequestState()
    return state


def merge_headers(headers: Iterable[tuple[bytes, bytes]], ours: RawHeaders) -> RawHeaders:
    """The response's own headers, then ours. A header of ours that it carries already is left out."""
    present = [*headers]
    for name, _ in present:
        if name in _OURS or not name.islower():
            return _without_twins(present, ours)
    present += ours
    return present


def _without_twins(present: RawHeaders, ours: RawHeaders) -> RawHeaders:
    names = {name.lower() for name, _ in present}
    if (names - {b"retry-after"}) & _OURS:
        ours = [header for header in ours if header[0] == b"retry-after"]
    return present + [header for header in ours if header[0] not in names]


_NAMES = (
    *(f"x-ratelimit-{part}" for part in ("limit", "remaining", "reset", "reset-after", "bucket", "scope", "global")),
    *("ratelimit", "ratelimit-policy", "retry-after"),
)
_OURS = frozenset(name.encode("ascii") for name in _NAMES)
