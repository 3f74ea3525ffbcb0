"""Rate limiting for FastAPI and Starlette that real Discord clients obey, and a Discord client that draws no 429.

The floor plan, from the street down:

    inbound/     the way in: middleware, WebSockets, keys, headers, the 429
    fastapi      the same as a FastAPI dependency                        (extra: fastapi)
    discord/     the way out: calls to Discord; and its interactions     (extra: discord)
    pace         bulk work at a steady pace                              (extra: progress, for its bar)
    sync         the same limiter without an event loop
    backroom     a loop for callers in other threads
    limiter      Limiter: limits + store + name; line: waiting one's turn
    redis/       RedisStore: one limit for every process                 (extra: redis)
    store        where buckets are kept: MemoryStore
    decision     what was decided; limits, rate: what is allowed
    leases       permits for calls to somebody else's limits; learned: what answers teach of those
    clock, errors
    testing/     what a user's own tests need: ManualClock, FakeDiscord
"""

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimited, RateLimitError, RateLimitWarning, StoreUnavailable
from asgi_ratelimit.inbound.keys import ClientIP, by_header, by_ip, by_user, by_user_or, by_user_or_ip
from asgi_ratelimit.inbound.middleware import RateLimitMiddleware
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from asgi_ratelimit.pace import pace
from asgi_ratelimit.store import MemoryStore

__version__ = "0.1.0"

__all__ = [
    "ClientIP",
    "Decision",
    "FixedWindow",
    "LeakyBucket",
    "Limiter",
    "MemoryStore",
    "RateLimitError",
    "RateLimitMiddleware",
    "RateLimitWarning",
    "RateLimited",
    "SlidingWindow",
    "StoreUnavailable",
    "TokenBucket",
    "by_header",
    "by_ip",
    "by_user",
    "by_user_or",
    "by_user_or_ip",
    "pace",
]
