"""The command: its subcommands, each from a module of its own."""

from __future__ import annotations

import typer

from asgi_ratelimit.cli.block import block
from asgi_ratelimit.cli.discord_proxy import discord_proxy
from asgi_ratelimit.cli.doctor import doctor
from asgi_ratelimit.cli.fake_discord import fake_discord
from asgi_ratelimit.cli.reset import reset
from asgi_ratelimit.cli.show import show
from asgi_ratelimit.cli.top import top

__all__ = ["app"]

app = typer.Typer(
    name="asgi-ratelimit",
    help="Rate limits for ASGI apps, and for calls to Discord.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def about() -> None:
    """Rate limits for ASGI apps, and for calls to Discord."""


def _examples(*lines: str) -> str:
    """The end of a help text."""
    return "\n\n".join(["Examples:", *(f"  asgi-ratelimit {line}" for line in lines)])


app.command(
    "doctor",
    epilog=_examples("doctor --redis redis://localhost:6379/0", "doctor https://example.com/api/items --json"),
)(doctor)
app.command(
    "show",
    epilog=_examples(
        "show user:42 --limit 100/minute",
        'show 203.0.113.7 --limiter "/items/{item_id}" --limit "5/5s" --per 7',
        'show user:42 --limit "10/s" --limit "SlidingWindow(1000/hour, name=hourly)"',
    ),
)(show)
app.command("reset", epilog=_examples("reset user:42 --limit 100/minute", 'reset user:42 --limit "10/s" --json'))(reset)
app.command("block", epilog=_examples("block user:42 3600", "block 203.0.113.7 0 --limiter login"))(block)
app.command(
    "top",
    epilog=_examples(
        "top --redis redis://localhost:6379/0",
        "top --url https://example.com/operator --header @operator.txt",
        "top --once --json",
    ),
)(top)
app.command("discord-proxy")(discord_proxy)
app.command("fake-discord")(fake_discord)
