"""The command `asgi-ratelimit`.

app            the command and its exit codes
discord_proxy  `asgi-ratelimit discord-proxy`
fake_discord   `asgi-ratelimit fake-discord`

Exit codes: 0; 1: what was asked about is not well; 2: it was called wrongly.
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
