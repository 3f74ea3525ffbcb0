"""The way out: calls to Discord, paced so that they draw no 429.

client            DiscordClient: an httpx.AsyncClient for a bot
transport         DiscordTransport: its httpx side; pools: its connections; nonces: messages that may be sent again
sender            one call from its first attempt to its last
scheduler         when a call may go; queue: the calls before it
permits/          what Discord's responses teach about its limits
tokens            the tokens that calls bear; invalid_requests: the budget of an address
response_headers  what a response reports about limits; routes: the route of a call
redaction         logs without tokens
errors            the errors, and the events
discordpy         RateLimitAware: a discord.py bot that counts its 429s
operations        MESSAGES, REACTIONS, DELETE, BULK_DELETE: limits for bulk work with such a bot
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import httpx as _httpx  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.discord needs httpx: pip install 'asgi-ratelimit-discord[discord]'") from error

from asgi_ratelimit.discord.client import DiscordClient
from asgi_ratelimit.discord.discordpy import RateLimitAware
from asgi_ratelimit.discord.errors import (
    DiscordError,
    DiscordEvent,
    DiscordRateLimited,
    InvalidBudgetSpent,
    TokenRejected,
    WebhookGone,
)
from asgi_ratelimit.discord.operations import BULK_DELETE, DELETE, MESSAGES, REACTIONS
from asgi_ratelimit.discord.transport import DiscordTransport

if TYPE_CHECKING:
    from asgi_ratelimit.interactions import InteractionLimit

__all__ = [
    "BULK_DELETE",
    "DELETE",
    "MESSAGES",
    "REACTIONS",
    "DiscordClient",
    "DiscordError",
    "DiscordEvent",
    "DiscordRateLimited",
    "DiscordTransport",
    "InteractionLimit",
    "InvalidBudgetSpent",
    "RateLimitAware",
    "TokenRejected",
    "WebhookGone",
]


def __getattr__(name: str) -> object:
    """InteractionLimit has moved to `asgi_ratelimit.interactions`, which needs cryptography and no httpx."""
    if name != "InteractionLimit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asgi_ratelimit.interactions import InteractionLimit

    return InteractionLimit
