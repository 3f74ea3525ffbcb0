"""The keys under which a MemoryStore keeps its records."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from asgi_ratelimit.decision import BucketKey
from asgi_ratelimit.limits import Scope

__all__ = ["record_key", "stored_key"]

_LONG: Final = 256  # characters; a longer key is stored as a digest, so that a few keys cannot fill the memory


def stored_key(key: str) -> BucketKey:
    """The key, or its digest. Raises TypeError if it is no string."""
    if not isinstance(key, str):
        raise TypeError(f'a key is a string such as "user:1", not {key!r}')
    if len(key) <= _LONG:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def record_key(scope: Scope, key: str, per: str) -> BucketKey:
    """The record of a call among those of a policy. A key with a resource never meets one without."""
    if scope != "user":
        return stored_key(per if scope == "shared" else "")
    if not per:
        return stored_key(key)
    if len(key) + len(per) <= _LONG:
        return key, per
    return blake2b(f"{len(key)}:{key}{per}".encode("utf-8", "surrogatepass"), digest_size=31).digest()
