"""One's own buckets, looked at without charging them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from asgi_ratelimit import Decision, Limiter, by_user_or_ip
from asgi_ratelimit.limits import Limit
from example_app.limits import BY_TIER, EVERYBODY, MESSAGES, PICTURES, SEARCH, in_words, report_limit
from example_app.routes import CHANNELS
from example_app.users import tier_of

__all__ = ["GAUGES", "Reading", "router"]


class Reading(BaseModel):
    """A bucket as the page draws it; times in seconds."""

    kind: str
    words: str
    bucket: str
    reason: str
    count: int
    period: float
    limit: int
    remaining: int
    reset_after: float
    retry_after: float
    delay: float


@dataclass(frozen=True, slots=True)
class Gauge:
    """The place of a bucket. A route's limiter is named after its path template, the middleware's is "app"."""

    name: str
    limit: Limit | Callable[[Request], Limit]
    per: str = ""

    async def read(self, request: Request) -> Reading:
        limit = self.limit(request) if callable(self.limit) else self.limit
        # A limiter of the same name, limit and store shares its buckets with the door that charges them.
        limiter = Limiter(limit, store=request.app.state.store, name=self.name)
        return _reading(limit, await limiter.peek(str(by_user_or_ip(request) or ""), per=self.per))


GAUGES = {
    "app": Gauge("app", lambda request: BY_TIER[tier_of(request)]),
    "everybody": Gauge("app", EVERYBODY),
    "search": Gauge("/api/search", SEARCH),
    **{f"messages-{name}": Gauge("/api/channels/{channel_id}/messages", MESSAGES, per=name) for name in CHANNELS},
    "pictures": Gauge("/api/pictures", PICTURES),
    "reports": Gauge("/api/reports", report_limit),
}

router = APIRouter(prefix="/api")


@router.get("/gauges")
async def gauges(request: Request, response: Response) -> dict[str, Reading]:
    """Every bucket of the visitor. It is exempt from the app's limit: being polled, it would use it up."""
    response.headers["Cache-Control"] = "no-store"
    return {name: await gauge.read(request) for name, gauge in GAUGES.items()}


def _reading(limit: Limit, decision: Decision) -> Reading:
    return Reading(
        kind=type(limit).__name__,
        words=in_words(limit),
        bucket=decision.bucket,
        reason=decision.reason,
        count=limit.count,
        period=limit.period,
        limit=decision.limit,
        remaining=decision.remaining,
        reset_after=decision.reset_after,
        retry_after=decision.retry_after,
        delay=decision.delay,
    )
