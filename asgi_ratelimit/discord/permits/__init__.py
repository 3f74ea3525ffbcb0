"""Permits for calls to Discord: its responses teach the limits, which are nowhere stated.

bucket  the arithmetic of one bucket
memory  permits in this process
shared  permits of all processes that share a Redis; bucket.lua and permits.lua: the same as a script
split   permits for routes whose responses come from several buckets
"""

from __future__ import annotations

from asgi_ratelimit.discord.permits.memory import Permits, local_permits
from asgi_ratelimit.discord.permits.shared import shared_permits
from asgi_ratelimit.discord.permits.split import SplitPermits
from asgi_ratelimit.scripts import ScriptStore
from asgi_ratelimit.store import Store

__all__ = ["permits_of"]


def permits_of(store: Store, owner: str) -> Permits:
    """The permits of `owner`, e.g. of one bot's token: shared ones if the store runs scripts, else of this process."""
    permits = shared_permits(store, owner) if isinstance(store, ScriptStore) else local_permits(store, owner)
    return SplitPermits(permits, store.clock)
