"""`python -m asgi_ratelimit.cli` is the command `asgi-ratelimit`."""

from __future__ import annotations

from asgi_ratelimit.cli import main

if __name__ == "__main__":
    main()
