"""RateLimitAware on a real discord.py: it counts and logs 429s, and the bot's own handlers see everything else."""

from __future__ import annotations

import asyncio
import logging
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_ratelimit import Limiter
from asgi_ratelimit.discord import DiscordRateLimited, RateLimitAware
from asgi_ratelimit.discord.routes import route_of
from asgi_ratelimit.testing import FakeDiscord
from tests.real_clients.bots import discord_py_led_to
from tests.real_clients.discord_api import served

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import discord
    from discord import app_commands
    from discord.ext import commands

pytestmark = pytest.mark.anyio

SECONDS = 10.0
NOTHING = discord.Intents.none()
SEND = "POST /channels/{channel_id}/messages"


def answered(status: int, reason: str = "why") -> discord.HTTPException:
    """What discord.py raises for such an answer."""
    response: Any = SimpleNamespace(status=status, reason=reason)
    return discord.HTTPException(response, "You are being rate limited." if status == 429 else "no")


class Bot(RateLimitAware, commands.Bot):
    def __init__(self) -> None:
        super().__init__("!", intents=NOTHING)
        self.events: list[tuple[str, BaseException]] = []

    async def on_rate_limited(self, where: str, error: BaseException) -> None:
        self.events.append((where, error))


async def raise_in_event(client: Any, error: BaseException, event: str = "on_message") -> None:
    """As if a listener of the event had raised it."""

    async def listener() -> None:
        raise error

    await client._run_event(listener, event)


async def finished(client: Any) -> None:
    """Until the events that were dispatched have run."""
    async with asyncio.timeout(SECONDS):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith("discord.py")]:
            await asyncio.gather(*tasks)


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    """The messages of our logger, and the errors that one of discord.py's logs."""
    least = logging.WARNING if name == "asgi_ratelimit" else logging.ERROR
    return [record for record in caplog.records if record.name == name and record.levelno >= least]


def refusals() -> list[Any]:
    ours = DiscordRateLimited(route_of("POST", "/channels/1/messages"), 3.0, "bucket")
    return [answered(429), discord.RateLimited(70.0), ours]


@pytest.mark.parametrize("error", refusals(), ids=lambda error: type(error).__name__)
async def test_a_429_in_an_event_is_counted_and_logged_and_goes_no_further(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bot() as bot:
        await raise_in_event(bot, error)
        await raise_in_event(bot, error, "on_ready")
        await finished(bot)
    assert bot.rate_limited == {"on_message": 1, "on_ready": 1}
    assert bot.rate_limited.total() == 2
    assert bot.events == [("on_message", error), ("on_ready", error)]
    assert [record.getMessage() for record in logged(caplog, "asgi_ratelimit")] == [
        f"{event} was rate limited: {error}" for event in ("on_message", "on_ready")
    ]
    assert not logged(caplog, "discord.client")


async def test_a_refusal_by_a_limiter_of_ones_own_counts_too() -> None:
    limiter = Limiter("1/h")

    class Client(RateLimitAware, discord.Client):
        async def on_message(self) -> None:
            await limiter.acquire("me", timeout=0)

    async with Client(intents=NOTHING) as client:
        for _ in range(3):
            client.dispatch("message")
        await finished(client)
    assert client.rate_limited == {"on_message": 2}


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), answered(403), answered(500), commands.CommandInvokeError(answered(404)), KeyError("429")],
    ids=repr,
)
async def test_every_other_exception_reaches_the_parent(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async with Bot() as bot:
        await raise_in_event(bot, error)
        await finished(bot)
    (record,) = logged(caplog, "discord.client")
    assert record.exc_info is not None
    assert record.exc_info[1] is error, "with its traceback"
    assert (bot.rate_limited.total(), bot.events, logged(caplog, "asgi_ratelimit")) == (0, [], [])


async def test_an_on_error_of_the_bots_own_parent_is_called() -> None:
    class Strict(discord.Client):
        async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
            seen.append((event_method, args))

    class Client(RateLimitAware, Strict):
        async def on_message(self, text: str) -> None:
            raise answered(429) if text == "429" else ValueError(text)

    seen: list[Any] = []
    async with Client(intents=NOTHING) as client:
        for text in ("429", "other"):
            client.dispatch("message", text)
        await finished(client)
    assert seen == [("on_message", ("other",))]
    assert client.rate_limited == {"on_message": 1}


async def test_an_error_that_a_user_raised_because_of_a_429_is_the_users(caplog: pytest.LogCaptureFixture) -> None:
    async with Bot() as bot:
        mine = ValueError("mine")
        mine.__cause__ = answered(429)
        await raise_in_event(bot, mine)
    assert len(logged(caplog, "discord.client")) == 1
    assert bot.rate_limited.total() == 0


async def test_of_a_group_each_429_is_counted_and_it_goes_on_if_it_holds_anything_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Bot() as bot:
        await raise_in_event(bot, ExceptionGroup("two", [answered(429), answered(429)]))
        assert (bot.rate_limited.total(), logged(caplog, "discord.client")) == (2, [])
        await raise_in_event(bot, ExceptionGroup("two", [answered(429), ValueError("mine")]))
        assert (bot.rate_limited.total(), len(logged(caplog, "discord.client"))) == (3, 1)
        await finished(bot)


async def test_a_listener_that_is_refused_itself_is_not_called_for_ever() -> None:
    class Client(RateLimitAware, discord.Client):
        async def on_rate_limited(self, where: str, error: BaseException) -> None:
            raise answered(429)

    async with Client(intents=NOTHING) as client:
        await raise_in_event(client, answered(429))
        await finished(client)
    assert client.rate_limited == {"on_message": 1, "on_rate_limited": 1}


async def test_a_command_that_is_refused_is_counted_and_any_other_error_of_a_command_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Bot() as bot:

        @bot.group(invoke_without_command=True)
        async def admin(context: commands.Context[Any]) -> None:
            pass

        @admin.command()
        async def ping(context: commands.Context[Any], number: int) -> None:
            raise answered(number)

        for status in ("429", "403", "none"):
            await invoke(bot, f"!admin ping {status}")
        await finished(bot)
    assert bot.rate_limited == {"command admin ping": 1}
    lines = [str(record.exc_info and record.exc_info[1]) for record in logged(caplog, "discord.ext.commands.bot")]
    assert len(lines) == 2
    assert "403" in lines[0]
    assert "int" in lines[1]


async def test_a_slash_command_that_is_refused_is_counted_and_any_other_error_reaches_the_tree() -> None:
    class Tree(app_commands.CommandTree[Any]):
        async def on_error(self, interaction: Any, error: app_commands.AppCommandError, /) -> None:
            others.append(error)

    class Slashing(RateLimitAware, commands.Bot):
        def __init__(self) -> None:
            super().__init__("!", intents=NOTHING, tree_cls=Tree)

    async def callback(interaction: discord.Interaction) -> None: ...

    others: list[Any] = []
    command: app_commands.Command[Any, ..., None] = app_commands.Command(
        name="ping", description="ping", callback=callback
    )
    async with Slashing() as bot:
        for status in (429, 403):
            error = app_commands.CommandInvokeError(command, answered(status))
            interaction: Any = SimpleNamespace(command=command)
            await bot.tree._dispatch_error(interaction, error)
    assert bot.rate_limited == {"command ping": 1}
    assert [error.original.status for error in others] == [403]


async def test_a_hybrid_command_wraps_a_429_twice() -> None:
    async def callback(interaction: discord.Interaction) -> None: ...

    command: app_commands.Command[Any, ..., None] = app_commands.Command(
        name="ping", description="ping", callback=callback
    )
    error = commands.HybridCommandError(app_commands.CommandInvokeError(command, answered(429)))
    async with Bot() as bot:
        bot.dispatch("command_error", SimpleNamespace(command=command), error)
        await finished(bot)
    assert bot.rate_limited == {"command ping": 1}


async def test_the_tree_of_a_plain_client_is_seen_once_it_is_watched() -> None:
    class Client(RateLimitAware, discord.Client):
        def __init__(self) -> None:
            super().__init__(intents=NOTHING)
            self.tree = app_commands.CommandTree(self)
            self.watch(self.tree)

    async with Client() as client:
        interaction: Any = SimpleNamespace(command=None, command_failed=False)
        error: Any = discord.RateLimited(9.0)
        await client.tree.on_error(interaction, error)
    assert client.rate_limited.total() == 1


async def test_it_needs_no_discord_py() -> None:
    class Library:
        def __init__(self, name: str) -> None:
            self.name = name
            self.failed: list[str] = []

        def dispatch(self, event: str, *args: Any) -> None:
            self.failed.append(event)

        async def on_error(self, event_method: str, *args: Any, **kwargs: Any) -> None:
            self.failed.append(event_method)

    class Refused(Exception):
        status = 429

    class Client(RateLimitAware, Library):
        pass

    client = Client("mine")
    for error in (Refused(), ValueError()):
        try:
            raise error
        except Exception:
            await client.on_error("on_message")
    await client.on_error("on_nothing")
    assert (client.name, client.rate_limited) == ("mine", {"on_message": 1})
    assert client.failed == ["rate_limited", "on_message", "on_nothing"]


def test_written_behind_the_bot_it_raises_an_error_about_the_order() -> None:
    with pytest.raises(TypeError, match=r"class Late\(RateLimitAware, Bot\)"):
        type("Late", (commands.Bot, RateLimitAware), {})


@pytest.mark.parametrize("refusal", ["ban", "long"])
async def test_a_real_refusal_that_discord_py_gives_up_on_is_counted(refusal: str) -> None:
    """A ban by Cloudflare raises HTTPException, a wait above max_ratelimit_timeout RateLimited."""
    fake = FakeDiscord(token="test")

    class Client(RateLimitAware, discord.Client):
        async def on_message(self) -> None:
            await self.get_partial_messageable(1001).send("hello")

    with served(fake) as address, discord_py_led_to(address):
        async with asyncio.timeout(SECONDS), Client(intents=NOTHING, max_ratelimit_timeout=30.0) as client:
            await client.login("test")
            if refusal == "ban":
                fake.ban(60)
            else:
                fake.refuse(SEND, 60.0)
            client.dispatch("message")
            await finished(client)
    assert client.rate_limited == {"on_message": 1}
    assert fake.count(429) == 1


async def invoke(bot: commands.Bot, text: str) -> None:
    """As if somebody had written it."""
    bot._connection.user = SimpleNamespace(id=9)  # type: ignore[assignment]
    message: Any = SimpleNamespace(
        content=text,
        author=SimpleNamespace(bot=False, id=1),
        guild=None,
        channel=SimpleNamespace(id=2),
        id=3,
        attachments=[],
        _state=bot._connection,
    )
    await bot.process_commands(message)
