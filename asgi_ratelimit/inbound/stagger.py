"""Successive moments for refused calls of Discord's clients, instead of one moment for all of them.

A library such as discord.py comes back at exactly the moment of its 429, and gives up after five refusals of one call.
With the same moment for all, a bot's refused calls come back together for one token, and the unluckiest loses five
times. The decisions of the store do not change, and every other client gets the exact moment.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from starlette.types import Scope

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.inbound.request_headers import headers_of

__all__ = ["Stagger", "is_discord_client"]

_MOST_BUCKETS = 10_000
_HANDFUL = 5


def is_discord_client(scope: Scope) -> bool:
    """Whether its User-Agent is that of a client of Discord's API: `DiscordBot ($url, $version)`."""
    for name, value in headers_of(scope):
        if name == b"user-agent":
            return value.startswith(b"DiscordBot")
    return False


class Stagger:
    """The last moment that one door has given out for each bucket, of the buckets used last."""

    def __init__(self) -> None:
        self._last_us: OrderedDict[tuple[str, Any], int] = OrderedDict()

    def next(self, refusal: Decision, now_us: int) -> Decision:
        """The refusal with the first moment that is still free.

        It is never later than the bucket is full, nor than a handful of calls later than the exact moment. A bucket
        that others share keeps the exact moment: refused calls of one bot must not make the others wait.
        """
        limit = refusal.policy.limit
        if limit.scope != "user" or not limit.capacity or refusal.reason != "limited":
            return refusal
        _, reset_us, retry_us = refusal.measured()
        place = (refusal.bucket, refusal.bucket_key)
        interval_us = -(-limit.window_us * refusal.cost // limit.capacity)
        free_us = self._last_us.pop(place, 0) + interval_us
        latest_us = now_us + max(retry_us, min(reset_us, retry_us + _HANDFUL * interval_us))
        moment_us = self._last_us[place] = min(max(free_us, now_us + retry_us), latest_us)
        if len(self._last_us) > _MOST_BUCKETS:
            self._last_us.popitem(last=False)
        return refusal.later(moment_us - now_us)
