"""Rate limiting for FastAPI and Starlette that real Discord clients obey, and a Discord client that draws no 429.

The floor plan, from the street down:

    admin/         the operator's page                                        (extra: admin)
    testing/       for users' own tests: ManualClock, unlimited, StoreContract, FakeDiscord
    login/         the guard of a log-in                                      (extra: fastapi, for its dependency)
    discord/       the way out: calls to Discord                              (extra: discord)
    interactions/  the endpoint to which Discord posts a bot's interactions   (extra: interactions)
    fastapi/       the FastAPI dependency                                     (extra: fastapi)
    load/          an app under more load than it can bear: shedding
    inbound/       the way in: middleware, WebSockets, keys, headers, the 429
    observe/       events as counts, metrics and log lines             (extras: prometheus, opentelemetry)
    escalation     blocks that grow
    pace           bulk work at a steady pace                                 (extra: progress, for its bar)
    sync/          the same limiter without an event loop
    limiter        Limiter: limits + store + name; waiting: first come, first served; bells: a slot is free
    operated       limiters as an operator sees them
    redis/         RedisStore: one limit for every process                    (extra: redis)
    memory/        MemoryStore: buckets in this process
    store          the interface of a store; scripts: of one that runs scripts, too
    warnings, errors, refusal_headers
    log_observer, events: for observers
    decision       Decision; limits, rate: the kinds of limit; foreign_options
    store_events, off_switch, slot, call_site, call_keys, clock
"""

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.decision import BucketKey, Charge, Decision, Policy, Reason
from asgi_ratelimit.errors import RateLimited, RateLimitError, RateLimitWarning, StoreUnavailable
from asgi_ratelimit.escalation import Escalate
from asgi_ratelimit.inbound.client_ip import ClientIP, by_ip
from asgi_ratelimit.inbound.estimate import Estimate
from asgi_ratelimit.inbound.headers import HeaderStyle
from asgi_ratelimit.inbound.keyed_limits import LimitSource, by
from asgi_ratelimit.inbound.keys import by_header, by_user, by_user_or, by_user_or_ip
from asgi_ratelimit.inbound.middleware import RateLimitMiddleware
from asgi_ratelimit.inbound.network_file import NetworkFile
from asgi_ratelimit.inbound.options import (
    ASGIApplication,
    CostSource,
    ExemptSource,
    Key,
    KeyFunction,
    LimitedHandler,
)
from asgi_ratelimit.inbound.settling import Served
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import (
    Concurrency,
    FixedWindow,
    LeakyBucket,
    Limit,
    LimitSpec,
    Measure,
    Outage,
    Quota,
    Scope,
    SlidingWindow,
    State,
    TokenBucket,
)
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.pace import Outcome, pace
from asgi_ratelimit.rate import Rate
from asgi_ratelimit.store import Buckets, Settlement, Store, bucket_key
from asgi_ratelimit.store_events import StoreEvent

__version__ = "0.1.0"

__all__ = [
    "ASGIApplication",
    "BucketKey",
    "Buckets",
    "Charge",
    "ClientIP",
    "Clock",
    "Concurrency",
    "CostSource",
    "Decision",
    "Escalate",
    "Estimate",
    "ExemptSource",
    "FixedWindow",
    "HeaderStyle",
    "Key",
    "KeyFunction",
    "LeakyBucket",
    "Limit",
    "LimitSource",
    "LimitSpec",
    "LimitedHandler",
    "Limiter",
    "Measure",
    "MemoryStore",
    "NetworkFile",
    "Outage",
    "Outcome",
    "Policy",
    "Quota",
    "Rate",
    "RateLimitError",
    "RateLimitMiddleware",
    "RateLimitWarning",
    "RateLimited",
    "Reason",
    "Scope",
    "Served",
    "Settlement",
    "SlidingWindow",
    "State",
    "Store",
    "StoreEvent",
    "StoreUnavailable",
    "TokenBucket",
    "bucket_key",
    "by",
    "by_header",
    "by_ip",
    "by_user",
    "by_user_or",
    "by_user_or_ip",
    "pace",
]
