"""`asgi-ratelimit discord-proxy`: a proxy before Discord for bots in any language."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from asgi_ratelimit.cli.loopback import is_loopback

if TYPE_CHECKING:
    from asgi_ratelimit.discord.proxy import DiscordProxy
    from asgi_ratelimit.store import Store

__all__ = ["discord_proxy"]

_PREFIX = "DISCORD_PROXY_"
_PLAIN: Final[dict[str, Any]] = {
    "markup": False,
    "highlight": False,
    "soft_wrap": True,
}  # texts of users are no markup


def discord_proxy(
    host: Annotated[str, typer.Option(envvar=f"{_PREFIX}HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar=f"{_PREFIX}PORT", min=0, max=65_535, help="The port.")] = 8080,
    upstream: Annotated[
        str, typer.Option(envvar=f"{_PREFIX}UPSTREAM", help="Where requests go, with their own path.")
    ] = "https://discord.com",
    redis: Annotated[
        str | None,
        typer.Option(envvar="RATELIMIT_REDIS_URL", help="A Redis that several proxies share.", show_default=False),
    ] = None,
    global_limit: Annotated[
        int, typer.Option(envvar=f"{_PREFIX}GLOBAL_LIMIT", min=1, help="Requests of one token in any second.")
    ] = 50,
    min_remaining: Annotated[
        int,
        typer.Option(envvar=f"{_PREFIX}MIN_REMAINING", min=0, help="Calls of each bucket that are left to others."),
    ] = 0,
    egress: Annotated[
        str,
        typer.Option(envvar=f"{_PREFIX}EGRESS", help="The name of the address; proxies with one share its bans."),
    ] = "default",
    max_memory: Annotated[
        int,
        typer.Option(envvar=f"{_PREFIX}MAX_MEMORY", min=1, help="MiB of request bodies that are kept at a time."),
    ] = 256,
) -> None:
    """Forward requests to Discord when their limits allow.

    A bot changes its base URL to http://127.0.0.1:8080/api/v10 and needs no limiter of its own. See
    https://asgi-ratelimit-discord.readthedocs.io/en/latest/discord-proxy/
    """
    console = Console(stderr=True)
    try:
        app = _proxy(upstream, redis, global_limit, min_remaining, egress, max_memory)
        uvicorn = importlib.import_module("uvicorn")
    except (ImportError, ValueError) as error:
        console.print(str(error) if isinstance(error, ValueError) else _missing(error), style="red", **_PLAIN)
        raise typer.Exit(2) from None
    if not is_loopback(host):
        told = f"{host} is open to others: whoever reaches it may use any token through it."
        console.print(told, style="yellow", **_PLAIN)
    console.print(f"http://{host}:{port} forwards to {upstream}; GET /health tells how it is.", **_PLAIN)
    # Its access log would hold the tokens of webhooks, which stand in their addresses.
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=1)


def _proxy(
    upstream: str, redis: str | None, global_limit: int, min_remaining: int, egress: str, max_memory: int
) -> DiscordProxy:
    from asgi_ratelimit.discord.proxy import LARGEST, DiscordProxy

    return DiscordProxy(
        upstream=upstream,
        store=_store(redis),
        global_limit=global_limit,
        min_remaining=min_remaining,
        egress=egress,
        max_memory=max_memory * 2**20,
        max_body=min(LARGEST, max_memory * 2**19),
    )


def _store(redis: str | None) -> Store | None:
    if redis is None:
        return None
    from asgi_ratelimit.redis import RedisStore

    return RedisStore(redis)


def _missing(error: ImportError) -> str:
    if error.name == "uvicorn":
        return "The proxy needs uvicorn: pip install 'asgi-ratelimit-discord[cli]'"
    return str(error)
