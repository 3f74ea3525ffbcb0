"""`asgi-ratelimit show`: the rest of a key under the limits of a limiter."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from asgi_ratelimit.cli.decisions import as_json_value, is_untouched, write_decision
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
from asgi_ratelimit.cli.running import UNWELL, run, sentences
from asgi_ratelimit.cli.screen import write, write_json
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.store import resource_text

__all__ = ["show"]

UNTOUCHED = (
    "Nothing of it is used. If the app has counted calls of this key, its bucket is another one: compare the key, the "
    "name, the limits, the prefix and the secret with the app's."
)


def show(
    key: KeyName,
    limit: LimitTexts = None,
    limiter: LimiterName = "app",
    cost: Annotated[int, typer.Option(min=1, metavar="N", help="Whether a call of this cost would be allowed.")] = 1,
    per: Resource = None,
    redis: RedisURL = None,
    prefix: Prefix = "ratelimit",
    secret_file: SecretFile = None,
    timeout: Patience = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show the rest of a key. Nothing is charged.

    A bucket is named after its limiter and its limit, so both are written as in the app.
    """

    async def ask() -> Decision:
        options: dict[str, Any] = {"prefix": prefix, "secret_file": secret_file, "timeout": timeout}
        resource = resource_text(per) if per else ""
        async with limiter_on_redis(redis, limiter, limits_of(limit), **options) as opened:
            return await opened.peek(key, cost, per=resource)

    with sentences():
        decision = run(ask())
    if as_json:
        write_json(as_json_value(decision, key, limiter))
    else:
        write_decision(decision, key, limiter)
        if is_untouched(decision):
            write(UNTOUCHED, style="dim")
    raise typer.Exit(0 if decision.allowed else UNWELL)
