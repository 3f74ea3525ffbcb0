"""The options of other libraries, and their spelling here: for those who write them by habit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec

from asgi_ratelimit.rate import suggestion

__all__ = ["explains_foreign_options"]

Options = ParamSpec("Options")

_PERIODS = {"milliseconds": "ms", "seconds": "s", "minutes": "min", "hours": "h", "days": "d"}
_REDIS = 'store=RedisStore("redis://localhost:6379") (from asgi_ratelimit.redis import RedisStore)'
_OWN_ANSWER = "on_limited= a function of the connection and the decision, or an exception handler for RateLimited"
_DEFAULT = 'RateLimitMiddleware(limit=["1000/hour", "100/minute"], default=True), which a limit of a route replaces'
_KEY = "key= a function of the connection, e.g. key=by_user_or_ip; a Limiter takes the key in try_acquire(key)"
_SPELLINGS = {
    "application_limits": 'limit=["1000/hour", "100/minute"]',
    "blocking": "max_wait= the seconds for which a request may be held",
    "burst": 'limit="50/s burst 100"',
    "callback": _OWN_ANSWER,
    "default": _DEFAULT,
    "default_limits": _DEFAULT,
    "enabled": "`with unlimited():` in tests (from asgi_ratelimit.testing import unlimited), or limit=None",
    "error_message": _OWN_ANSWER,
    "exempt_when": "exempt= a function of the connection, or a limit function that returns None",
    "headers_enabled": 'headers="discord", "ietf", "both" or None',
    "identifier": _KEY,
    "in_memory_fallback": 'RedisStore(..., outage="local")',
    "in_memory_fallback_enabled": 'RedisStore(..., outage="local")',
    "key_func": _KEY,
    "key_prefix": "name=, or RedisStore(..., prefix=)",
    "key_style": 'per=["item_id"] for a bucket per value; a path template has one bucket without it',
    "limiter": 'limit="2/5s"',
    "limits": 'limit=["1000/hour", "100/minute"]',
    "override_defaults": "default=True in RateLimitMiddleware if a limit of a route replaces it; both count otherwise",
    "per_method": 'one RateLimit for each method, e.g. methods=("POST",), with a name= each',
    "rate": 'limit="5/minute"',
    "redis": _REDIS,
    "redis_url": _REDIS,
    "scope": 'name="reports" for routes that share their buckets, or limit=TokenBucket("5/s", scope="global")',
    "storage": _REDIS,
    "storage_uri": _REDIS,
    "strategy": 'limit=SlidingWindow("5/minute") or FixedWindow("5/minute")',
    "swallow_errors": 'RedisStore(..., outage="open")',
    "trusted_proxies": 'key=ClientIP(trusted_proxies=["10.0.0.0/8"])',
    "whitelist": 'exempt=ClientIP().within("192.0.2.0/24")',
}


def explains_foreign_options(init: Callable[Options, None]) -> Callable[Options, None]:
    """The same `__init__`. Its TypeError for an option of another library names the spelling here."""
    own = init.__annotations__  # every option has one; a signature takes long to make

    @wraps(init)
    def explaining(*args: Options.args, **options: Options.kwargs) -> None:
        for name in options:
            if name not in own:
                spelling = _spelling(name, options)
                if spelling:
                    raise TypeError(f"{type(args[0]).__name__} has no option {name!r}. Write {spelling}.")
        init(*args, **options)

    return explaining


def _spelling(name: str, options: Mapping[str, object]) -> str:
    if name == "limit_value":
        value = options[name]
        return f"limit={suggestion(value) if isinstance(value, str) else '...'}"
    if name == "times" or name in _PERIODS:
        return _from_times(options)
    return _SPELLINGS.get(name, "")


def _from_times(options: Mapping[str, object]) -> str:
    periods = [f"{options[name]}{unit}" for name, unit in _PERIODS.items() if options.get(name)]
    return f'limit="{options.get("times", 1)}/{periods[0]}"' if len(periods) == 1 else 'limit="5/10s"'
