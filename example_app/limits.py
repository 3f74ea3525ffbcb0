"""Every limit of the app in one place: those of the tiers and those of single routes."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

from asgi_ratelimit import Concurrency, Escalate, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from asgi_ratelimit.limits import Limit
from example_app.users import Tier, tier_of

__all__ = [
    "BANS",
    "BURSTS",
    "BY_TIER",
    "EVERYBODY",
    "EXPORTS",
    "EXPORTS_OF_AN_ADDRESS",
    "FRAMES",
    "INTERACTIONS",
    "KNOCKS",
    "MESSAGES",
    "PICTURES",
    "REPORTS_BY_TIER",
    "SEARCH",
    "STORMS",
    "app_limit",
    "in_words",
    "report_limit",
]

BY_TIER: dict[Tier, Limit] = {
    "anonymous": TokenBucket("60/minute"),
    "free": TokenBucket("120/minute"),
    "pro": TokenBucket("600/minute"),
}
EVERYBODY = TokenBucket("900/minute", scope="global")  # all visitors together

SEARCH = TokenBucket("5/5s")  # the limit of the ready-made `rate_limit`
MESSAGES = FixedWindow("4/6s")
PICTURES = LeakyBucket("2/s", queue=4)
REPORTS_BY_TIER: dict[Tier, Limit] = {
    "anonymous": SlidingWindow("3/20s"),
    "free": SlidingWindow("6/20s"),
    "pro": SlidingWindow("12/20s"),
}
FRAMES = "12/10s"  # the limit of one WebSocket's messages
BURSTS = TokenBucket("3/10s")  # of messages to Discord
INTERACTIONS = TokenBucket("5/10s")  # of one user of Discord

EXPORTS = Concurrency(2, lease=10)  # of one visitor, at a time
EXPORTS_OF_AN_ADDRESS = Concurrency(3, lease=10, name="address")  # of all its users
KNOCKS = TokenBucket("3/5s")
BANS = Escalate(after=8, within=20, block=(8, 20, 60), memory=900)  # of a visitor that does not wait
STORMS = [Concurrency(1, lease=10, scope="global"), TokenBucket("6/minute", scope="global")]


def app_limit(conn: HTTPConnection) -> list[Limit]:
    """The limits of the whole app: one for each visitor by tier, and one for all visitors together."""
    return [BY_TIER[tier_of(conn)], EVERYBODY]


def report_limit(conn: HTTPConnection) -> Limit:
    return REPORTS_BY_TIER[tier_of(conn)]


def in_words(limit: Limit | str) -> str:
    """ "5/20s" in words: 5 per 20 s."""
    return re.sub(r"/(\d*)", lambda match: f" per {match[1]} " if match[1] else " per ", str(limit))
