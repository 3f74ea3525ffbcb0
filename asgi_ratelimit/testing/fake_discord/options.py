"""The options of FakeDiscord, checked; and the two ends of ASGI that do not depend on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from starlette.types import Receive, Send

from asgi_ratelimit.limits import FixedWindow
from asgi_ratelimit.testing.fake_discord.routes import Template

__all__ = ["Latency", "body_of", "in_us", "invalid_window", "latency_of", "live", "retry_after_of", "template_of"]

Latency = float | tuple[float, float] | Callable[[], float]


def in_us(option: str, seconds: object) -> int:
    """Microseconds of an option in seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"{option} must be seconds from 0, e.g. {option}=2.5, not {seconds!r}")
    return round(seconds * 1e6)


def retry_after_of(seconds: object) -> float | None:
    """What a 429 says of its time, however odd: Discord has said 0 as well."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        raise ValueError(f"retry_after must be seconds, e.g. retry_after=2.5, or None for no word, not {seconds!r}")
    return float(seconds)


def invalid_window(count: object) -> FixedWindow:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"invalid_limit must be requests per 10 minutes, e.g. 10_000, not {count!r}")
    return FixedWindow(f"{count}/10m")


def latency_of(latency: Latency, random: Random) -> Callable[[], float]:
    """A function that says how many seconds the next request takes."""
    if callable(latency):
        return latency
    least, most = latency if isinstance(latency, tuple) else (latency, latency)
    if in_us("latency", least) > in_us("latency", most):
        raise ValueError(f"latency must be seconds or (least, most), e.g. (0.02, 0.06), not {latency!r}")
    return lambda: random.uniform(least, most)


def template_of(route: str | None) -> Template | None:
    return None if route is None else Template(route)


async def body_of(receive: Receive) -> bytes | None:
    """All of a request's body; None if its client left before the end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def live(receive: Receive, send: Send) -> None:
    """The lifespan of an app that has nothing to start."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
