"""Clients of one token that do not know of each other's calls: mostly a new one is made for each message."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Final

from asgi_ratelimit.discord.origins import Origin
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["LONE_CLIENTS", "LoneClients"]

_SPAN_S: Final = 10.0
_USUAL: Final = 3  # in that time
_MOST_TOKENS: Final = 100


class LoneClients:
    """The first calls of clients with a store of their own. Tokens are not stored."""

    def __init__(self) -> None:
        self._warn_once = WarnOnce()
        self._first_calls: OrderedDict[int, deque[float]] = OrderedDict()  # by token and origin

    def note(self, authorization: str, origin: Origin) -> None:
        """A client makes its first call. Warns if that is one of many with this token."""
        key, now_s = hash((authorization, origin)), time.monotonic()
        times = self._first_calls.pop(key, None) or deque[float](maxlen=_USUAL)
        if len(times) == _USUAL and now_s - times[0] < _SPAN_S:
            self._warn_once.warn(
                "ARL301",
                f"{_USUAL + 1} clients of one token made their first calls within {_SPAN_S:.0f} s, each with a store "
                "of its own. They do not know of each other's calls, and draw 429s. Make one client, with the bot, or "
                "give all of them one store=",
            )
        times.append(now_s)
        self._first_calls[key] = times
        if len(self._first_calls) > _MOST_TOKENS:
            self._first_calls.popitem(last=False)


LONE_CLIENTS = LoneClients()  # of the whole process: a client made for each message could not remember
