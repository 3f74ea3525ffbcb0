"""The limiters of one door in one store."""

from __future__ import annotations

from collections import OrderedDict

from asgi_ratelimit.escalation import Escalate
from asgi_ratelimit.events import Event, observers_of
from asgi_ratelimit.inbound.refusal_count import RefusalCount
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.store import PerStore, Store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["LimiterCache"]

_MOST_LIMITERS = 1_000

_doors: PerStore[dict[str, tuple[Limit, ...]]] = PerStore(lambda store: {})  # the limits of each door, by name


class LimiterCache:
    """One limiter per list of limits: the fixed one of a door, or those that its limit function returned last."""

    def __init__(
        self,
        store: Store,
        name: str,
        fixed: tuple[Limit, ...] | None,
        *,
        global_name: str | None = None,
        escalate: Escalate | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f'the name of a limiter is a string such as "search", not {name!r}')
        self.store, self.name = store, name
        self.observers = observers_of(store)
        self._global_name = global_name
        self.fixed = None if fixed is None else self._make(fixed)
        self.refusals = None if escalate is None else RefusalCount(escalate, store, name)
        self._limiters: OrderedDict[tuple[Limit, ...], Limiter] = OrderedDict()

    def of(self, limits: tuple[Limit, ...]) -> Limiter:
        """The limiter of these limits."""
        limiter = self._limiters.get(limits)
        if limiter is None:
            limiter = self._limiters[limits] = self._make(limits)
            if len(self._limiters) > _MOST_LIMITERS:
                self._limiters.popitem(last=False)
        return limiter

    def report_exempt(self, key: str = "") -> None:
        """Report a request that is not counted."""
        if self.observers.listens_to("exempt"):
            self.observers.emit(Event("exempt", self.name, key=key))

    def introduce(self, warn_once: WarnOnce) -> None:
        """Warn if another door of the same store has this name and other limits."""
        if self.fixed is not None:
            limits = _doors.of(self.store).setdefault(self.name, self.fixed.limits)
            if limits != self.fixed.limits:
                others = [str(limit) for limit in limits]
                warn_once.warn(
                    "ARL101",
                    f"{self.fixed!r} and {others} share the buckets of the same kind and period, and no others. A "
                    "request that passes both is charged twice there. Give one of the doors another name=.",
                )

    def _make(self, limits: tuple[Limit, ...]) -> Limiter:
        return Limiter(limits, store=self.store, name=self.name, global_name=self._global_name)
