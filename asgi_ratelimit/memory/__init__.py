"""Buckets in this process's memory."""

from asgi_ratelimit.memory.store import MemoryStore

__all__ = ["MemoryStore"]
