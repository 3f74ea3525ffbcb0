"""RateLimitAware: a bot of discord.py, or of a library with the same hooks, that knows how often it was refused."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["RateLimitAware"]

logger = logging.getLogger("asgi_ratelimit")

# The libraries' own, and ours: none of them is imported here, and discord.py's has no status.
_NAMES: Final = frozenset({"RateLimited", "DiscordRateLimited"})
_EVENT: Final = "rate_limited"


class RateLimitAware:
    """A mixin that counts and logs the 429s that end an event, and leaves every other exception to the bot's parent.

        class MyBot(RateLimitAware, commands.Bot): ...

    What counts is an exception whose `status` is 429, discord.RateLimited, and this package's RateLimited and
    DiscordRateLimited, also within an error of a command (its `original`). `rate_limited` counts them by event and
    command; `rate_limited.total()` is all of them. Each is told to `on_rate_limited(where, error)`, an event of the
    bot like any other.

    Commands and slash commands of a Bot are seen, too; for a tree of a plain Client call `watch(tree)`. Handlers that
    are set in place of these (`@bot.event`, `@bot.tree.error`), views and tasks can ask `note(where, error)`.
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
        """Count and log an error if it is about a rate limit and nothing else; whether it was."""
        if error is None:
            return False
        bot: Any = self
        causes = list(_causes(error))
        refusals = [cause for cause in causes if _is_refusal(cause)]
        for refusal in refusals:
            self.rate_limited[where] += 1
            logger.warning("%s was rate limited: %.200s", where, refusal)
            if where != f"on_{_EVENT}":  # or a listener that is refused itself would be told so for ever
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
        """An event has raised. It is the exception being handled: no library passes it."""
        if not self.note(event_method, sys.exception()):
            await self._parent.on_error(event_method, *args, **kwargs)

    async def on_command_error(self, context: Any, exception: Exception) -> None:
        """A command of a Bot has raised."""
        if not self.note(_command(context), exception):
            await self._parent.on_command_error(context, exception)

    @property
    def _parent(self) -> Any:
        return super()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What is wrong in the end: what a command's error wraps, what a group holds."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    elif isinstance(original := getattr(error, "original", None), BaseException) and original is not error:
        yield from _causes(original)
    else:
        yield error


def _is_refusal(error: BaseException) -> bool:
    return getattr(error, "status", None) == 429 or any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _command(asked: Any) -> str:
    """The command of a context or an interaction, as its user knows it."""
    command = getattr(asked, "command", None)
    return f"command {getattr(command, 'qualified_name', command)}"
