"""The shared store: one limit across every process that uses the same Redis or Valkey.

store      RedisStore: its options, and one session per event loop
buckets    a limiter's verbs as checks; spread: its buckets in several slots of a cluster
leases     permits for calls to somebody else's limits
cluster    which node has which slot
node       a server, where checks travel together; channel: the connection; breaker: whether it is to be asked
fallback   who decides during an outage
deny       what is refused without asking
wire       what the scripts are asked and answer; checks.lua, leases.lua: the scripts, in frame.lua; names: of records
connect    where the servers are
"""

try:
    import hiredis as _hiredis  # noqa: F401
    import redis as _redis  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.redis needs redis-py: pip install 'asgi-ratelimit-discord[redis]'") from error

from asgi_ratelimit.redis.breaker import StoreEvent
from asgi_ratelimit.redis.store import RedisStore

__all__ = ["RedisStore", "StoreEvent"]
