"""The store that keeps the buckets of the whole app."""

from asgi_ratelimit import MemoryStore

__all__ = ["open_store"]


def open_store() -> MemoryStore:
    """A store in this process's memory: right for one worker."""
    return MemoryStore()
