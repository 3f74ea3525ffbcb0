"""`asgi-ratelimit doctor`: a look at a Redis, or at an app."""

from __future__ import annotations

from typing import Annotated

import typer

from asgi_ratelimit.cli.examination.findings import Finding, is_well, report
from asgi_ratelimit.cli.http_headers import HeaderLines, headers_of_lines
from asgi_ratelimit.cli.options import AsJson, Prefix, RedisURL
from asgi_ratelimit.cli.running import UNWELL, run, sentences

__all__ = ["doctor"]

Address = Annotated[
    str | None, typer.Argument(metavar="URL", show_default=False, help="An app: http://... or https://...")
]
StoreTimeout = Annotated[
    float, typer.Option("--store-timeout", min=0.001, metavar="SECONDS", help="The timeout= of the RedisStore.")
]


def doctor(
    url: Address = None,
    redis: RedisURL = None,
    header: HeaderLines = None,
    prefix: Prefix = "ratelimit",
    store_timeout: StoreTimeout = 0.1,
    as_json: AsJson = False,
) -> None:
    """Look at a Redis, or at an app, and name the faults and their remedies.

    A Redis: its version, role, eviction, room and clock, the rights of its user, and how long a check takes from here.
    About 200 checks of keys of their own are made.

    An app: it gets 6 requests. What do its headers say, and does it believe a made-up X-Forwarded-For from here?
    """
    with sentences():
        about, findings = _examined(url, redis, header, prefix, store_timeout)
    report(about, findings, as_json=as_json)
    raise typer.Exit(0 if is_well(findings) else UNWELL)


def _examined(
    url: str | None, redis: str | None, header: list[str] | None, prefix: str, timeout: float
) -> tuple[str, list[Finding]]:
    if url is not None and url.partition("://")[0].lower() in ("http", "https"):
        from asgi_ratelimit.cli.examination.of_app import examine_app

        return examine_app(url, headers_of_lines(header))
    address = url or redis
    if not address:
        raise ValueError("what to look at? Write --redis redis://localhost:6379/0, or the https:// address of an app")
    if "://" not in address:
        raise ValueError("an address begins with redis://, rediss://, unix://, http:// or https://")
    import asgi_ratelimit.redis  # noqa: F401 - says which package is missing
    from asgi_ratelimit.cli.examination.of_redis import examine_redis

    return run(examine_redis(address, prefix=prefix, timeout=timeout))
