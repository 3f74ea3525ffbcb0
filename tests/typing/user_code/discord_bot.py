"""Calls to Discord, a bot's interactions endpoint, and a discord.py bot."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import discord
import httpx
from discord.ext import commands
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_ratelimit import ClientIP, Decision, Escalate, MemoryStore, TokenBucket, pace
from asgi_ratelimit.discord import (
    BULK_DELETE,
    DELETE,
    EDITS,
    MESSAGES,
    REACTIONS,
    DiscordClient,
    DiscordError,
    DiscordEvent,
    DiscordHandler,
    DiscordProxy,
    DiscordRateLimited,
    DiscordTransport,
    HttpxOptions,
    InvalidBudgetSpent,
    RateLimitAware,
    SyncDiscordClient,
    SyncHttpxOptions,
    TokenRejected,
    Waiting,
    WebhookGone,
)
from asgi_ratelimit.interactions import Interaction, InteractionKey, InteractionLimit, Text, Unavailable

PUBLIC_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
logger = logging.getLogger(__name__)


def note(event: DiscordEvent) -> None:
    logger.info("%s %s %.3f %s", event.kind, event.route, event.seconds, event.cause)
    logger.info("%s %d %d", event.bucket, event.status, event.attempt)


def make_client(token: str) -> DiscordClient:
    return DiscordClient(
        token,
        base_url="https://discord.com/api/v10",
        store=MemoryStore(),
        global_limit=50,
        max_wait=30,
        max_retries=5,
        min_remaining=0,
        retry_unsafe=False,
        application_id=1234,
        ordered=True,
        egress="office",
        on_event=note,
        timeout=10,
        limits=httpx.Limits(max_connections=50),
    )


def make_slow_client(token: str) -> DiscordClient:
    options: HttpxOptions = {"timeout": httpx.Timeout(60), "follow_redirects": False, "http2": True}
    return DiscordClient(token, **options)


def longest(client: DiscordClient) -> Waiting | None:
    return max(client.waiting, key=lambda waiting: waiting.seconds, default=None)


def make_transport() -> httpx.AsyncClient:
    transport = DiscordTransport(
        httpx.AsyncHTTPTransport(),
        store=MemoryStore(),
        global_limit=50,
        max_wait=None,
        max_retries=3,
        retry_unsafe=True,
        application_id="1234",
        ordered=False,
        egress="default",
        origins=["http://127.0.0.1:8080"],
        min_remaining=1,
        max_in_flight=100,
        on_event=print,
    )
    return httpx.AsyncClient(transport=transport)


async def call(token: str) -> int:
    async with make_client(token) as client:
        try:
            options = {"deadline": 5.0, "priority": 1, "reason": "spring cleaning"}
            response = await client.post("/channels/1/messages", json={"content": "hi"}, extensions=options)
            seconds: float = await client.would_wait("POST", "/channels/1/messages")
            return response.status_code + round(seconds) + len(client.waiting)
        except DiscordRateLimited as refused:
            return round(refused.retry_after) if refused.scope == "global" and refused.cause else 0
        except InvalidBudgetSpent as spent:
            return spent.used - spent.allowed + round(spent.retry_after)
        except (TokenRejected, WebhookGone) as gone:
            logger.warning("%s", gone.route)
        except DiscordError:
            raise
    return 0


def key_of(interaction: dict[str, Any]) -> str:
    return str(interaction["channel_id"])


async def key_later(interaction: dict[str, Any]) -> str | None:
    return interaction.get("guild_id")


def text_of(interaction: dict[str, Any], decision: Decision) -> str:
    return f"Again in {decision.retry_after:.0f} s, {interaction['member']['user']['username']}."


every_option = InteractionLimit(
    PUBLIC_KEY,
    ["5/10s", TokenBucket("100/hour")],
    key="command",
    component=":",
    autocomplete="30/10s",
    store=MemoryStore(),
    name="interactions",
    text={"de": "Langsam! Weiter geht es {when}.", "default": "Not so fast! Again {when}."},
    unavailable="Please try again shortly.",
    tolerance=300,
    max_body=1_048_576,
    failures="60/minute",
    escalate=Escalate(after=5, within=60, block=(60, 600)),
    client=ClientIP(trusted_proxies=["10.0.0.0/8"]),
)
by_channel = InteractionLimit(PUBLIC_KEY, "5/10s", key=key_of, text=text_of, unavailable={"default": "Shortly."})
by_guild = InteractionLimit(PUBLIC_KEY, limit=TokenBucket("5/10s"), key=key_later, text="Again {when}.")
app = FastAPI()


@app.post("/interactions")
async def interactions(interaction: Annotated[dict[str, Any], Depends(every_option)]) -> dict[str, Any]:
    return {"type": 4, "data": {"content": interaction["data"]["name"]}}


async def endpoint(request: Request) -> JSONResponse:
    return JSONResponse({"type": 4, "data": {"content": request.state.interaction["data"]["name"]}})


route = Route("/interactions", endpoint, methods=["POST"], middleware=[Middleware(by_channel.wrap)])
starlette_app = Starlette(routes=[route, Mount("/more", by_guild.wrap(app))])


class MyBot(RateLimitAware, commands.Bot):
    async def on_rate_limited(self, where: str, error: BaseException) -> None:
        logger.warning("%s: %r, %d so far", where, error, self.rate_limited.total())


def make_bot() -> MyBot:
    bot = MyBot(command_prefix="!", intents=discord.Intents.default())
    assert not bot.note("my task", None)
    bot.watch(bot.tree)
    return bot


async def announce(channel: discord.TextChannel, texts: list[str]) -> list[int]:
    async def send(text: str) -> discord.Message:
        return await channel.send(text)

    outcomes = [outcome async for outcome in pace(texts, send, limit=MESSAGES, key=str(channel.id))]
    return [outcome.result.id for outcome in outcomes if outcome.result]


async def clean_up(channel: discord.TextChannel, messages: list[discord.Message]) -> int:
    async def delete(message: discord.Message) -> None:
        await message.delete()

    async def react(message: discord.Message) -> None:
        await message.add_reaction("👍")

    async def close(message: discord.Message) -> None:
        await message.edit(content="closed")

    failed = [outcome.error async for outcome in pace([messages[:100]], channel.delete_messages, limit=BULK_DELETE)]
    failed += [outcome.error async for outcome in pace(messages, delete, limit=DELETE) if not outcome.ok]
    failed += [outcome.error async for outcome in pace(messages, react, limit=REACTIONS) if not outcome.ok]
    failed += [outcome.error async for outcome in pace(messages, close, limit=EDITS) if not outcome.ok]
    return len(failed)


def channel_of(interaction: Interaction) -> str | None:
    return interaction.get("channel_id")


def limit_by(key: InteractionKey, text: Text, unavailable: Unavailable) -> InteractionLimit:
    return InteractionLimit(PUBLIC_KEY, "5/10s", key=key, text=text, unavailable=unavailable)


by_channels = limit_by(channel_of, "Again {when}.", {"de": "Gleich wieder.", "default": "Try again shortly."})


def without_await(token: str) -> list[str]:
    options: SyncHttpxOptions = {"timeout": 5.0, "event_hooks": {"request": [print]}}
    with SyncDiscordClient(
        token,
        base_url="https://discord.com/api/v10",
        store=MemoryStore(),
        global_limit=50,
        max_wait=60,
        max_retries=3,
        retry_unsafe=False,
        min_remaining=1,
        application_id=1234567890,
        ordered=False,
        egress="default",
        on_event=print,
        **options,
    ) as discord:
        response = discord.post("/channels/1/messages", json={"content": "hello"}, extensions={"deadline": 2.5})
        with discord.stream("GET", "/channels/1/messages") as streamed:
            size = sum(len(piece) for piece in streamed.iter_bytes())
        seconds: float = discord.would_wait("POST", "/channels/1/messages", json={})
        return [response.text, f"{size} bytes, {seconds}", *(waiting.route for waiting in discord.waiting)]


def log_to_discord(webhook_url: str) -> int:
    handler = DiscordHandler(
        webhook_url,
        level=logging.WARNING,
        interval=2.0,
        capacity=1_000,
        timeout=0.5,
        store=MemoryStore(),
        egress="default",
    )
    logging.getLogger().addHandler(handler)
    handler.flush()
    return handler.dropped


def proxy_for_other_languages(transport: httpx.AsyncBaseTransport) -> tuple[DiscordProxy, int]:
    proxy = DiscordProxy(
        upstream="https://discord.com",
        store=MemoryStore(),
        global_limit=50,
        min_remaining=1,
        egress="default",
        max_body=10_000_000,
        max_memory=50_000_000,
        on_event=print,
        transport=transport,
    )
    return proxy, sum(proxy.counts.values())
