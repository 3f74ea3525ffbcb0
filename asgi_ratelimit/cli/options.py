"""The options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = [
    "AsJson", "KeyName", "LimitTexts", "LimiterName", "Patience", "Prefix", "RedisURL", "Resource", "SecretFile",
    "redis_url", "secret_of",
]  # fmt: skip

REDIS_VARIABLE: Final = "RATELIMIT_REDIS_URL"
SECRET_VARIABLE: Final = "RATELIMIT_SECRET"

RedisURL = Annotated[
    str | None,
    typer.Option(
        "--redis",
        envvar=REDIS_VARIABLE,
        metavar="URL",
        show_default=False,
        help="The Redis of the limiters. The variable keeps a password out of the list of processes.",
    ),
]
Prefix = Annotated[str, typer.Option(metavar="TEXT", help="The prefix= of the RedisStore.")]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help=f"A file with the secret= of the RedisStore, if it has one; else ${SECRET_VARIABLE}.",
    ),
]
Patience = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for an answer of Redis.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
KeyName = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        show_default=False,
        help="The key as the limiter counts it, such as user:42, 203.0.113.7 or header:x-api-key:abc.",
    ),
]
LimiterName = Annotated[
    str,
    typer.Option(
        "--limiter",
        metavar="NAME",
        help='The name= of the limiter: "app" for the middleware, a path template such as /items/{item_id} for a '
        'RateLimit, "default" for a Limiter without one.',
    ),
]
LimitTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        show_default=False,
        help="A limit of the limiter, just as the app has it: 100/minute, or as in Python SlidingWindow(100/hour). "
        "Needed, and once for each of several.",
    ),
]
Resource = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE",
        show_default=False,
        help="The value of a per= parameter of the route. Once for each, in their order.",
    ),
]


def redis_url(url: str | None) -> str:
    """The URL. Raises ValueError if there is none."""
    if not url:
        raise ValueError(f"which Redis? Give --redis redis://localhost:6379/0, or set {REDIS_VARIABLE}")
    return url


def secret_of(file: Path | None) -> bytes | None:
    """The secret of the store, from a file or the environment. Raises ValueError if there is none in the file."""
    if file is None:
        return os.environ.get(SECRET_VARIABLE, "").encode(errors="surrogateescape") or None
    try:
        secret = file.read_bytes()
    except OSError as error:
        raise ValueError(f"the file of the secret cannot be read: {error.strerror}: {file}") from None
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ValueError(f"the file of the secret is empty: {file}")
    return secret
