"""The signed messages that this process has seen, so that a replay is recognised."""

from __future__ import annotations

import logging
from collections import OrderedDict

from asgi_ratelimit.interactions.signature import Signed

__all__ = ["ReplayCache"]

logger = logging.getLogger("asgi_ratelimit")

_MOST_SEEN = 100_000  # signatures in one process
_SHARDS = 64  # a dict that grows is copied, so each of many small ones is copied quickly
_MOST_SWEPT = 8  # records that one call removes


class ReplayCache:
    """The signed messages of the last `seconds`. Bounded: each call removes a few old ones of one shard."""

    def __init__(self, seconds: float, *, most: int = _MOST_SEEN, shards: int = _SHARDS) -> None:
        self._seconds, self._most = seconds, -(-most // shards)  # of each shard
        # Ordered ones, because the first key of a plain dict is slow to find once many before it were removed.
        self.shards: list[OrderedDict[str, int]] = [OrderedDict() for _ in range(shards)]
        self._has_reported = False

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def add(self, signed: Signed, wall: float) -> bool:
        """Note a message. False if it is a replay."""
        seen = self.shards[int(signed.digest[:8], 16) % len(self.shards)]
        if signed.digest in seen:
            return False
        seen[signed.digest] = signed.at
        for _ in range(min(_MOST_SWEPT, len(seen) - 1)):
            is_stale = next(iter(seen.values())) + self._seconds < wall
            if not is_stale and len(seen) <= self._most:
                break
            seen.popitem(last=False)
            if not is_stale:
                self._report()
        return True

    def _report(self) -> None:
        if not self._has_reported:
            self._has_reported = True
            logger.warning(
                "more than %d signed interactions within %g s: the oldest are forgotten, and replays of these pass",
                self._most * len(self.shards),
                self._seconds,
            )
