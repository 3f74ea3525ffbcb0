"""`asgi-ratelimit reset`: the buckets of a key are full again, and its block is lifted."""

from __future__ import annotations

from typing import Any

from asgi_ratelimit.cli.decisions import as_json_value, left_in
from asgi_ratelimit.cli.limit_notation import limits_of
from asgi_ratelimit.cli.options import (
    AsJson,
    KeyName,
    LimiterName,
    LimitTexts,
    Patience,
    Prefix,
    RedisURL,
    Resource,
    SecretFile,
)
from asgi_ratelimit.cli.redis_limiter import limiter_on_redis
from asgi_ratelimit.cli.running import run, sentences
from asgi_ratelimit.cli.screen import write, write_json
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.escalation import forgive
from asgi_ratelimit.store import resource_text

__all__ = ["reset"]


def reset(
    key: KeyName,
    limit: LimitTexts = None,
    limiter: LimiterName = "app",
    per: Resource = None,
    redis: RedisURL = None,
    prefix: Prefix = "ratelimit",
    secret_file: SecretFile = None,
    timeout: Patience = 5.0,
    as_json: AsJson = False,
) -> None:
    """Make the buckets of a key full, lift its block, and forget what an Escalate has counted.

    A process may go on refusing the key for one more second, as it remembers refusals for so long.
    """

    async def fill() -> tuple[Decision, Decision]:
        options: dict[str, Any] = {"prefix": prefix, "secret_file": secret_file, "timeout": timeout}
        resource = resource_text(per) if per else ""
        async with limiter_on_redis(redis, limiter, limits_of(limit), **options) as opened:
            before = await opened.peek(key, per=resource)
            await opened.reset(key, per=resource)
            await forgive(key, store=opened.store, name=limiter)
            return before, await opened.peek(key, per=resource)

    with sentences():
        before, after = run(fill())
    if as_json:
        write_json({name: as_json_value(one, key, limiter) for name, one in (("before", before), ("after", after))})
    else:
        write(f"{key} is reset in {limiter}. Before: {left_in(before)}. Now: {left_in(after)}.")
