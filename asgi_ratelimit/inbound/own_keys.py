"""The keys of one request: that of the door, and those that some of its limits have for themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable

from asgi_ratelimit.call_keys import CallKey
from asgi_ratelimit.inbound.keyed_limits import by
from asgi_ratelimit.inbound.limiter_cache import LimiterCache
from asgi_ratelimit.inbound.options import Connection
from asgi_ratelimit.inbound.users import is_missing
from asgi_ratelimit.limiter import Limiter

__all__ = ["OwnKeys", "ResolvedKeys", "Sources"]

ResolvedKeys = Mapping[by, object]  # those that the door knows already
Sources = Sequence[by | None]  # of each limit; None: the key of the door


class OwnKeys:
    """The limiter of one request, with a key for each of its limits.

    as_key: makes a string of what a key function has returned
    """

    def __init__(self, as_key: Callable[[object], str], warn: Callable[[str, str], None]) -> None:
        self._as_key, self._warn = as_key, warn

    async def choose(
        self,
        limiter: Limiter,
        limiters: LimiterCache,
        sources: Sources,
        key: str,
        conn: Connection,
        resolved: ResolvedKeys,
    ) -> tuple[Limiter | None, CallKey]:
        """The limiter without the limits that leave the request out, and its keys; None: all of them do."""
        texts: dict[by, str | None] = {}
        for source in sources:
            if source is not None and source not in texts:
                texts[source] = await self._text(source, conn, resolved)
        if key.startswith(tuple([f"{source.name}:" for source in texts])):
            key = f"key:{key}"  # a text of a visitor's own: never the key of another function
        every = [key if source is None else texts[source] for source in sources]
        keys = tuple([one for one in every if one is not None])
        if not keys:
            return None, key
        if len(keys) < len(every):
            pairs = zip(limiter.limits, every, strict=True)
            limiter = limiters.of(tuple([limit for limit, one in pairs if one is not None]))
        return limiter, limiter.checked_key(keys)

    async def _text(self, source: by, conn: Connection, resolved: ResolvedKeys) -> str | None:
        value = resolved[source] if source in resolved else source.key(conn)
        if isawaitable(value):
            value = await value
        if not is_missing(value):
            return source.text(self._as_key(value))
        if source.optional:
            return None
        self._warn(
            "ARL103",
            f"the key function of {source!r} returned none, so all of these requests share one bucket. Write "
            "by(..., optional=True) if these limits are not for them.",
        )
        return source.text("")
