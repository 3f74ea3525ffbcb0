"""The limiters that the page shows and acts on: those of this process that use the store."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.events import observers_of
from asgi_ratelimit.limiter import Limiter, limiters_of
from asgi_ratelimit.operated import Operated, operated_in
from asgi_ratelimit.store import Store

__all__ = ["LimitersInUse", "Part"]

Part = dict[str, object]

_MOST_LISTS = 50  # of limits under one name: a limit function may have returned one for each user


class LimitersInUse:
    """The limiters of one store, by name. A name may have several: one for each result of a limit function.

    Something else may stand for a limiter: then a key is written as people know it, e.g. the name of an account.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted({limiter.name for limiter in limiters_of(self._store)} | operated_in(self._store).keys())

    def limits(self) -> dict[str, list[str]]:
        """The limits under each name, as text."""
        texts: dict[str, dict[str, None]] = {}
        operated = operated_in(self._store)
        limiters = [one for one in limiters_of(self._store) if one.name not in operated]
        shown: list[Limiter | Operated] = [*limiters, *operated.values()]
        for limiter in shown:
            texts.setdefault(limiter.name, {}).update(dict.fromkeys(str(limit) for limit in limiter.limits))
        return {name: [*limits] for name, limits in texts.items()}

    def about(self) -> dict[str, str]:
        """A few words about each name that does not explain itself."""
        return {name: one.about for name, one in operated_in(self._store).items()}

    def digest(self, name: str, key: str) -> str:
        """The digest by which events and Stats name a key."""
        return observers_of(self._store).digest(self._key(name, key))

    def called(self, name: str) -> Sequence[Limiter | Operated]:
        """The limiters of that name, one for each list of limits. ValueError if there is none."""
        operated = operated_in(self._store).get(name)
        if operated is not None:
            return [operated]
        found = {limiter.policies: limiter for limiter in limiters_of(self._store) if limiter.name == name}
        if not found:
            known = ", ".join(self.names()) or "none yet"
            raise ValueError(f"this process has no limiter called {name!r:.80}; it has {known:.400}")
        return [*found.values()][-_MOST_LISTS:]

    async def look_up(self, name: str, key: str, per: str = "") -> list[Part]:
        """The rest of each limit under that name, without a charge."""
        parts: dict[str, Decision] = {}
        for limiter in self.called(name):
            decision = await limiter.peek(self._key(name, key), per=per)
            parts.update((part.bucket, part) for part in decision.parts)
        return [_part(part) for part in parts.values()]

    async def reset(self, name: str, key: str, per: str = "") -> None:
        """Make the key's buckets full, and lift its block."""
        for limiter in self.called(name):
            await limiter.reset(self._key(name, key), per=per)

    async def block(self, name: str, key: str, seconds: float) -> None:
        """Refuse the key for so many seconds."""
        for limiter in self.called(name):
            await limiter.block(self._key(name, key), seconds)

    def _key(self, name: str, written: str) -> str:
        operated = operated_in(self._store).get(name)
        return written if operated is None else operated.key_of(written)


def _part(part: Decision) -> Part:
    return {
        "rate": str(part.policy.limit),
        "scope": part.scope,
        "limit": part.limit,
        "remaining": part.remaining,
        "reset_after": part.reset_after,
        "retry_after": part.retry_after,
        "allowed": part.allowed,
        "blocked": part.reason == "blocked",
        "degraded": part.reason == "degraded",
    }
