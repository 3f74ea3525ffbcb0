"""Events for observers: one for each decision, wait and outage, here and on the way out."""

from __future__ import annotations

import os
import threading
from asyncio import CancelledError
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, Literal, Protocol, final, get_args

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.listener import Call, Listener, is_coroutine_function
from asgi_ratelimit.slot import SlotCounts
from asgi_ratelimit.store_events import EventHook, StoreEvent
from asgi_ratelimit.store_events import emit as call_hook

__all__ = ["AnsweredBy", "Event", "EventKind", "Observer", "Observers", "observers_of"]

AnsweredBy = Literal["store", "cache", "fallback"]
EventKind = Literal[
    "allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "near", "waited", "shed", "gone", "owed",
    "lost", "escalated", "failed", "down", "recovered", "missed", "full", "spoilt",
    "wait", "response", "refused", "retry", "stopped", "banned", "invalid", "token", "webhook",
]  # fmt: skip

_KINDS: Final = get_args(EventKind)
_STORE_KINDS: Final[dict[str, EventKind]] = {"down": "down", "up": "recovered"}
_ANSWERED_BY: Final[dict[str, AnsweredBy]] = {"cached": "cache", "degraded": "fallback"}
_PROCESS_SECRET: Final = os.urandom(16)  # digests of a store in memory mean nothing elsewhere


@final
class Event:
    """One event. Every field has a default, so that a test of an observer needs only those that it is about.

    kind: of a decision "allowed", "limited", "blocked", "shadow" (it would have been refused; of soft limits see
        `decision.over`), "exempt" (nothing was counted) or "unavailable" (answered with 503, since the limit fails
        closed). "shed": LoadShedMiddleware has refused it. "gone": its caller left before there was a decision, or
        while it was held, and it is not charged. "near": at least 80 % of a limit are used. "waited": a call was let
        in, or sent, after `seconds`. "owed": a call has cost `cost` more than it was charged, and a bucket cannot owe
        all of that. "lost": the server has not answered a settlement or refund, so `cost` more (less, if negative) is
        not counted. "escalated": a block of `seconds` begins, after too many refusals of a key or failures of a log-in;
        with the cause "shadow" it would have. "failed": a log-in has failed. "down", "recovered", "missed", "full",
        "spoilt": as the kinds of StoreEvent. Of the way out: "wait" (a call is held back), "response" (an answer
        came), "refused" (it was a 429), "invalid" (401, 403 or 429: `checks` of the 10 000 in ten minutes that Discord
        bears), "retry", "stopped", "banned", "token", "webhook": as DiscordEvent
    limiter: the name of the limiter, or "discord"
    answered_by: "store", "cache" (a remembered refusal) or "fallback" (an outage)
    cost: of the call
    seconds: of a wait, an outage or a stop
    decision: None where none was made
    key: the key of the call. It may be a user or an address, so it is left out of the repr: use `key_digest`
    time: seconds since the Unix epoch, by the clock of the store
    node: the server of a store
    route: the template of a call to Discord, e.g. "POST /channels/{channel_id}/messages"
    status, cause, scope: of an answer, a wait or a 429 of Discord
    priority: the class of a request that was shed, 0 to 3
    checks: decisions that were made without the server; invalid requests in ten minutes
    """

    # Values are those of the class until they are set: each decision sets few of them.
    decision: Decision | None = None
    key: str = ""
    answered_by: AnsweredBy = "store"
    cost: int = 1
    seconds: float = 0.0
    time: float = 0.0
    node: str = ""
    route: str = ""
    status: int = 0
    cause: str = ""
    scope: str = ""
    priority: int = 1
    checks: int = 0
    secret: bytes = b""

    def __init__(self, kind: EventKind, limiter: str = "", **fields: Any) -> None:
        unknown = fields.keys() - _FIELDS
        if unknown:
            raise TypeError(f"an Event has no {min(unknown)!r}; its fields are {', '.join(sorted(_FIELDS))}")
        self.kind, self.limiter = kind, limiter
        self.__dict__.update(fields)

    @property
    def key_digest(self) -> str:
        """16 hex characters, the same for each event of a key; "" without a key. It does not show the key."""
        return _digest(self.key, self.secret) if self.key else ""

    def __repr__(self) -> str:
        fields = {name: value for name, value in vars(self).items() if name not in ("key", "secret")}
        return f"Event({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


_FIELDS: Final = {name for name in Event.__annotations__ if name not in ("kind", "limiter")}
_new = object.__new__
_Listeners = tuple[Call, ...]


class Observer(Protocol):
    """A plain function of an Event, or an object like one.

    It may have more attributes. `kinds`: the only kinds of events that it wants. `attach(clock)`: called with the
    clock of each of its stores. `introduce(node)`: called with the name of that store's server.
    `on_decision(kind, limiter, decision, key, wall, answered_by, secret)`: called in place of the observer itself for
    decisions; it saves the making of an event. `wall()` is the time of one. `on_in_flight(limiter, change)`: called
    with 1 when a call has taken a slot (see Concurrency), and with -1 when it has freed it. `is_quick`: true if its
    calls need not be timed.
    """

    def __call__(self, event: Event, /) -> object: ...


class Observers:
    """The observers of one store. No exception of theirs reaches a request.

    An observer that raises, takes more than 10 ms, or returns a coroutine is logged once. One that goes on like that is
    left out. While it is called it hears of no event that it causes itself.
    """

    def __init__(self, observers: Iterable[Observer], clock: Clock, secret: bytes | None = None) -> None:
        self._clock, self._wall = clock, clock.wall
        self.slots = SlotCounts()  # the calls that hold one
        self._secret = _PROCESS_SECRET if secret is None else secret[:64]
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()  # held while they change
        self._node = ""
        self.counts_allowed = False  # whether any of them counts allowed calls
        self._reports_near = False
        self._listeners_by: dict[str, _Listeners] = {}
        self._sort()
        for observer in observers:
            self.add(observer)

    def __len__(self) -> int:
        return len(self._listeners)

    def __contains__(self, observer: object) -> bool:
        return any(listener.observer is observer for listener in self._listeners)

    def add(self, observer: Observer) -> None:
        """Let it listen from now on. Raises ValueError if it is no plain function of an event."""
        if not callable(observer) or isinstance(observer, type) or is_coroutine_function(observer):
            raise ValueError(
                f"an observer is a plain function of an Event, e.g. Stats() or print, not {observer!r:.80}"
            )
        attach = getattr(observer, "attach", None)
        if attach is not None:
            attach(self._clock)
        with self._lock:
            listener = Listener(observer, _KINDS, self.remove, self._sort)
            self._listeners.append(listener)
            if listener.counts_slots:
                self.slots.listen(listener.change_in_flight)
            self._sort()
        listener.introduce(self._node)

    def remove(self, observer: Observer) -> None:
        """Let it listen no more."""
        with self._lock:
            for listener in self._listeners:
                if listener.observer is observer:
                    self.slots.forget(listener.change_in_flight)
            self._listeners = [listener for listener in self._listeners if listener.observer is not observer]
            self._sort()

    def introduce(self, node: str) -> None:
        """Name the server of the store to the observers that want it, also to later ones."""
        self._node = node
        for listener in list(self._listeners):
            listener.introduce(node)

    def digest(self, key: str) -> str:
        """The `key_digest` of this key in events of this store."""
        return _digest(key, self._secret)

    def listens_to(self, kind: EventKind) -> bool:
        """Whether any observer listens to this kind."""
        return bool(self._listeners_by[kind])

    def decided(self, limiter: str, decision: Decision, key: str, enforced: bool = True) -> None:
        """Tell of a decision about a key, and of a bucket that is nearly used up."""
        kind: EventKind = "allowed"
        if not decision.allowed:
            kind = _refusal(decision, enforced)
        elif decision.over:
            kind = "shadow"
        count, listeners = self._deciding_by[kind]
        if count is not None:
            special = decision.special
            answered_by: AnsweredBy = "store" if special is None else _ANSWERED_BY.get(special, "store")
            try:
                count(kind, limiter, decision, key, self._wall, answered_by, self._secret)
            except (Exception, CancelledError) as error:
                self._strike(count, error)
        if listeners:
            self._tell(listeners, kind, limiter, decision, key)
        if self._reports_near and kind == "allowed":
            parts = decision.several
            if decision.is_near() if parts else decision.policy.limit.is_near(decision.state, decision.now_us):
                self.emit(Event("near", limiter, decision=decision, key=key, cost=decision.cost))

    def _tell(self, listeners: _Listeners, kind: EventKind, limiter: str, decision: Decision, key: str) -> None:
        event, special = _new(Event), decision.special
        event.kind, event.limiter, event.decision, event.key = kind, limiter, decision, key
        event.cost, event.time, event.secret = decision.cost, self._wall(), self._secret
        event.answered_by = "store" if special is None else _ANSWERED_BY.get(special, "store")
        for listener in listeners:
            listener(event)

    def emit(self, event: Event) -> None:
        """Tell of any other event."""
        listeners = self._listeners_by[event.kind]
        if listeners:
            event.time, event.secret = self._wall(), self._secret
            for listener in listeners:
                listener(event)

    def with_hook(self, hook: EventHook | None) -> EventHook:
        """A hook for the events of a store: it calls the one of the user, and then the observers."""

        def tell(event: StoreEvent) -> None:
            call_hook(hook, event)
            kind: Any = _STORE_KINDS.get(event.kind, event.kind)
            details = {"node": event.node, "cause": event.cause, "seconds": event.seconds, "checks": event.checks}
            self.emit(Event(kind, "", **details))

        return tell

    def _strike(self, count: Call, error: BaseException) -> None:
        for listener in self._listeners:
            if listener.count == count:
                listener.strike(f"failed: {error!r}", error)

    def _sort(self) -> None:
        self._listeners_by = {kind: tuple([one.call for one in self._wanting(kind)]) for kind in get_args(EventKind)}
        # To make an event takes longer than to count the fields of a decision, so some observers get these instead.
        self._deciding_by = {kind: self._deciding(kind) for kind in self._listeners_by}
        self._reports_near = self.listens_to("near")
        self.counts_allowed = self.listens_to("allowed") or self._reports_near

    def _wanting(self, kind: str) -> list[Listener]:
        return [one for one in self._listeners if one.kinds is None or kind in one.kinds]

    def _deciding(self, kind: str) -> tuple[Call | None, _Listeners]:
        """What counts the decisions of a kind, and those that get an event of each."""
        counters = tuple([one.count for one in self._wanting(kind) if one.count is not None])
        listeners = tuple([one.call for one in self._wanting(kind) if one.count is None])
        if len(counters) < 2:
            return (counters[0] if counters else None), listeners

        def count_all(*fields: Any) -> None:
            for count in counters:
                try:
                    count(*fields)
                except (Exception, CancelledError) as error:
                    self._strike(count, error)

        return count_all, listeners


def observers_of(store: object) -> Observers:
    """The observers of a store. One that has no place for them has none."""
    observers = getattr(store, "observers", None)
    return observers if isinstance(observers, Observers) else _NOBODY


def _refusal(decision: Decision, enforced: bool) -> EventKind:
    if not enforced:
        return "shadow"
    return "blocked" if decision.is_block else "limited"


def _digest(key: str, secret: bytes) -> str:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=secret).hexdigest()


_NOBODY: Final = Observers((), SystemClock())
