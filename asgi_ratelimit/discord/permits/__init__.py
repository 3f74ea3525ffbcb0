"""Permits for calls to Discord: its responses teach the limits, which are nowhere stated.

bucket  the arithmetic of one bucket
memory  permits in this process
shared  permits of all processes that share a Redis; permits.lua: the same arithmetic as a script
"""

from __future__ import annotations

from asgi_ratelimit.discord.permits.memory import Leases, local_permits
from asgi_ratelimit.store import Store

__all__ = ["permits_of"]


def permits_of(store: Store, owner: str) -> Leases:
    """The permits of `owner`, e.g. of one bot's token: shared ones in a RedisStore, else those of this process."""
    if not hasattr(store, "patient"):
        return local_permits(store, owner)
    from asgi_ratelimit.discord.permits.shared import shared_permits

    return shared_permits(store, owner)
