"""The command `asgi-ratelimit`.

app           the commands together
fake_discord  a FakeDiscord that measures clients
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]

NEEDED = ("rich", "typer", "uvicorn")


def main() -> int:
    """Run the command; its exit code: 0, 1 if what was asked about is not well, 2 if it was asked wrongly."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"asgi-ratelimit needs {missing[0]}: pip install 'asgi-ratelimit-discord[cli]'\n")
        return 2
    from asgi_ratelimit.cli.app import app

    app()
    return 0
