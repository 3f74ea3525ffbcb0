"""Limiters as an operator sees them, where their own keys say nothing: each with a word about it, and readable keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.store import PerStore, Store

__all__ = ["Operated", "let_operate", "operated_in"]


class Operated(Protocol):
    """It stands for the limiters of its name.

    about: its purpose in a few words
    """

    name: str
    about: str

    @property
    def limits(self) -> Sequence[Limit]:
        """The limits that decide."""
        ...

    def key_of(self, written: str) -> str:
        """The key in the store that belongs to the words of an operator, e.g. to the name of an account."""
        ...

    async def peek(self, key: str, *, per: str = "") -> Decision:
        """The decision about a call that would come now, without a charge."""
        ...

    async def reset(self, key: str, *, per: str = "") -> None:
        """Forget everything about the key."""
        ...

    async def block(self, key: str, seconds: float) -> None:
        """Refuse the key for so many seconds."""
        ...


_operated: PerStore[WeakValueDictionary[str, Operated]] = PerStore(lambda store: WeakValueDictionary())


def let_operate(store: Store, operated: Operated) -> None:
    """Let it stand for the limiters of its name in this store, for as long as it exists."""
    _operated.of(store)[operated.name] = operated


def operated_in(store: Store) -> dict[str, Operated]:
    """Those of this process in this store, by name."""
    return dict(_operated.of(store))
