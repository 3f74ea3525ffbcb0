"""`asgi-ratelimit block`: a key is refused by a limiter for some time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from asgi_ratelimit.cli.options import AsJson, KeyName, LimiterName, Patience, Prefix, RedisURL, SecretFile
from asgi_ratelimit.cli.redis_limiter import limiter_on_redis
from asgi_ratelimit.cli.running import run, sentences
from asgi_ratelimit.cli.screen import duration, write, write_json
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limits import TokenBucket

__all__ = ["block"]

_ANY = (TokenBucket("1/day"),)  # a block is a record of its own, whatever the limits are
_LONGEST = 3_155_760_000  # 100 years: a limiter cuts what is longer


def block(
    key: KeyName,
    seconds: Annotated[
        float, typer.Argument(metavar="SECONDS", min=0, show_default=False, help="For how long; 0 lifts the block.")
    ],
    limiter: LimiterName = "app",
    redis: RedisURL = None,
    prefix: Prefix = "ratelimit",
    secret_file: SecretFile = None,
    timeout: Patience = 5.0,
    as_json: AsJson = False,
) -> None:
    """Refuse a key for so many seconds, whatever is left to it.

    A block holds for one limiter, in every process that uses the Redis, and replaces an earlier one.
    """

    async def refuse() -> Decision:
        options: dict[str, Any] = {"prefix": prefix, "secret_file": secret_file, "timeout": timeout}
        async with limiter_on_redis(redis, limiter, _ANY, **options) as opened:
            before = await opened.peek(key)
            await opened.block(key, seconds)
            return before

    with sentences():
        if not seconds <= _LONGEST:
            raise ValueError(f"a block lasts a number of seconds, e.g. 3600, and 100 years at most, not {seconds}")
        before = run(refuse())
    was = before.retry_after if before.reason == "blocked" else 0.0
    if as_json:
        write_json({"key": key, "limiter": limiter, "blocked_before": was, "blocked_for": seconds})
    else:
        write(_sentence(key, limiter, seconds, was))


def _sentence(key: str, limiter: str, seconds: float, was: float) -> str:
    earlier = f"blocked for another {duration(was)}" if was else "not blocked"
    now = f"blocked in {limiter} for {duration(seconds)}" if seconds else f"not blocked in {limiter} any more"
    return f"{key} is {now}. Before: {earlier}."
