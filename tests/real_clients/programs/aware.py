"""A bot with RateLimitAware of the library that is named on the command line, whose commands raise 429s.

It imports the library from a folder of its own, and the rest from those that are named next. It reports what was
counted.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any


def main(name: str, mixin: Any) -> None:
    library, commands = importlib.import_module(name), importlib.import_module(f"{name}.ext.commands")
    hooks = {
        "disnake": ("slash_command_error", "user_command_error", "message_command_error"),
    }.get(name, ("application_command_error",))
    sys.stdout.write(json.dumps(asyncio.run(driven(library, commands, mixin, hooks))))


async def driven(library: Any, commands: Any, mixin: Any, hooks: tuple[str, ...]) -> dict[str, Any]:
    """What the bot counted, the events it saw and the errors that reached its parent."""
    kept: list[str] = []

    class Parent(commands.Bot):  # type: ignore[misc]
        pass

    for hook in hooks:
        setattr(Parent, f"on_{hook}", keeping(kept, hook))

    class Bot(mixin, Parent):  # type: ignore[misc]
        async def on_rate_limited(self, where: str, error: BaseException) -> None:
            seen.append(where)

    seen: list[str] = []
    bot = Bot(command_prefix="!", intents=library.Intents.none())
    for hook in hooks:
        for status in (429, 403):
            bot.dispatch(hook, asked(), wrapped(library, commands, status))
    for _ in range(10):
        await asyncio.sleep(0)
    return {"counted": dict(bot.rate_limited), "seen": seen, "kept": kept}


def keeping(kept: list[str], hook: str) -> Any:
    async def on_error(self: Any, source: Any, error: Any) -> None:
        kept.append(f"{hook}: {error.original.status}")

    return on_error


def asked() -> Any:
    """An interaction or a context, by the name that each library gives the command."""
    play = SimpleNamespace(qualified_name="play")
    return SimpleNamespace(command=play) if "discord" in sys.modules else SimpleNamespace(application_command=play)


def wrapped(library: Any, commands: Any, status: int) -> Exception:
    """What each library raises out of a command whose HTTP call was refused."""
    refused = library.HTTPException(SimpleNamespace(status=status, reason="why"), "no")
    for place in (library, commands):
        for kind in ("ApplicationCommandInvokeError", "ApplicationInvokeError", "CommandInvokeError"):
            if hasattr(place, kind):
                error: Exception = getattr(place, kind)(refused)
                return error
    raise LookupError("no error of a command")


def mixin_of(folders: list[str]) -> Any:
    """RateLimitAware, with what it needs. The library's own folder comes before these."""
    sys.path += folders
    return importlib.import_module("asgi_ratelimit.discord").RateLimitAware


if __name__ == "__main__":
    main(sys.argv[1], mixin_of(sys.argv[2:]))
