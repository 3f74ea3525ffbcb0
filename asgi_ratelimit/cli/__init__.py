"""The command `asgi-ratelimit`.

app               the command, its subcommands and their examples
doctor            `asgi-ratelimit doctor`; examination: what it looks at
show              `asgi-ratelimit show`; reset, block: those
redis_limiter     a limiter of an app's on its Redis; decisions: what is left, as text and as JSON
limit_notation    a limit on a command line
top               `asgi-ratelimit top`
snapshot_sources  where its counts come from; snapshot_view: their tables
discord_proxy     `asgi-ratelimit discord-proxy`
fake_discord      `asgi-ratelimit fake-discord`
options           options that several commands have; http_headers: one of them
running           errors as sentences and exit codes
screen            tables and sentences; loopback: whether a host is this machine

Exit codes: 0; 1: what was asked about is not well; 2: it was called wrongly. After Ctrl-C it is 130.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command. A package that is missing is named in one sentence."""
    try:
        from asgi_ratelimit.cli.app import app
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("asgi_ratelimit"):
            raise
        sys.stderr.write(
            f"The command needs {missing.name.partition('.')[0]}: pip install 'asgi-ratelimit-discord[cli]'\n"
        )
        sys.exit(2)
    app()
