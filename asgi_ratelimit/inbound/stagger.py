"""Who of the refused may come back when: Discord's clients are told one moment each, not all the same one.

A library such as discord.py comes back at the very moment it was told, and gives up after five refusals of one call.
Told the same moment, all of a bot's refused calls come back for the one token that is there by then, and the unluckiest
loses five times. Nothing else changes: what the store decides, and what every other client is told, stays exact.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from asgi_ratelimit.decision import Decision

__all__ = ["Turns", "is_discord_client"]

_MOST_BUCKETS = 10_000


def is_discord_client(scope: Mapping[str, Any]) -> bool:
    """Whether it calls itself what Discord's API asks its clients to: `DiscordBot ($url, $version)`."""
    return any(name == b"user-agent" and value.startswith(b"DiscordBot") for name, value in scope.get("headers") or ())


class Turns:
    """The moments that one door has told the refused of each bucket; of the buckets seen last."""

    def __init__(self) -> None:
        self._last_us: OrderedDict[tuple[str, Any], int] = OrderedDict()

    def next(self, refusal: Decision, now_us: int) -> Decision:
        """The refusal with the first moment that nobody was told yet; never later than the bucket is full."""
        if refusal.reason != "limited":
            return refusal
        limit = refusal.policy.limit
        place = (refusal.bucket, refusal.bucket_key)
        free_us = self._last_us.pop(place, 0) + -(-limit.window_us * refusal.cost // limit.capacity)
        latest_us = now_us + max(refusal.retry_us, refusal.reset_us)
        told_us = self._last_us[place] = min(max(free_us, now_us + refusal.retry_us), latest_us)
        if len(self._last_us) > _MOST_BUCKETS:
            self._last_us.popitem(last=False)
        return refusal.as_refusal(refusal.cost, told_us - now_us)
