"""The command: its subcommands, each from a module of its own."""

from __future__ import annotations

import typer

from asgi_ratelimit.cli.block import block
from asgi_ratelimit.cli.discord_proxy import discord_proxy
from asgi_ratelimit.cli.doctor import doctor
from asgi_ratelimit.cli.fake_discord import fake_discord
from asgi_ratelimit.cli.reset import reset
from asgi_ratelimit.cli.show import show

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


app.command("doctor")(doctor)
app.command("show")(show)
app.command("reset")(reset)
app.command("block")(block)
app.command("discord-proxy")(discord_proxy)
app.command("fake-discord")(fake_discord)
