"""The commands of `asgi-ratelimit`, one module each."""

from __future__ import annotations

import typer

from asgi_ratelimit.cli.fake_discord import fake_discord

__all__ = ["app"]

app = typer.Typer(name="asgi-ratelimit", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def everything() -> None:
    """Rate limits in both directions: for what comes in, and for what goes out to Discord."""


app.command("fake-discord")(fake_discord)
