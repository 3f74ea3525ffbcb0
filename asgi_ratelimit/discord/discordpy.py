"""For bots of discord.py, and of libraries with the same hooks: RateLimitAware, and limits for bulk work.

These libraries learn about a bucket by running into it. Discord does not publish the figures below, changes them at
will and asks developers not to hard-code them. Authors of libraries measured them. Each limit here never lets more
pass in any window, wherever it opens, and leaves a tenth of a second or more for latency that varies. A DiscordClient
needs none: it reads the limits in the responses. https://discord.com/developers/docs/topics/rate-limits
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from asgi_ratelimit.limits import SlidingWindow

__all__ = ["BULK_DELETE", "DELETE", "EDITS", "MESSAGES", "REACTIONS", "RateLimitAware"]

logger = logging.getLogger("asgi_ratelimit")

# The libraries' own, and ours: none of them is imported here, and discord.py's has no status.
_NAMES: Final = frozenset({"RateLimited", "DiscordRateLimited"})
_EVENT: Final = "rate_limited"

MESSAGES: Final = SlidingWindow("5/5500ms")
"""Messages to one channel: 5 per 5 s. https://github.com/discord/discord-api-docs/issues/20,
https://javacord.org/wiki/advanced-topics/ratelimits.html"""

EDITS: Final = SlidingWindow("5/5500ms")
"""Messages of one channel edited: 5 per 5 s, or 4 s in other measurements. Those older than an hour have a lower limit
of their own. https://github.com/discord/discord-api-docs/issues/20,
https://github.com/discord/discord-api-docs/issues/4413"""

REACTIONS: Final = SlidingWindow("1/350ms")
"""Reactions added and removed in one channel: 1 per 0.25 s. https://github.com/discord/discord-api-docs/issues/182,
https://javacord.org/wiki/advanced-topics/ratelimits.html"""

DELETE: Final = SlidingWindow("5/1100ms")
"""Messages of one channel deleted one by one: 5 per 1 s where they are new, somewhat more later.
https://github.com/discord/discord-api-docs/issues/8330"""

BULK_DELETE: Final = SlidingWindow("1/1100ms")
"""Bulk deletes, of 2 to 100 messages each and none older than 14 days: 1 per 1 s in a whole guild.
https://github.com/discord/discord-api-docs/issues/40, https://github.com/discord/discord-api-docs/pull/372"""


class RateLimitAware:
    """A mixin that counts and logs the 429s that end an event, and leaves every other exception to the bot's parent.

        class MyBot(RateLimitAware, commands.Bot): ...

    It counts exceptions whose `status` is 429, discord.RateLimited, and this package's RateLimited and
    DiscordRateLimited, also within an error of a command (its `original`). `rate_limited` counts them by event and
    command. `rate_limited.total()` is the sum. Each one dispatches `on_rate_limited(where, error)`, an event of the bot
    like any other.

    Commands and slash commands of a Bot are counted, too, also those of disnake, nextcord and py-cord. For a tree of a
    plain Client call `watch(tree)`. Handlers in place of these (`@bot.event`, `@bot.tree.error`), views and tasks can
    call `note(where, error)`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        before = cls.__mro__[: cls.__mro__.index(RateLimitAware)]
        hidden_by = [kind for kind in before if hasattr(kind, "on_error") and not issubclass(kind, RateLimitAware)]
        if hidden_by:
            bot = hidden_by[0].__name__
            raise TypeError(
                f"write RateLimitAware first: class {cls.__name__}(RateLimitAware, {bot}), or {bot} hides it"
            )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rate_limited: Counter[str] = Counter()
        tree = getattr(self, "tree", None)
        if callable(getattr(tree, "error", None)):
            self.watch(tree)

    def note(self, where: str, error: BaseException | None) -> bool:
        """Count and log an error if it is about a rate limit. True: it is about nothing else."""
        if error is None:
            return False
        bot: Any = self
        causes = list(_causes(error))
        refusals = [cause for cause in causes if _is_refusal(cause)]
        for refusal in refusals:
            self.rate_limited[where] += 1
            logger.warning("%s was rate limited: %.200s", where, refusal)
            if where != f"on_{_EVENT}":  # or a listener that is refused itself would be called for ever
                bot.dispatch(_EVENT, where, refusal)
        return len(refusals) == len(causes)

    def watch(self, tree: Any) -> None:
        """Note the errors of a CommandTree, and pass the others on to the handler that it has now."""
        other = tree.on_error

        async def on_error(interaction: Any, error: Exception) -> None:
            if not self.note(_command(interaction), error):
                await other(interaction, error)

        tree.error(on_error)

    async def on_error(self, event_method: str, *args: Any, **kwargs: Any) -> None:
        """An event has raised. Libraries do not pass the exception: it is the one being handled."""
        if not self.note(event_method, sys.exception()):
            await self._parent.on_error(event_method, *args, **kwargs)

    async def on_command_error(self, context: Any, exception: Exception) -> None:
        """A command of a Bot has raised."""
        if not self.note(_command(context), exception):
            await self._parent.on_command_error(context, exception)

    async def on_application_command_error(self, context: Any, exception: Exception) -> None:
        """A slash command, or a command of a menu, has raised in nextcord or py-cord."""
        await self._after_command("on_application_command_error", context, exception)

    async def on_slash_command_error(self, interaction: Any, exception: Any) -> None:
        """A slash command has raised in disnake."""
        await self._after_command("on_slash_command_error", interaction, exception)

    async def on_user_command_error(self, interaction: Any, exception: Any) -> None:
        """A command of a user's menu has raised in disnake."""
        await self._after_command("on_user_command_error", interaction, exception)

    async def on_message_command_error(self, interaction: Any, exception: Any) -> None:
        """A command of a message's menu has raised in disnake."""
        await self._after_command("on_message_command_error", interaction, exception)

    async def _after_command(self, hook: str, source: Any, error: Exception) -> None:
        """Note the error. Each library calls the hooks that its own bot has."""
        other = getattr(self._parent, hook, None)
        if not self.note(_command(source), error) and other is not None:
            await other(source, error)

    @property
    def _parent(self) -> Any:
        return super()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors at the bottom: those that a command's error wraps, and those in a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    elif isinstance(original := getattr(error, "original", None), BaseException) and original is not error:
        yield from _causes(original)
    else:
        yield error


def _is_refusal(error: BaseException) -> bool:
    return getattr(error, "status", None) == 429 or any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _command(source: Any) -> str:
    """The command of a context or an interaction, by its public name."""
    command = getattr(source, "command", None) or getattr(source, "application_command", None)
    return f"command {getattr(command, 'qualified_name', command)}"
