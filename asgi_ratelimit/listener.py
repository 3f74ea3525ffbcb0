"""One observer: its failures are logged, and after too many of them it is left out."""

from __future__ import annotations

import logging
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Collection, Iterable
from inspect import iscoroutine, iscoroutinefunction
from typing import Any, Final

from asgi_ratelimit.shown import shown

__all__ = ["Call", "Listener", "is_coroutine_function"]

logger = logging.getLogger("asgi_ratelimit")

Call = Callable[..., object]

_SLOW_S: Final = 0.01  # an observer that takes longer holds up every request
_STRIKE, _MOST_STRIKES = 100, 1_000  # each good call takes one point away, so ten failures in a row are too many


class Listener:
    """An observer, and how often it has failed lately. A quick one is watched from its first failure on.

    kinds: the kinds of events that there are
    leave_out, on_change: called with the observer after too many failures, and when `call` and `count` have changed
    """

    def __init__(
        self,
        observer: Call,
        kinds: Collection[str],
        leave_out: Callable[[Call], None],
        on_change: Callable[[], None],
    ) -> None:
        self.observer, self._leave_out, self._on_change = observer, leave_out, on_change
        self.kinds = _kinds_of(observer, kinds)
        self._on_decision: Call | None = getattr(observer, "on_decision", None)
        self._on_in_flight: Call | None = getattr(observer, "on_in_flight", None)
        self._is_watched = not getattr(observer, "is_quick", False)
        self._inside: set[int] = set()  # the threads that it is called by
        self._strikes = 0
        self._was_logged = False

    @property
    def counts_slots(self) -> bool:
        """Whether it wants to hear of slots."""
        return self._on_in_flight is not None

    def change_in_flight(self, limiter: str, change: int) -> None:
        """Report calls that have taken a slot, or freed it."""
        if self._on_in_flight is not None:
            self._watch(self._on_in_flight, limiter, change)

    @property
    def call(self) -> Call:
        """What is called with an event."""
        return self._call if self._is_watched else self._call_quick

    @property
    def count(self) -> Call | None:
        """What is called with the fields of a decision, if it takes these."""
        return self._count if self._on_decision is not None and self._is_watched else self._on_decision

    def introduce(self, node: str) -> None:
        """Name a server to an observer that wants it."""
        introduce = getattr(self.observer, "introduce", None)
        if introduce is not None and node:
            self._watch(introduce, node)

    def _call_quick(self, event: object) -> None:
        try:
            self.observer(event)
        except (Exception, CancelledError) as error:
            self.strike(f"failed: {error!r}", error)

    def _call(self, event: object) -> None:
        self._watch(self.observer, event)

    def _count(self, *fields: Any) -> None:
        if self._on_decision is not None:
            self._watch(self._on_decision, *fields)

    def _watch(self, call: Callable[..., object], *arguments: Any) -> None:
        thread = threading.get_ident()
        if thread in self._inside:
            return
        self._inside.add(thread)
        started = time.perf_counter()
        try:
            result = call(*arguments)
        except (Exception, CancelledError) as error:  # of a future that it reads, for no task is cancelled here
            self.strike(f"failed: {error!r}", error)
            return
        finally:
            self._inside.discard(thread)
        seconds = time.perf_counter() - started
        if iscoroutine(result):
            result.close()
            self.strike("returned a coroutine, which is never awaited: it has to be a plain function", None)
        elif seconds > _SLOW_S:
            self.strike(f"took {seconds:.3f} s, which holds up every request", None)
        elif self._strikes:
            self._strikes -= 1

    def strike(self, fault: str, error: BaseException | None) -> None:
        """Count a failure, and log the first one."""
        self._strikes += _STRIKE
        if not self._is_watched:
            self._is_watched = True
            self._on_change()
        if self._strikes >= _MOST_STRIKES:
            self._leave_out(self.observer)
            logger.error("the observer %s is left out from now on: it %s", shown(self.observer), fault)
        elif not self._was_logged:
            self._was_logged = True
            logger.warning("the observer %s %s", shown(self.observer), fault, exc_info=error)


def is_coroutine_function(observer: Call) -> bool:
    """Whether it is one, or an object with one as its `__call__`."""
    return iscoroutinefunction(observer) or iscoroutinefunction(type(observer).__call__)


def _kinds_of(observer: object, possible: Collection[str]) -> frozenset[str] | None:
    """The kinds that an observer wants; None: all. Raises ValueError if one of them does not exist."""
    kinds = getattr(observer, "kinds", None)
    if kinds is None:
        return None
    is_list = isinstance(kinds, Iterable) and not isinstance(kinds, (str, bytes))
    wanted = frozenset(kinds if is_list else [kinds])
    unknown = sorted(map(repr, wanted.difference(possible)))
    if unknown or not is_list:
        wrong = ", ".join(unknown) or repr(kinds)
        raise ValueError(
            f'the kinds of an observer are kinds of events, e.g. frozenset({{"limited"}}), not {wrong:.80}'
        )
    return wanted
