"""The shared store: one limit across every process that uses the same Redis or Valkey.

store        RedisStore and its options
connections  one session for each event loop, and none that a fork inherits
buckets      the verbs of a limiter as checks; cross_slot: its buckets in several slots of a cluster
scripts      scripts of others on the same servers
cluster      the node of each slot
node         a server, where checks travel together in calls; connection: the way to it
breaker      whether a server receives checks; missed: those that are decided without it
opening      a connection as it is opened: the rights of its user
fallback     the answers during an outage
deny_cache   refusals that need no check; doubts: records that are not believed
wire         the questions and replies of the scripts; checks.lua: the script of buckets, in frame.lua
names        the names of records
address      where the servers are; urls: how that is written; sentinel: the master that sentinels name
clearing     the end of all records, between two tests; servers: each of them over a connection of its own
dial         one connection; resolver: the addresses of its host
"""

try:
    import hiredis as _hiredis  # noqa: F401
    import redis as _redis  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.redis needs redis-py: pip install 'asgi-ratelimit-discord[redis]'") from error

from asgi_ratelimit.redis.address import Where
from asgi_ratelimit.redis.breaker import EventHook, StoreEvent
from asgi_ratelimit.redis.store import RedisStore

__all__ = ["EventHook", "RedisStore", "StoreEvent", "Where"]
